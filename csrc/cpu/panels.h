/* Rows of a matrix packed into panels, and products of panels: what gram, assign and clvq share. A panel holds
 * tile_cols rows, feature by feature; a matrix is packed DDOQ_DEPTH features at a time. */
#ifndef DDOQ_CPU_PANELS_H
#define DDOQ_CPU_PANELS_H

#include "cpu/kernels/table.h"

/* n rows of the matrix data (., d): data[index[i]], or data[i] where index is NULL. Of the kernels' reals, or of
 * halves, which widen makes floats. */
struct ddoq_rows {
    const struct ddoq_kernels *kernels;
    const void *data;
    const int64_t *index;
    size_t n, d;
    void (*widen)(size_t n, const uint16_t *x, float *out); /* NULL: nothing to widen */
};

static inline struct ddoq_rows ddoq_rows_of(const struct ddoq_isa *isa, enum ddoq_type type, const void *data, size_t n,
                                            size_t d)
{
    const struct ddoq_kernels *kernels = &isa->real[type == DDOQ_FLOAT64 ? DDOQ_FLOAT64 : DDOQ_FLOAT32];
    struct ddoq_rows x = {.kernels = kernels, .data = data, .n = n, .d = d};
    if (type == DDOQ_FLOAT16)
        x.widen = isa->half.from_float16;
    else if (type == DDOQ_BFLOAT16)
        x.widen = isa->half.from_bfloat16;
    return x;
}

/* Returns the bytes of one number of the matrix. */
static inline size_t ddoq_item(const struct ddoq_rows *x)
{
    return x->widen ? sizeof(uint16_t) : x->kernels->item;
}

/* Returns row i as it is stored. */
static inline const char *ddoq_row(const struct ddoq_rows *x, size_t i)
{
    size_t row = x->index ? (size_t)x->index[i] : i;
    return (const char *)x->data + row * x->d * ddoq_item(x);
}

/* Returns the features first..first+depth of row i as reals: where they lie, or widened into scratch (depth). */
static inline const char *ddoq_features(const struct ddoq_rows *x, size_t i, size_t first, size_t depth, void *scratch)
{
    const char *stored = ddoq_row(x, i) + first * ddoq_item(x);
    if (!x->widen)
        return stored;
    x->widen(depth, (const uint16_t *)(const void *)stored, scratch);
    return scratch;
}

/* Returns the rows begin..begin+n of x. */
static inline struct ddoq_rows ddoq_part(const struct ddoq_rows *x, size_t begin, size_t n)
{
    struct ddoq_rows part = *x;
    part.n = n;
    if (x->index)
        part.index = x->index + begin;
    else
        part.data = (const char *)x->data + begin * x->d * ddoq_item(x);
    return part;
}

static inline size_t ddoq_smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Returns n rounded up to whole panels. */
static inline size_t ddoq_padded(const struct ddoq_kernels *kernels, size_t n)
{
    return (n / kernels->tile_cols + (n % kernels->tile_cols != 0)) * kernels->tile_cols;
}

/* Fetches bytes into L2. It is always inlined: GCC takes a function that does nothing else for one without effect, and
 * drops its calls. */
static inline __attribute__((always_inline)) void ddoq_fetch(const char *begin, size_t bytes)
{
    for (size_t byte = 0; byte < bytes; byte += DDOQ_CACHE_LINE)
        __builtin_prefetch(begin + byte, 0, 2);
}

/* panels (padded n, depth <= DDOQ_DEPTH) = features first..first+depth of x, less the shift (d). */
static inline void ddoq_pack(const struct ddoq_rows *x, const void *shift, size_t first, size_t depth, char *panels)
{
    const struct ddoq_kernels *kernels = x->kernels;
    const void *rows[DDOQ_MAX_PANEL_WIDTH];
    float widened[DDOQ_MAX_PANEL_WIDTH * DDOQ_DEPTH];
    size_t width = kernels->tile_cols, item = kernels->item;
    for (size_t i = 0; i < x->n; i += width) {
        size_t count = ddoq_smaller(width, x->n - i);
        for (size_t r = 0; r < count; r++)
            rows[r] = ddoq_features(x, i + r, first, depth, widened + r * depth);
        kernels->product.pack(rows, (const char *)shift + first * item, count, width, depth, panels + i * depth * item);
    }
}

/* Returns where the tile of rows i.. begins in panels of the given depth; i is a multiple of tile_rows. */
static inline const char *ddoq_tile_rows(const struct ddoq_kernels *kernels, const char *panels, size_t i, size_t depth)
{
    size_t width = kernels->tile_cols;
    return panels + (i / width * width * depth + i % width) * kernels->item;
}

/* out (n rows of stride, up to tile_cols columns) = or += the n rows in panels times one panel's cols rows. */
static inline void ddoq_multiply_panel(const struct ddoq_kernels *kernels, const char *panels, size_t n,
                                       const char *panel, size_t cols, size_t depth, char *out, size_t stride, int add)
{
    size_t height = kernels->tile_rows;
    for (size_t i = 0; i < n; i += height)
        kernels->product.tile(depth, ddoq_tile_rows(kernels, panels, i, depth), panel, out + i * stride * kernels->item,
                              stride, ddoq_smaller(height, n - i), cols, add);
}

#endif
