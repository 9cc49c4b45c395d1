/* The symmetric product, blocked as BLIS blocks a product: for every DDOQ_DEPTH features the rows are packed into
 * panels of the tile's width; then tiles of C that touch the lower triangle accumulate, the rows of a tile (a part of a
 * panel, in L1) against a few panels (in L2) at a time. The upper triangle is the mirror of the lower.
 *
 * Every element is a sequential chain of multiply-adds per DDOQ_DEPTH features, chains added in order: duplicate rows
 * of X give bit-identical rows of G. Error: about sqrt(d) roundings of the element type, relative to |x_i| |x_j|. */
#include <stdlib.h>

#include "cpu/gram.h"
#include "cpu/memory.h"

#define PANELS 4 /* in one block: with AVX-512 192 rows of 256 floats are 192 KB, a part of L2 */
#define MIRROR_ROWS 64

struct product {
    const struct ddoq_rows *x;
    const char *shift;
    char *gram;
    char *packed; /* panels of tile_cols rows, all rows of X, one block of features */
    struct ddoq_crew *crew;
};

/* Columns begin..end of the lower triangle: G = (first block of features) or += the product of the packed panels. */
static enum ddoq_status multiply_columns(const struct product *m, size_t begin, size_t end, size_t depth, int add)
{
    const struct ddoq_kernels *kernels = m->x->kernels;
    size_t n = m->x->n, item = kernels->item, height = kernels->tile_rows, width = kernels->tile_cols;
    for (size_t i = begin; i < n; i += height) { /* rows above are above the diagonal */
        if (ddoq_stopped(m->crew))
            return DDOQ_INTERRUPTED;
        size_t rows = ddoq_smaller(height, n - i), last = ddoq_smaller(end, i + rows);
        const char *a = ddoq_tile_rows(kernels, m->packed, i, depth);
        for (size_t j = begin; j < last; j += width)
            kernels->tile(depth, a, m->packed + j * depth * item, m->gram + (i * n + j) * item, n, rows,
                          ddoq_smaller(width, n - j), add);
    }
    return DDOQ_OK;
}

static enum ddoq_status multiply(const struct product *m)
{
    size_t n = m->x->n, d = m->x->d, block = PANELS * m->x->kernels->tile_cols;
    for (size_t first = 0; first == 0 || first < d; first += DDOQ_DEPTH) { /* no features: one empty block, zeros */
        size_t depth = ddoq_smaller(DDOQ_DEPTH, d - first);
        ddoq_pack(m->x, m->shift, first, depth, m->packed);
        for (size_t j = 0; j < n; j += block) {
            enum ddoq_status status = multiply_columns(m, j, ddoq_smaller(j + block, n), depth, first > 0);
            if (status != DDOQ_OK)
                return status;
        }
    }
    for (size_t i = 0; i < n; i += MIRROR_ROWS) {
        if (ddoq_stopped(m->crew))
            return DDOQ_INTERRUPTED;
        m->x->kernels->mirror(n, i, ddoq_smaller(i + MIRROR_ROWS, n), m->gram);
    }
    return DDOQ_OK;
}

enum ddoq_status ddoq_gram_rows(const struct ddoq_rows *x, const void *shift, void *gram, struct ddoq_crew *crew)
{
    const struct ddoq_kernels *kernels = x->kernels;
    struct product m = {.x = x, .shift = shift, .gram = gram, .crew = crew};
    enum ddoq_status status = DDOQ_NO_MEMORY;
    size_t depth = ddoq_smaller(DDOQ_DEPTH, x->d) * kernels->item;

    m.packed = ddoq_allocate(ddoq_padded(kernels, x->n), depth, 1);
    if (m.packed)
        status = multiply(&m);
    free(m.packed);
    return status;
}

struct gram_call {
    struct ddoq_rows x;
    void *out;
};

static enum ddoq_status gram_task(void *context, size_t task, struct ddoq_crew *crew)
{
    (void)task;
    const struct gram_call *call = context;
    void *zero = calloc(call->x.d ? call->x.d : 1, call->x.kernels->item);
    if (!zero)
        return DDOQ_NO_MEMORY;
    enum ddoq_status status = ddoq_gram_rows(&call->x, zero, call->out, crew);
    free(zero);
    return status;
}

enum ddoq_status ddoq_gram(const struct ddoq_run *run, enum ddoq_type type, const void *X, size_t n, size_t d,
                           void *out)
{
    struct gram_call call = {.x = {.kernels = &run->isa->real[type], .data = X, .n = n, .d = d}, .out = out};
    size_t failed;
    return ddoq_run_tasks(1, run, gram_task, &call, &failed);
}
