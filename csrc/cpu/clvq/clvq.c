/* Competitive learning vector quantisation (Bouton and Pages 1997), in blocks. Within a block of samples x_m, all less
 * a shift near their mean, every step needs only the products P[m][j] = <x_m, c_j>, G[m][l] = <x_m, x_l> and the
 * squares |c_j|^2; clvq_steps.c takes the steps. They are those of the sequential algorithm up to rounding; the
 * features are read once a block, by the product's tiles: the block packed, the points, of which few change in a block,
 * as they lie.
 *
 * The threads of the call go through one sequence of items, each the next that is left: for every block its
 * preparation, the products of groups of points, its steps. An item waits only for earlier ones, so that any number of
 * threads comes to the end; while one takes a block's steps another prepares the next block. */
#include <sched.h>
#include <string.h>

#include "cpu/clvq/clvq_steps.h"
#include "cpu/parallel.h"

#define BLOCK DDOQ_CLVQ_BLOCK
#define DEPTH 128        /* features of a panel: one of the widest, of 48 floats, fits in L1 */
#define GROUP_POINTS 24  /* of an item; a multiple of every tile's height */
#define LEAST_DRIFT2 4.0 /* of a block's mean from the shift, over spread: then the block's mean is the shift */
/* A second thread pays from so many products of a sample on, and of all samples. */
#define LEAST_PRODUCTS 65536.0
#define LEAST_ALL_PRODUCTS 1.6e7
#define YIELDS 200 /* before a thread that waits sleeps: some 50 microseconds, as long as the steps of a block */
#define NAP 20000  /* nanoseconds */

static bool allocate(struct ddoq_clvq_call *m)
{
    size_t k = m->args->k, d = m->args->d, item = m->kernels->item;
    const struct ddoq_array arrays[] = {
        {&m->shifts[0], d, 1, item},
        {&m->shifts[1], d, 1, item},
        {&m->blocks[0].packed, BLOCK, d, item},
        {&m->blocks[1].packed, BLOCK, d, item},
        {&m->blocks[0].grams, BLOCK, BLOCK, sizeof *m->blocks[0].grams},
        {&m->blocks[1].grams, BLOCK, BLOCK, sizeof *m->blocks[1].grams},
        {&m->gram, BLOCK, BLOCK, item},
        {&m->mean, d, 1, sizeof *m->mean},
        {&m->shifted, k, d, item},
        {&m->squares, k, 1, sizeof *m->squares},
        {&m->products, BLOCK, k, sizeof *m->products},
        {&m->sum, d, 1, sizeof *m->sum},
    };
    return ddoq_take_all(&m->memory, arrays, sizeof arrays / sizeof *arrays);
}

/* ---- items ---- */

/* Packs the block and multiplies it by itself, above the diagonal. */
static enum ddoq_status multiply_samples(struct ddoq_clvq_call *m, const struct ddoq_clvq_block *block,
                                         struct ddoq_crew *crew)
{
    const struct ddoq_kernels *kernels = m->kernels;
    size_t d = m->args->d, n = block->x.n, width = kernels->tile_cols, item = kernels->item;
    size_t padded = ddoq_padded(kernels, n);
    for (size_t first = 0; first < d; first += DEPTH) {
        size_t depth = ddoq_smaller(DEPTH, d - first);
        char *panels = block->packed + first * padded * item;
        if (ddoq_stopped(crew))
            return DDOQ_INTERRUPTED;
        ddoq_pack(&block->x, block->shift, first, depth, panels);
        for (size_t l = 0; l < padded; l += width)
            ddoq_multiply_panel(kernels, panels, l + width, panels + l * depth * item, width, depth, m->gram + l * item,
                                BLOCK, first > 0);
    }
    for (size_t i = 0; i < n; i++)
        kernels->vector.widen(n - i, m->gram + (i * BLOCK + i) * item, 1, block->grams + i * BLOCK + i);
    return DDOQ_OK;
}

/* Makes the shift, the panels and the products of the block. */
static enum ddoq_status prepare(struct ddoq_clvq_call *m, size_t b, struct ddoq_crew *crew)
{
    const struct ddoq_kernels *kernels = m->kernels;
    struct ddoq_clvq_block *block = &m->blocks[b % 2];
    const char *before = b > 0 ? m->blocks[1 - b % 2].shift : NULL;
    size_t d = m->args->d;
    block->x = (struct ddoq_rows){.kernels = kernels,
                                  .data = (const char *)m->args->X + b * BLOCK * d * kernels->item,
                                  .n = ddoq_smaller(BLOCK, m->args->n - b * BLOCK),
                                  .d = d};
    char *shift = m->shifts[before == m->shifts[0]];
    memset(m->mean, 0, d * sizeof *m->mean);
    for (size_t i = 0; i < block->x.n; i++)
        kernels->vector.axpy(d, 1, ddoq_row(&block->x, i), m->mean);
    kernels->vector.narrow(d, m->mean, (double)block->x.n, shift);
    block->is_shifted = !before || kernels->vector.dist2(d, shift, before) > LEAST_DRIFT2 * m->spread;
    block->shift = block->is_shifted ? shift : before;
    enum ddoq_status status = multiply_samples(m, block, crew);
    if (status != DDOQ_OK || !block->is_shifted)
        return status;
    m->spread = 0;
    for (size_t i = 0; i < block->x.n; i++)
        m->spread += block->grams[i * BLOCK + i] / (double)block->x.n;
    return DDOQ_OK;
}

/* Multiplies the block with a group of points, the j-th and those after it. */
static enum ddoq_status multiply_points(struct ddoq_clvq_call *m, const struct ddoq_clvq_block *block, size_t j,
                                        struct ddoq_crew *crew)
{
    const struct ddoq_kernels *kernels = m->kernels;
    size_t k = m->args->k, d = m->args->d, width = kernels->tile_cols, height = kernels->tile_rows;
    size_t item = kernels->item, n = ddoq_smaller(GROUP_POINTS, k - j), padded = ddoq_padded(kernels, block->x.n);
    char product[GROUP_POINTS * BLOCK * sizeof(double)] __attribute__((aligned(DDOQ_CACHE_LINE)));
    for (size_t r = 0; r < n && block->is_shifted; r++)
        ddoq_clvq_shift_point(m, block->shift, j + r);
    for (size_t first = 0; first < d; first += DEPTH) {
        size_t depth = ddoq_smaller(DEPTH, d - first);
        const char *points = m->shifted + (j * d + first) * item, *panels = block->packed + first * padded * item;
        if (ddoq_stopped(crew))
            return DDOQ_INTERRUPTED;
        for (size_t i = 0; i < padded; i += width)
            for (size_t r = 0; r < n; r += height)
                kernels->product.tile_in_place(depth, points + r * d * item, d, panels + i * depth * item,
                                               product + (r * BLOCK + i) * item, BLOCK, ddoq_smaller(height, n - r),
                                               first > 0);
    }
    for (size_t i = 0; i < block->x.n; i++)
        kernels->vector.widen(n, product + i * item, BLOCK, m->products + i * k + j);
    return DDOQ_OK;
}

/* ---- their order ---- */

/* Returns whether counter has come to value before the crew was stopped. */
static bool await(atomic_size_t *counter, size_t value, struct ddoq_crew *crew)
{
    for (size_t yields = 0; atomic_load(counter) < value; yields++) {
        if (ddoq_stopped(crew))
            return false;
        if (yields < YIELDS)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = NAP}, NULL);
    }
    return true;
}

static enum ddoq_status run_item(struct ddoq_clvq_call *m, size_t item, struct ddoq_crew *crew)
{
    size_t b = item / (m->n_groups + 2), part = item % (m->n_groups + 2);
    struct ddoq_clvq_block *block = &m->blocks[b % 2];
    enum ddoq_status status = DDOQ_OK;
    if (part == 0) { /* its place was that of the block before the last, and it reads the last one's shift */
        if (!await(&m->finished, b > 0 ? 2 * b - 1 : 0, crew))
            return DDOQ_INTERRUPTED;
        status = prepare(m, b, crew);
    } else if (part <= m->n_groups) {
        if (!await(&m->finished, 2 * b + 1, crew))
            return DDOQ_INTERRUPTED;
        status = multiply_points(m, block, (part - 1) * GROUP_POINTS, crew);
        atomic_fetch_add(&m->multiplied, status == DDOQ_OK);
        return status;
    } else {
        if (!await(&m->multiplied, (b + 1) * m->n_groups, crew))
            return DDOQ_INTERRUPTED;
        ddoq_clvq_take_steps(m, block, m->args->winners + b * BLOCK);
    }
    atomic_fetch_add(&m->finished, status == DDOQ_OK);
    return status;
}

static enum ddoq_status clvq_task(void *context, size_t task, struct ddoq_crew *crew)
{
    (void)task;
    struct ddoq_clvq_call *m = context;
    enum ddoq_status status = DDOQ_OK;
    while (status == DDOQ_OK) {
        size_t item = atomic_fetch_add(&m->next, 1);
        if (item >= m->n_blocks * (m->n_groups + 2))
            break;
        status = ddoq_stopped(crew) ? DDOQ_INTERRUPTED : run_item(m, item, crew);
    }
    return status;
}

enum ddoq_status ddoq_clvq(const struct ddoq_run *run, const struct ddoq_clvq_args *args)
{
    struct ddoq_clvq_call m = {.args = args, .kernels = &run->isa->real[args->type]};
    double products = (double)args->k * (double)args->d;
    bool pays = products >= LEAST_PRODUCTS && products * (double)args->n >= LEAST_ALL_PRODUCTS;
    size_t failed;
    m.n_blocks = (args->n + BLOCK - 1) / BLOCK;
    m.n_groups = (args->k + GROUP_POINTS - 1) / GROUP_POINTS;
    for (size_t j = 0; j < args->k; j++)
        m.steps += args->wins[j];
    enum ddoq_status status = DDOQ_NO_MEMORY;
    if (allocate(&m))
        status = ddoq_run_tasks(pays && run->n_threads > 1 ? run->n_threads : 1, run, clvq_task, &m, &failed);
    ddoq_release(&m.memory);
    return status;
}
