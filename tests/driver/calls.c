#include "calls.h"

#include <math.h>
#include <stdio.h>

/* ---- gram ---- */

static enum ddoq_status run_gram(const struct ddoq_run *run, const struct call *call, void *const *out)
{
    return ddoq_gram(run, call->type, call->X, call->n, call->d, out[0]);
}

static void make_gram(struct call *call)
{
    call->run = run_gram;
    call->type = below(2);
    call->n = odd_size(300);
    call->d = below(8) ? odd_size(600) : 0;
    call->X = reals(call, call->type, call->n * call->d, -1, 1);
    output(call, call->n * call->n, item_of(call->type), NULL);
    snprintf(call->name, sizeof call->name, "gram %s n %zu d %zu", type_name(call->type), call->n, call->d);
}

/* ---- largest ---- */

static enum ddoq_status run_largest(const struct ddoq_run *run, const struct call *call, void *const *out)
{
    return ddoq_largest(run, call->type, call->X, call->n, call->d, out[0]);
}

static void make_largest(struct call *call)
{
    call->run = run_largest;
    call->type = below(4);
    call->n = below(8) ? odd_size(900) : 0;
    call->d = below(8) ? odd_size(600) : 0;
    void *X = reals(call, call->type, call->n * call->d, -9, 9);
    if (below(4) == 0 && call->n * call->d > 0)
        put(call->type, X, below(call->n * call->d), below(2) ? NAN : -INFINITY);
    call->X = X;
    output(call, 1, sizeof(double), NULL);
    snprintf(call->name, sizeof call->name, "largest %s n %zu d %zu", type_name(call->type), call->n, call->d);
}

/* ---- assign ---- */

static enum ddoq_status run_assign(const struct ddoq_run *run, const struct call *call, void *const *out)
{
    return ddoq_assign(run, call->type, call->X, call->n, call->points, call->k, call->d, out[0], out[1]);
}

static void make_assign(struct call *call)
{
    call->run = run_assign;
    call->type = below(4);
    call->n = below(8) ? odd_size(900) : 0;
    call->k = odd_size(130);
    call->d = below(8) ? odd_size(600) : 0;
    call->X = reals(call, call->type, call->n * call->d, -1, 1);
    call->points = reals(call, real_of(call->type), call->k * call->d, -1, 1);
    output(call, call->n, sizeof(int64_t), NULL);
    output(call, call->n, sizeof(double), NULL);
    snprintf(call->name, sizeof call->name, "assign %s n %zu d %zu k %zu", type_name(call->type), call->n, call->d,
             call->k);
}

/* ---- quantize_classes ---- */

static enum ddoq_status run_quantize(const struct ddoq_run *run, const struct call *call, void *const *out)
{
    struct ddoq_quantize_args args = call->quantize;
    size_t failed_class;
    args.points = out[0];
    args.weights = out[1];
    args.counts = out[2];
    args.labels = out[3];
    args.distortion = out[4];
    args.n_iter = out[5];
    enum ddoq_status status = ddoq_quantize_classes(run, &args, &failed_class);
    return failed_class < args.n_classes || args.n_classes == 0 ? status : DDOQ_BAD_ROW;
}

/* Ragged classes; some have the rows of the one before. */
static void make_classes(struct call *call, struct ddoq_quantize_args *args, size_t n, size_t most)
{
    size_t C = args->n_classes, m = 0, K = 0;
    int64_t *row_offsets = input(call, C + 1, sizeof *row_offsets), *rows = input(call, C * most, sizeof *rows);
    int64_t *point_offsets = input(call, C + 1, sizeof *point_offsets);
    row_offsets[0] = point_offsets[0] = 0;
    for (size_t c = 0; c < C; c++) {
        size_t before = c > 0 ? (size_t)(row_offsets[c] - row_offsets[c - 1]) : 0;
        bool again = before > 0 && below(3) == 0;
        size_t size = again ? before : odd_size(most);
        for (size_t i = 0; i < size; i++)
            rows[m + i] = again ? rows[m - before + i] : (int64_t)below(n);
        m += size;
        K += below(6) ? 1 + below(size < 20 ? size : 20) : size;
        row_offsets[c + 1] = (int64_t)m;
        point_offsets[c + 1] = (int64_t)K;
    }
    args->row_offsets = row_offsets;
    args->rows = rows;
    args->point_offsets = point_offsets;
    call->n = m;
    call->k = K;
}

static void make_starts(struct call *call, struct ddoq_quantize_args *args)
{
    size_t kind = below(3), n_uniforms = 0;
    args->n_init = kind < 2 ? 1 + below(3) : 1;
    int64_t *n_starts = input(call, args->n_classes, sizeof *n_starts);
    for (size_t c = 0; c < args->n_classes; c++)
        n_starts[c] = (int64_t)(1 + below(args->n_init));
    args->n_starts = n_starts;
    int64_t *start_rows = input(call, args->n_init * call->k, sizeof *start_rows), *next = start_rows;
    for (size_t c = 0; c < args->n_classes; c++) {
        size_t k = (size_t)(args->point_offsets[c + 1] - args->point_offsets[c]);
        n_uniforms += args->n_init * (1 + (k - 1) * ddoq_seed_trials(k));
        for (size_t i = 0; i < args->n_init * k; i++)
            *next++ = (int64_t)below((size_t)(args->row_offsets[c + 1] - args->row_offsets[c]));
    }
    if (kind == 0)
        args->uniforms = doubles(call, n_uniforms, 0, 0.999);
    else if (kind == 1)
        args->start_rows = start_rows;
    else
        args->start_points = reals(call, real_of(args->type), call->k * args->d, -1, 1);
}

static void make_quantize(struct call *call)
{
    struct ddoq_quantize_args *args = &call->quantize;
    bool sketch = below(4) == 0;
    size_t n = odd_size(sketch ? 40 : 150), most = sketch ? 40 : 120;
    call->run = run_quantize;
    args->type = below(4);
    args->n_classes = below(16) ? odd_size(6) : 0;
    args->d = sketch ? 500 + odd_size(600) : odd_size(300);
    args->max_iter = 1 + below(30);
    args->sample_weight = doubles(call, n, 0.1, 2);
    make_classes(call, args, n, most);
    make_starts(call, args);
    uint8_t *forms = input(call, args->n_classes, 1);
    for (size_t c = 0; c < args->n_classes; c++)
        forms[c] = (uint8_t)(sketch ? below(4) : (uint8_t[]){DDOQ_GRAM, DDOQ_GRAM_MOVES, DDOQ_STREAMING}[below(3)]);
    args->forms = forms;
    args->tol = below(2) ? 1e-3 : 0;
    void *X = reals(call, args->type, n * args->d, -1, 1);
    if (below(10) == 0 && args->n_classes > 0) {
        put(args->type, X, (size_t)args->rows[below(call->n)] * args->d + below(args->d), below(2) ? NAN : INFINITY);
        call->expected = DDOQ_NOT_FINITE;
    }
    args->X = X;
    output(call, call->k * args->d, item_of(real_of(args->type)), NULL);
    output(call, call->k, sizeof(double), NULL);
    output(call, call->k, sizeof(int64_t), NULL);
    output(call, call->n, sizeof(int64_t), NULL);
    output(call, args->n_classes, sizeof(double), NULL);
    output(call, args->n_classes, sizeof(int64_t), NULL);
    snprintf(call->name, sizeof call->name, "quantize %s classes %zu rows %zu d %zu points %zu", type_name(args->type),
             args->n_classes, call->n, args->d, call->k);
}

/* ---- clvq ---- */

static enum ddoq_status run_clvq_from(const struct ddoq_run *run, const struct call *call, size_t first,
                                      void *const *out)
{
    struct ddoq_clvq_args args = call->clvq;
    args.X = (const char *)args.X + first * args.d * item_of(args.type);
    args.n -= first;
    args.points = out[0];
    args.weights = call->bytes[1] ? out[1] : NULL;
    args.wins = out[2];
    args.winners = (int64_t *)out[3] + first;
    args.sums = call->bytes[4] ? out[4] : NULL;
    args.summed = out[5];
    args.weight_sums = call->bytes[6] ? out[6] : NULL;
    return ddoq_clvq(run, &args);
}

static enum ddoq_status run_clvq(const struct ddoq_run *run, const struct call *call, void *const *out)
{
    return run_clvq_from(run, call, 0, out);
}

static int64_t steps_of(const struct call *call, void *const *out)
{
    const int64_t *before = call->initial[2], *after = out[2];
    int64_t steps = 0;
    for (size_t j = 0; j < call->clvq.k; j++)
        steps += after[j] - before[j];
    return steps;
}

/* A call that goes on has another shift than the block had in one run, so other roundings: ties may have other winners.
 */
static enum ddoq_status resume_clvq(const struct ddoq_run *run, const struct call *call, void *const *out)
{
    enum ddoq_status status = run_clvq_from(run, call, (size_t)steps_of(call, out), out);
    return status == DDOQ_OK && steps_of(call, out) != (int64_t)call->clvq.n ? DDOQ_INTERRUPTED : status;
}

static void make_clvq(struct call *call)
{
    struct ddoq_clvq_args *args = &call->clvq;
    call->run = run_clvq;
    call->resume = resume_clvq;
    args->type = below(2);
    args->n = below(8) ? odd_size(400) : 0;
    args->d = odd_size(600);
    args->k = odd_size(130);
    args->b = 0.5 + (double)below(100);
    args->power = (double)below(3) / 2;
    args->X = reals(call, args->type, args->n * args->d, -1, 1);
    int64_t *wins = input(call, args->k, sizeof *wins);
    for (size_t j = 0; j < args->k; j++)
        wins[j] = (int64_t)below(9);
    output(call, args->k * args->d, item_of(args->type), reals(call, args->type, args->k * args->d, -1, 1));
    output(call, below(2) ? args->k : 0, sizeof(double), doubles(call, args->k, 0, 1));
    output(call, args->k, sizeof *wins, wins);
    output(call, args->n, sizeof(int64_t), NULL);
    bool average = below(2);
    int64_t *summed = input(call, args->k, sizeof *summed), steps = 0;
    for (size_t j = 0; j < args->k; j++)
        steps += wins[j];
    for (size_t j = 0; j < args->k; j++)
        summed[j] = call->bytes[1] ? steps : wins[j];
    output(call, average ? args->k * args->d : 0, sizeof(double), doubles(call, args->k * args->d, -9, 9));
    output(call, args->k, sizeof *summed, summed);
    output(call, average && call->bytes[1] ? args->k : 0, sizeof(double), doubles(call, args->k, 0, 9));
    snprintf(call->name, sizeof call->name, "clvq %s clock %s n %zu d %zu k %zu", type_name(args->type),
             call->bytes[1] ? "global" : "point", args->n, args->d, args->k);
}

/* ---- weighted_loss ---- */

static enum ddoq_status run_loss(const struct ddoq_run *run, const struct call *call, void *const *out)
{
    struct ddoq_loss_args args = call->loss;
    args.gradient = out[0];
    args.loss = out[1];
    return ddoq_weighted_loss(run, &args);
}

/* Rows of k probabilities, from a distribution over n classes. */
static void *probabilities(struct call *call, enum ddoq_type type, size_t rows, size_t k, size_t n)
{
    void *array = input(call, rows * k, item_of(type));
    for (size_t i = 0; i < rows * k; i++)
        put(type, array, i, i % k == 0 ? 0.5 + 0.5 * (double)(k == n) / (double)k : 0.5 / (double)k);
    return array;
}

static void make_targets(struct call *call, struct ddoq_loss_args *args)
{
    size_t n = args->n_classes;
    bool topk = args->target == DDOQ_TOPK;
    if (args->target == DDOQ_LOGITS)
        args->soft = reals(call, args->target_type, args->n_rows * n, -9, 9);
    else if (args->target != DDOQ_INDEX)
        args->soft = probabilities(call, args->target_type, args->n_rows, topk ? args->k : n, n);
    if (args->target != DDOQ_INDEX && !topk)
        return;
    size_t k = topk ? args->k : 1;
    int64_t *indices = input(call, args->n_rows * k, sizeof *indices);
    for (size_t i = 0; i < args->n_rows; i++)
        for (size_t j = 0, first = below(n); j < k; j++)
            indices[i * k + j] = (int64_t)((first + j) % n);
    if (below(10) == 0 && k > 0) {
        indices[below(args->n_rows * k)] = below(2) ? -1 : (int64_t)n;
        call->expected = DDOQ_BAD_ROW;
    }
    args->indices = indices;
}

static void make_loss(struct call *call)
{
    struct ddoq_loss_args *args = &call->loss;
    bool many = below(4) == 0; /* enough for a second thread */
    call->run = run_loss;
    args->type = below(3);
    args->target_type = args->type == DDOQ_FLOAT64 ? DDOQ_FLOAT64 : below(2) ? DDOQ_FLOAT32 : DDOQ_BFLOAT16;
    args->target = below(4);
    args->n_rows = many ? 500 + below(100) : odd_size(100);
    args->n_classes = many ? 1000 : odd_size(2000);
    args->k = below(1 + (args->n_classes < 9 ? args->n_classes : 9));
    args->temperature = args->target == DDOQ_INDEX ? 1 : 0.5 + uniform();
    args->label_smoothing = args->target == DDOQ_INDEX && below(2) ? 0.1 : 0;
    args->logits = reals(call, args->type, args->n_rows * args->n_classes, -9, 9);
    make_targets(call, args);
    args->weight_type = below(2);
    void *weight = reals(call, args->weight_type, args->n_rows, 0, 2);
    if (below(20) == 0) {
        put(args->weight_type, weight, below(args->n_rows), below(2) ? -1 : NAN);
        call->expected = DDOQ_BAD_ROW;
    }
    args->weight = weight;
    output(call, args->n_rows * args->n_classes, item_of(args->type), NULL);
    output(call, 1, sizeof(double), NULL);
    snprintf(call->name, sizeof call->name, "weighted_loss %s target %d of %s rows %zu classes %zu k %zu",
             type_name(args->type), (int)args->target, type_name(args->target_type), args->n_rows, args->n_classes,
             args->k);
}

void (*const makers[])(struct call *call) = {make_gram, make_largest, make_assign, make_quantize, make_clvq, make_loss};
const size_t n_makers = sizeof makers / sizeof *makers;
