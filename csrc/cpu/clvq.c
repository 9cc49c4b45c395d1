/* Competitive learning vector quantisation (Bouton and Pages 1997), in blocks. Within a block of samples x_m, shifted
 * by their mean, every step needs only the products P[m][j] = <x_m, c_j>, G[m][l] = <x_m, x_l> and the squares |c_j|^2.
 * With the step g, h = 1 - g and the winner j of sample m:
 *
 *     |c_j|^2 <- h^2 |c_j|^2 + 2 g h P[m][j] + g^2 G[m][m]        P[l][j] <- h P[l][j] + g G[m][l] for l > m
 *
 * The points follow at the block's end as combinations of their old selves and of the block's samples. The steps are
 * those of the sequential algorithm up to rounding; the features are read once a block, by the product's tiles. */
#include <math.h>
#include <string.h>

#include "cpu/gram.h"
#include "cpu/memory.h"

#define BLOCK 64

struct clvq {
    const struct ddoq_clvq_args *args;
    const struct ddoq_kernels *kernels;
    struct ddoq_crew *crew;
    struct ddoq_memory memory;
    struct ddoq_rows x;                     /* the block */
    char *shift, *product, *gram;           /* (d), (BLOCK, k), (BLOCK, BLOCK) real */
    char *block, *panel;                    /* packed, DDOQ_DEPTH features: the block; tile_cols points */
    double *products, *grams;               /* (BLOCK, k), (BLOCK, BLOCK) */
    double *squares, *scale, *kept, *sum;   /* (k), (k), (k), (d) */
    double step[BLOCK], coefficient[BLOCK]; /* g of each sample; its share of its winner after the block */
};

static bool allocate(struct clvq *m)
{
    size_t k = m->args->k, d = m->args->d, item = m->kernels->item;
    struct ddoq_memory *memory = &m->memory;
    m->shift = ddoq_take(memory, d, 1, item);
    m->product = ddoq_take(memory, BLOCK, k, item);
    m->gram = ddoq_take(memory, BLOCK, BLOCK, item);
    m->block = ddoq_take(memory, ddoq_padded(m->kernels, BLOCK), DDOQ_DEPTH, item);
    m->panel = ddoq_take(memory, m->kernels->tile_cols, DDOQ_DEPTH, item);
    m->products = ddoq_take(memory, BLOCK, k, sizeof(double));
    m->grams = ddoq_take(memory, BLOCK, BLOCK, sizeof(double));
    m->squares = ddoq_take(memory, k, 1, sizeof(double));
    m->scale = ddoq_take(memory, k, 1, sizeof(double));
    m->kept = ddoq_take(memory, k, 1, sizeof(double));
    m->sum = ddoq_take(memory, d, 1, sizeof(double));
    return !memory->is_short;
}

static char *point(const struct clvq *m, size_t j)
{
    return (char *)m->args->points + j * m->args->d * m->kernels->item;
}

/* P = X_b C^T of the shifted block and points. */
static enum ddoq_status multiply(struct clvq *m)
{
    const struct ddoq_kernels *kernels = m->kernels;
    size_t k = m->args->k, d = m->args->d, width = kernels->tile_cols;
    for (size_t first = 0; first < d; first += DDOQ_DEPTH) {
        size_t depth = ddoq_smaller(DDOQ_DEPTH, d - first);
        ddoq_pack(&m->x, m->shift, first, depth, m->block);
        for (size_t j = 0; j < k; j += width) {
            if (ddoq_stopped(m->crew))
                return DDOQ_INTERRUPTED;
            struct ddoq_rows points = {
                .kernels = kernels, .data = point(m, j), .n = ddoq_smaller(width, k - j), .d = d};
            ddoq_pack(&points, m->shift, first, depth, m->panel);
            ddoq_multiply_panel(kernels, m->block, m->x.n, m->panel, points.n, depth, m->product + j * kernels->item, k,
                                first > 0);
        }
    }
    return DDOQ_OK;
}

/* Everything the block's steps read. */
static enum ddoq_status prepare(struct clvq *m)
{
    const struct ddoq_kernels *kernels = m->kernels;
    size_t k = m->args->k, d = m->args->d, n = m->x.n;
    memset(m->sum, 0, d * sizeof *m->sum);
    for (size_t i = 0; i < n; i++)
        kernels->axpy(d, 1, ddoq_row(&m->x, i), m->sum);
    kernels->narrow(d, m->sum, (double)n, m->shift);
    enum ddoq_status status = multiply(m);
    if (status == DDOQ_OK)
        status = ddoq_gram_rows(&m->x, m->shift, m->gram, m->crew);
    if (status != DDOQ_OK)
        return status;
    kernels->widen(n * k, m->product, 1, m->products);
    kernels->widen(n * n, m->gram, 1, m->grams);
    for (size_t j = 0; j < k; j++) {
        m->squares[j] = kernels->dist2(d, point(m, j), m->shift);
        m->scale[j] = -2;
    }
    return DDOQ_OK;
}

/* The steps of the block: winners and step sizes. steps: how many were taken before. */
static void run_steps(struct clvq *m, int64_t *winners, double steps)
{
    const struct ddoq_clvq_args *args = m->args;
    size_t n = m->x.n, k = args->k;
    for (size_t i = 0; i < n; i++) {
        double value, *products = m->products + i * k;
        const double *gram = m->grams + i * n;
        m->kernels->nearest(1, k, products, m->scale, m->squares, &winners[i], &value);
        size_t j = (size_t)winners[i];
        double clock = args->weights ? steps + (double)i : (double)args->wins[j];
        double g = pow(1 + clock / args->b, -args->power), h = 1 - g;
        m->squares[j] = h * h * m->squares[j] + 2 * g * h * products[j] + g * g * gram[i];
        for (size_t l = i + 1; l < n; l++)
            m->products[l * k + j] = h * m->products[l * k + j] + g * gram[l];
        args->wins[j]++;
        m->step[i] = g;
    }
}

static void update_weights(const struct clvq *m, const int64_t *winners)
{
    double kept = 1, *weights = m->args->weights, gained[BLOCK];
    for (size_t i = m->x.n; i-- > 0;) {
        gained[i] = kept * m->step[i];
        kept *= 1 - m->step[i];
    }
    for (size_t j = 0; j < m->args->k; j++)
        weights[j] *= kept;
    for (size_t i = 0; i < m->x.n; i++)
        weights[winners[i]] += gained[i];
}

static void update_points(struct clvq *m, const int64_t *winners)
{
    size_t n = m->x.n, d = m->args->d;
    for (size_t i = 0; i < n; i++)
        m->kept[winners[i]] = 1;
    for (size_t i = n; i-- > 0;) {
        m->coefficient[i] = m->kept[winners[i]] * m->step[i];
        m->kept[winners[i]] *= 1 - m->step[i];
    }
    for (size_t first = 0; first < n; first++) {
        bool done = false;
        for (size_t i = 0; i < first; i++)
            done |= winners[i] == winners[first];
        if (done)
            continue;
        char *out = point(m, (size_t)winners[first]);
        memset(m->sum, 0, d * sizeof *m->sum);
        m->kernels->axpy(d, m->kept[winners[first]], out, m->sum);
        for (size_t i = first; i < n; i++)
            if (winners[i] == winners[first])
                m->kernels->axpy(d, m->coefficient[i], ddoq_row(&m->x, i), m->sum);
        m->kernels->narrow(d, m->sum, 1, out);
    }
}

static enum ddoq_status clvq_task(void *context, size_t task, struct ddoq_crew *crew)
{
    (void)task;
    const struct ddoq_clvq_args *args = context;
    const struct ddoq_kernels *kernels = &args->isa->real[args->type];
    struct clvq m = {.args = args, .kernels = kernels, .crew = crew};
    enum ddoq_status status = allocate(&m) ? DDOQ_OK : DDOQ_NO_MEMORY;
    double steps = 0;
    for (size_t j = 0; j < args->k; j++)
        steps += (double)args->wins[j];
    for (size_t first = 0; first < args->n && status == DDOQ_OK; first += BLOCK) {
        int64_t *winners = args->winners + first;
        m.x = (struct ddoq_rows){.kernels = kernels,
                                 .data = (const char *)args->X + first * args->d * kernels->item,
                                 .n = ddoq_smaller(BLOCK, args->n - first),
                                 .d = args->d};
        status = prepare(&m);
        if (status != DDOQ_OK)
            break;
        run_steps(&m, winners, steps + (double)first);
        if (args->weights)
            update_weights(&m, winners);
        update_points(&m, winners);
    }
    ddoq_release(&m.memory);
    return status;
}

enum ddoq_status ddoq_clvq(const struct ddoq_run *run, const struct ddoq_clvq_args *args)
{
    struct ddoq_clvq_args call = *args;
    call.isa = run->isa;
    size_t failed;
    return ddoq_run_tasks(1, run, clvq_task, &call, &failed);
}
