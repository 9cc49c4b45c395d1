/* The weighted loss and its gradient, a row at a time while it is in the cache: largest logit, exponentials (written
 * where the gradient will be), loss, gradient. Rows are summed in their order at the end, so that bits do not depend on
 * the threads. The value checks are part of the pass: a row that breaks a rule ends the call with DDOQ_BAD_ROW. */
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "cpu/kernels/table.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/team.h"

#define TASK_ENTRIES ((size_t)1 << 15) /* of the rows that a thread takes at a time: tens of microseconds of work */
/* Up to this many entries a second thread costs more than it saves: one of torch's, and one made for the call. */
#define ALONE_ENTRIES ((size_t)1 << 16)
#define ALONE_WITHOUT_TEAM ((size_t)1 << 19)

struct pass {
    const struct ddoq_loss_args *args;
    const struct ddoq_loss_kernels *kernels;
    const struct ddoq_half_kernels *halves;
    size_t task_rows;
    double *row_loss;    /* (n_rows) */
    atomic_size_t begin; /* the first row that no thread has taken yet */
    atomic_bool is_bad;  /* a row breaks a rule */
};

/* These are the scratch rows of one task, in the type that is computed in. */
struct scratch {
    void *student, *exponentials, *target, *teacher;
};

/* Returns row i of a matrix of n columns in the computing type: where it lies, or widened into scratch. */
static const void *read_row(const struct pass *p, enum ddoq_type type, const void *matrix, size_t i, size_t n,
                            void *scratch)
{
    if (type != DDOQ_BFLOAT16)
        return (const char *)matrix + i * n * p->kernels->item;
    p->halves->from_bfloat16(n, (const uint16_t *)matrix + i * n, scratch);
    return scratch;
}

static double get(const struct pass *p, const void *row, size_t j)
{
    return p->args->type == DDOQ_FLOAT64 ? ((const double *)row)[j] : (double)((const float *)row)[j];
}

static void set(const struct pass *p, void *row, size_t j, double value)
{
    if (p->args->type == DDOQ_FLOAT64)
        ((double *)row)[j] = value;
    else
        ((float *)row)[j] = (float)value;
}

/* Writes the loss of row i without its weight, and its gradient times factor to out. The exponentials e are written to
 * out itself, or to scratch where out has halves. */
static int index_row(const struct pass *p, size_t i, const void *s, double factor, void *e, void *out, double *loss)
{
    const struct ddoq_loss_args *a = p->args;
    const struct ddoq_loss_kernels *kernels = p->kernels;
    size_t n = a->n_classes;
    int64_t y = a->indices[i];
    if (y < 0 || (uint64_t)y >= n)
        return -1;
    double eps = a->label_smoothing, most = kernels->largest(n, s);
    double sum = kernels->exponentials(n, s, most, 1, e), log_sum = log(sum);
    double log_y = get(p, s, (size_t)y) - most - log_sum, p_y = get(p, e, (size_t)y) / sum;
    *loss = -log_y;
    if (eps > 0)
        *loss = (1 - eps) * -log_y + eps * (log_sum - kernels->total(n, s, most) / (double)n);
    double scale = factor / sum, add = -factor * eps / (double)n, by_y = factor * (p_y - (1 - eps) - eps / (double)n);
    if (e == out) {
        kernels->scale_add(n, scale, add, e);
        set(p, e, (size_t)y, by_y);
    } else {
        float only = (float)by_y;
        p->halves->scale_add(n, scale, add, e, out);
        p->halves->scale_add(1, 1, 0, &only, (uint16_t *)out + y);
    }
    return 0;
}

/* out = scale (e - ratio t), with e and out as above. */
static void subtract(const struct pass *p, double scale, double ratio, const void *t, void *e, void *out)
{
    size_t n = p->args->n_classes;
    if (e == out)
        p->kernels->difference(n, scale, ratio, t, e);
    else
        p->halves->difference(n, scale, ratio, t, e, out);
}

static int soft_row(const struct pass *p, size_t i, const void *s, double factor, const struct scratch *scratch,
                    void *e, void *out, double *loss)
{
    const struct ddoq_loss_args *a = p->args;
    const struct ddoq_loss_kernels *kernels = p->kernels;
    size_t n = a->n_classes;
    double scale = 1 / a->temperature, most = kernels->largest(n, s);
    double sum = kernels->exponentials(n, s, most, scale, e);
    const void *t = scratch->target;
    if (a->target == DDOQ_TOPK) {
        const void *values = read_row(p, a->target_type, a->soft, i, a->k, scratch->teacher);
        if (kernels->spread(n, a->k, values, a->indices + i * a->k, DDOQ_SUM_TOLERANCE, scratch->target))
            return -1;
    } else {
        t = read_row(p, a->target_type, a->soft, i, n, scratch->target);
    }
    if (a->target == DDOQ_LOGITS) {
        double t_most = kernels->largest(n, t);
        struct ddoq_cross teacher = kernels->cross_logits(n, s, most, t, t_most, scale, scratch->teacher);
        *loss = teacher.cross / teacher.sum - log(teacher.sum) + log(sum);
        subtract(p, factor * scale / sum, sum / teacher.sum, scratch->teacher, e, out);
        return 0;
    }
    struct ddoq_cross probs = kernels->cross_probs(n, s, most, scale, t);
    if (probs.is_negative || !(fabs(probs.sum - 1) <= DDOQ_SUM_TOLERANCE))
        return -1;
    *loss = probs.cross + probs.sum * log(sum);
    subtract(p, factor * scale * probs.sum / sum, sum / probs.sum, t, e, out);
    return 0;
}

static int one_row(const struct pass *p, size_t i, const struct scratch *scratch)
{
    const struct ddoq_loss_args *a = p->args;
    double weight = a->weight_type == DDOQ_FLOAT64 ? ((const double *)a->weight)[i] : ((const float *)a->weight)[i];
    double factor = weight / (double)a->n_rows, loss = 0;
    if (!(weight >= 0) || isinf(weight))
        return -1;
    const void *s = read_row(p, a->type, a->logits, i, a->n_classes, scratch->student);
    bool is_half = a->type == DDOQ_BFLOAT16;
    void *out = (char *)a->gradient + i * a->n_classes * (is_half ? sizeof(uint16_t) : p->kernels->item);
    void *e = is_half ? scratch->exponentials : out;
    int bad = a->target == DDOQ_INDEX ? index_row(p, i, s, factor, e, out, &loss)
                                      : soft_row(p, i, s, factor, scratch, e, out, &loss);
    p->row_loss[i] = weight * loss;
    return bad;
}

/* Takes rows until there are none left, or one breaks a rule. A thread without memory leaves its share to the others.
 */
static void work(void *context)
{
    struct pass *p = context;
    size_t n = p->args->n_classes, n_rows = p->args->n_rows, item = p->kernels->item, begin;
    struct ddoq_memory memory = {0};
    const struct scratch scratch = {
        .student = ddoq_take(&memory, n, 1, item),
        .exponentials = ddoq_take(&memory, n, 1, item),
        .target = ddoq_take(&memory, n, 1, item),
        .teacher = ddoq_take(&memory, n, 1, item),
    };
    while (!memory.is_short && !atomic_load(&p->is_bad) &&
           (begin = atomic_fetch_add(&p->begin, p->task_rows)) < n_rows) {
        size_t end = begin + (n_rows - begin < p->task_rows ? n_rows - begin : p->task_rows);
        for (size_t i = begin; i < end; i++)
            if (one_row(p, i, &scratch))
                atomic_store(&p->is_bad, true);
    }
    ddoq_release(&memory);
}

static enum ddoq_status work_task(void *context, size_t task, struct ddoq_crew *crew)
{
    (void)task, (void)crew;
    work(context);
    return DDOQ_OK;
}

enum ddoq_status ddoq_weighted_loss(const struct ddoq_run *run, const struct ddoq_loss_args *args)
{
    size_t failed, n = args->n_rows;
    double *row_loss = ddoq_allocate(n, 1, sizeof *row_loss);
    if (!row_loss)
        return DDOQ_NO_MEMORY;
    struct pass pass = {
        .args = args,
        .kernels = &run->isa->loss[args->type == DDOQ_FLOAT64],
        .halves = &run->isa->half,
        .task_rows = args->n_classes < TASK_ENTRIES ? TASK_ENTRIES / args->n_classes : 1,
        .row_loss = row_loss,
    };
    size_t n_threads = run->n_threads < DDOQ_MAX_THREADS ? run->n_threads : DDOQ_MAX_THREADS;
    enum ddoq_status status = DDOQ_OK;
    if (n_threads <= 1 || n <= ALONE_ENTRIES / args->n_classes)
        work(&pass);
    else if (!ddoq_run_on_team(work, &pass, n_threads))
        status =
            ddoq_run_tasks(n <= ALONE_WITHOUT_TEAM / args->n_classes ? 1 : n_threads, run, work_task, &pass, &failed);
    if (status == DDOQ_OK && atomic_load(&pass.is_bad))
        status = DDOQ_BAD_ROW;
    else if (status == DDOQ_OK && atomic_load(&pass.begin) < n)
        status = DDOQ_NO_MEMORY;
    double sum = 0;
    for (size_t i = 0; i < n && status == DDOQ_OK; i++)
        sum += row_loss[i];
    *args->loss = sum / (double)n;
    free(row_loss);
    return status;
}
