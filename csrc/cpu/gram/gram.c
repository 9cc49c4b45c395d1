/* The symmetric product, blocked as BLIS blocks a product: DDOQ_DEPTH features of the rows at a time are packed into
 * panels of the tile's width; then tiles of C that touch the lower triangle accumulate. For ROWS rows (their panels in
 * L2), panel of columns by panel of columns, DEPTH features (in L1) after DEPTH features, so that this part of C, too,
 * is still in L2 when it is added to. The upper triangle is the mirror of the lower.
 *
 * Every element is a sequential chain of multiply-adds per DEPTH features, chains added in order: duplicate rows of X
 * give bit-identical rows of G. Error: about sqrt(d) roundings of the element type, relative to |x_i| |x_j|. */
#include <stdlib.h>

#include "cpu/gram/gram.h"
#include "cpu/memory.h"

/* A panel of columns and one of rows, 24 floats wide with AVX2, fill three quarters of an L1 cache of 32 KB; with 256
 * features they would not fit. */
#define DEPTH 128
#define ROWS 192 /* their panels fill 192 KB with floats */
_Static_assert(ROWS % DDOQ_MAX_PANEL_WIDTH == 0 && DDOQ_DEPTH % DEPTH == 0, "whole panels, whole chains");
#define MIRROR_ROWS 64 /* between two looks at the crew */

struct product {
    const struct ddoq_rows *x;
    const char *shift;
    char *gram;
    char *packed; /* panels of tile_cols rows, all rows of X, one block of features */
    struct ddoq_crew *crew;
};

/* Rows begin..end of the panel of columns j.. of the lower triangle: G = (first features of all) or += the product of
 * depth features, from the first-th of those in packed. Tiles on the diagonal end with the vector that holds it. */
static void multiply_columns(const struct product *m, size_t begin, size_t end, size_t j, size_t packed, size_t first,
                             int add)
{
    const struct ddoq_kernels *kernels = m->x->kernels;
    size_t n = m->x->n, item = kernels->item, height = kernels->tile_rows, lanes = kernels->lanes;
    size_t depth = ddoq_smaller(DEPTH, packed - first), last = ddoq_smaller(kernels->tile_cols, n - j);
    const char *panels = m->packed + first * kernels->tile_cols * item;
    for (size_t i = begin < j ? j : begin; i < end; i += height) { /* rows above are above the diagonal */
        size_t cols = (i - j + height + lanes - 1) / lanes * lanes;
        kernels->product.tile(depth, ddoq_tile_rows(kernels, panels, i, packed), panels + j * packed * item,
                              m->gram + (i * n + j) * item, n, ddoq_smaller(height, n - i), ddoq_smaller(cols, last),
                              add);
    }
}

/* G = (block = 0) or += the product of the packed features, of which there are depth; the lower triangle. */
static enum ddoq_status multiply_packed(const struct product *m, size_t block, size_t depth)
{
    size_t n = m->x->n;
    for (size_t i = 0; i < n; i += ROWS) {
        size_t end = ddoq_smaller(i + ROWS, n);
        for (size_t j = 0; j < end; j += m->x->kernels->tile_cols) {
            if (ddoq_stopped(m->crew))
                return DDOQ_INTERRUPTED;
            for (size_t first = 0; first == 0 || first < depth; first += DEPTH)
                multiply_columns(m, i, end, j, depth, first, block + first > 0);
        }
    }
    return DDOQ_OK;
}

static enum ddoq_status multiply(const struct product *m)
{
    size_t n = m->x->n, d = m->x->d;
    for (size_t block = 0; block == 0 || block < d; block += DDOQ_DEPTH) { /* no features: one empty block, zeros */
        size_t depth = ddoq_smaller(DDOQ_DEPTH, d - block);
        ddoq_pack(m->x, m->shift, block, depth, m->packed);
        enum ddoq_status status = multiply_packed(m, block, depth);
        if (status != DDOQ_OK)
            return status;
    }
    for (size_t i = 0; i < n; i += MIRROR_ROWS) {
        if (ddoq_stopped(m->crew))
            return DDOQ_INTERRUPTED;
        m->x->kernels->product.mirror(n, i, ddoq_smaller(i + MIRROR_ROWS, n), m->gram);
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
    struct gram_call call = {.x = ddoq_rows_of(run->isa, type, X, n, d), .out = out};
    size_t failed;
    return ddoq_run_tasks(1, run, gram_task, &call, &failed);
}
