/* Competitive learning vector quantisation (Bouton and Pages 1997), in blocks. Within a block of samples x_m, shifted
 * by their mean, every step needs only the products P[m][j] = <x_m, c_j>, G[m][l] = <x_m, x_l> and the squares |c_j|^2.
 * With the step g, h = 1 - g and the winner j of sample m:
 *
 *     |c_j|^2 <- h^2 |c_j|^2 + 2 g h P[m][j] + g^2 G[m][m]        P[l][j] <- h P[l][j] + g G[m][l] for l > m
 *
 * The points follow at the block's end as combinations of their old selves and of the block's samples, and so do the
 * sums of the points over the steps. The steps are those of the sequential algorithm up to rounding; the features are
 * read once a block, by the product's tiles, which several threads share where there are enough of them. */
#include <math.h>
#include <string.h>

#include "cpu/gram.h"
#include "cpu/memory.h"

#define BLOCK 64
/* Threads are made for every block: with less to multiply it would take longer to make them. */
#define LEAST_PRODUCT_PER_SAMPLE ((size_t)1 << 18)

struct clvq {
    const struct ddoq_clvq_args *args;
    const struct ddoq_kernels *kernels;
    size_t n_threads;
    struct ddoq_crew *crew;
    struct ddoq_memory memory;
    struct ddoq_rows x;       /* the block */
    char *shift;              /* (d) real: the block's mean */
    char *packed;             /* the block in panels, DDOQ_DEPTH features after the other */
    char *gram;               /* (BLOCK, BLOCK) real */
    double *products, *grams; /* (BLOCK, k), (BLOCK, BLOCK) */
    double *squares, *sum;    /* (k), (d) */
    double step[BLOCK];       /* g of each sample */
};

static bool allocate(struct clvq *m)
{
    size_t k = m->args->k, d = m->args->d, item = m->kernels->item;
    struct ddoq_memory *memory = &m->memory;
    m->shift = ddoq_take(memory, d, 1, item);
    m->packed = ddoq_take(memory, ddoq_padded(m->kernels, BLOCK), d, item);
    m->gram = ddoq_take(memory, BLOCK, BLOCK, item);
    m->products = ddoq_take(memory, BLOCK, k, sizeof(double));
    m->grams = ddoq_take(memory, BLOCK, BLOCK, sizeof(double));
    m->squares = ddoq_take(memory, k, 1, sizeof(double));
    m->sum = ddoq_take(memory, d, 1, sizeof(double));
    return !memory->is_short;
}

static char *point(const struct clvq *m, size_t j)
{
    return (char *)m->args->points + j * m->args->d * m->kernels->item;
}

/* Products of the block with one panel of points, the j-th and those after it, and the points' squares. */
static enum ddoq_status multiply_points(const struct clvq *m, size_t j)
{
    const struct ddoq_kernels *kernels = m->kernels;
    size_t k = m->args->k, d = m->args->d, width = kernels->tile_cols, item = kernels->item;
    size_t stride = ddoq_padded(kernels, BLOCK);
    const struct ddoq_rows points = {.kernels = kernels, .data = point(m, j), .n = ddoq_smaller(width, k - j), .d = d};
    char *panel = ddoq_allocate(width, DDOQ_DEPTH + BLOCK, item);
    if (!panel)
        return DDOQ_NO_MEMORY;
    char *product = panel + width * DDOQ_DEPTH * item; /* (BLOCK, width) */
    for (size_t first = 0; first < d; first += DDOQ_DEPTH) {
        size_t depth = ddoq_smaller(DDOQ_DEPTH, d - first);
        ddoq_pack(&points, m->shift, first, depth, panel);
        ddoq_multiply_panel(kernels, m->packed + first * stride * item, m->x.n, panel, points.n, depth, product, width,
                            first > 0);
    }
    for (size_t i = 0; i < m->x.n; i++)
        kernels->widen(points.n, product + i * width * item, 1, m->products + i * k + j);
    for (size_t p = 0; p < points.n; p++)
        m->squares[j + p] = kernels->dist2(d, point(m, j + p), m->shift);
    free(panel);
    return DDOQ_OK;
}

/* The first task is the block's own products, the others are the panels of points. */
static enum ddoq_status multiply(void *context, size_t task, struct ddoq_crew *crew)
{
    struct clvq *m = context;
    if (ddoq_stopped(crew))
        return DDOQ_INTERRUPTED;
    if (task > 0)
        return multiply_points(m, (task - 1) * m->kernels->tile_cols);
    enum ddoq_status status = ddoq_gram_rows(&m->x, m->shift, m->gram, crew);
    if (status == DDOQ_OK)
        m->kernels->widen(m->x.n * m->x.n, m->gram, 1, m->grams);
    return status;
}

static int is_stopped(void *crew, size_t done)
{
    (void)done;
    return ddoq_stopped(crew);
}

/* Everything the block's steps read. */
static enum ddoq_status prepare(struct clvq *m)
{
    const struct ddoq_kernels *kernels = m->kernels;
    size_t k = m->args->k, d = m->args->d, n = m->x.n, stride = ddoq_padded(kernels, BLOCK);
    memset(m->sum, 0, d * sizeof *m->sum);
    for (size_t i = 0; i < n; i++)
        kernels->axpy(d, 1, ddoq_row(&m->x, i), m->sum);
    kernels->narrow(d, m->sum, (double)n, m->shift);
    for (size_t first = 0; first < d; first += DDOQ_DEPTH)
        ddoq_pack(&m->x, m->shift, first, ddoq_smaller(DDOQ_DEPTH, d - first),
                  m->packed + first * stride * kernels->item);
    size_t n_tasks = 1 + ddoq_padded(kernels, k) / kernels->tile_cols;
    if (m->n_threads > 1 && k >= LEAST_PRODUCT_PER_SAMPLE / d) {
        const struct ddoq_run run = {.n_threads = m->n_threads, .poll = {.call = is_stopped, .context = m->crew}};
        size_t failed;
        return ddoq_run_tasks(n_tasks, &run, multiply, m, &failed);
    }
    enum ddoq_status status = DDOQ_OK;
    for (size_t task = 0; task < n_tasks && status == DDOQ_OK; task++)
        status = multiply(m, task, m->crew);
    return status;
}

/* The steps of the block: winners and step sizes. steps: how many were taken before. */
static void run_steps(struct clvq *m, int64_t *winners, double steps)
{
    const struct ddoq_clvq_args *args = m->args;
    const struct ddoq_kernels *doubles = &args->isa->real[DDOQ_FLOAT64];
    size_t n = m->x.n, k = args->k;
    for (size_t i = 0; i < n; i++) {
        double two[2], *products = m->products + i * k;
        const double *gram = m->grams + i * n;
        size_t j = doubles->two_least(k, products, m->squares, two);
        double clock = args->weights ? steps + (double)i : (double)args->wins[j];
        double g = pow(1 + clock / args->b, -args->power), h = 1 - g;
        m->squares[j] = h * h * m->squares[j] + 2 * g * h * products[j] + g * g * gram[i];
        for (size_t l = i + 1; l < n; l++)
            m->products[l * k + j] = h * m->products[l * k + j] + g * gram[l];
        args->wins[j]++;
        winners[i] = (int64_t)j;
        m->step[i] = g;
    }
}

static void update_weights(const struct clvq *m, const int64_t *winners)
{
    double kept = 1, tail = 0, *weights = m->args->weights, *sums = m->args->weight_sums, gained[BLOCK], summed[BLOCK];
    for (size_t i = m->x.n; i-- > 0;) { /* tail: what the weight after step i adds to the sum, by itself */
        tail = 1 + (i + 1 < m->x.n ? (1 - m->step[i + 1]) * tail : 0);
        gained[i] = kept * m->step[i];
        summed[i] = tail * m->step[i];
        kept *= 1 - m->step[i];
    }
    if (sums) {
        for (size_t j = 0; j < m->args->k; j++)
            sums[j] += (1 - m->step[0]) * tail * weights[j];
        for (size_t i = 0; i < m->x.n; i++)
            sums[winners[i]] += summed[i];
    }
    for (size_t j = 0; j < m->args->k; j++)
        weights[j] *= kept;
    for (size_t i = 0; i < m->x.n; i++)
        weights[winners[i]] += gained[i];
}

/* The winner of sample first, which has won none before it in the block. steps: how many were taken before the block.
 * A point stays what its step made it until it wins again: by its own clock for one step, by the global one for as
 * many as there are samples in between. */
static void update_point(struct clvq *m, const int64_t *winners, size_t first, int64_t steps)
{
    const struct ddoq_clvq_args *args = m->args;
    size_t n = m->x.n, d = args->d, j = (size_t)winners[first], next = n, wins[BLOCK], n_wins = 0;
    double kept = 1, tail = 0, moved[BLOCK], summed[BLOCK];
    for (size_t i = n; i-- > first;) {
        if ((size_t)winners[i] != j)
            continue;
        tail = (args->weights ? (double)(next - i) : 1) + (next < n ? (1 - m->step[next]) * tail : 0);
        moved[n_wins] = kept * m->step[i];
        summed[n_wins] = tail * m->step[i];
        kept *= 1 - m->step[i];
        wins[n_wins++] = next = i;
    }
    if (args->sums) {
        double *sums = args->sums + j * d;
        double before = args->weights ? (double)(steps + (int64_t)first - args->summed[j]) : 0;
        m->kernels->axpy(d, before + (1 - m->step[first]) * tail, point(m, j), sums);
        for (size_t i = n_wins; i-- > 0;)
            m->kernels->axpy(d, summed[i], ddoq_row(&m->x, wins[i]), sums);
        args->summed[j] = args->weights ? steps + (int64_t)n : args->wins[j];
    }
    memset(m->sum, 0, d * sizeof *m->sum);
    m->kernels->axpy(d, kept, point(m, j), m->sum);
    for (size_t i = n_wins; i-- > 0;)
        m->kernels->axpy(d, moved[i], ddoq_row(&m->x, wins[i]), m->sum);
    m->kernels->narrow(d, m->sum, 1, point(m, j));
}

static void update_points(struct clvq *m, const int64_t *winners, int64_t steps)
{
    for (size_t i = 0; i < m->x.n; i++) {
        bool done = false;
        for (size_t l = 0; l < i; l++)
            done |= winners[l] == winners[i];
        if (!done)
            update_point(m, winners, i, steps);
    }
}

struct clvq_call {
    const struct ddoq_clvq_args *args;
    size_t n_threads;
};

static enum ddoq_status clvq_task(void *context, size_t task, struct ddoq_crew *crew)
{
    (void)task;
    const struct clvq_call *call = context;
    const struct ddoq_clvq_args *args = call->args;
    const struct ddoq_kernels *kernels = &args->isa->real[args->type];
    struct clvq m = {.args = args, .kernels = kernels, .n_threads = call->n_threads, .crew = crew};
    enum ddoq_status status = allocate(&m) ? DDOQ_OK : DDOQ_NO_MEMORY;
    int64_t steps = 0;
    for (size_t j = 0; j < args->k; j++)
        steps += args->wins[j];
    for (size_t first = 0; first < args->n && status == DDOQ_OK; first += BLOCK) {
        int64_t *winners = args->winners + first;
        m.x = (struct ddoq_rows){.kernels = kernels,
                                 .data = (const char *)args->X + first * args->d * kernels->item,
                                 .n = ddoq_smaller(BLOCK, args->n - first),
                                 .d = args->d};
        status = prepare(&m);
        if (status != DDOQ_OK)
            break;
        run_steps(&m, winners, (double)steps);
        if (args->weights)
            update_weights(&m, winners);
        update_points(&m, winners, steps);
        steps += (int64_t)m.x.n;
    }
    ddoq_release(&m.memory);
    return status;
}

enum ddoq_status ddoq_clvq(const struct ddoq_run *run, const struct ddoq_clvq_args *args)
{
    struct ddoq_clvq_args job = *args;
    job.isa = run->isa;
    struct clvq_call call = {.args = &job, .n_threads = run->n_threads};
    size_t failed;
    return ddoq_run_tasks(1, run, clvq_task, &call, &failed);
}
