/* The tables of kernels of one instruction set, by their use and by element type ("real": float or double).
 *
 * Kernels are pure loops: no allocation, no error, no Python. They are written once, in kernels/real.h and
 * kernels/isa.h, with the vector extensions of GCC and Clang, and compiled once per instruction set by isa_*.c. Each
 * element of a product is one sequential chain of multiply-adds per block of DDOQ_DEPTH features and reductions run
 * over 16 virtual lanes, so that bits do not depend on the lanes, nor on where an element lies in its tile. */
#ifndef DDOQ_CPU_KERNELS_TABLE_H
#define DDOQ_CPU_KERNELS_TABLE_H

#include "ddoq.h"

#define DDOQ_DEPTH 256          /* a panel of 16 floats and this depth is half of an L1 cache */
#define DDOQ_MAX_PANEL_WIDTH 48 /* three vectors of AVX-512 in float */
#define DDOQ_CACHE_LINE 64      /* bytes, of every processor that there are kernels for */

/* Arithmetic of rows: n elements, or d features. */
struct ddoq_vector_kernels {
    /* y += w x */
    void (*axpy)(size_t n, double w, const void *x, double *y);
    /* from -= w x, to += w x, with the bits that axpy gives */
    void (*transfer)(size_t n, double w, const void *x, double *from, double *to);
    /* y += w[r] rows[r], row after row */
    void (*add_rows)(size_t n, size_t n_rows, const double *w, const void *const *rows, double *y);
    /* out = x, every stride-th element of it */
    void (*widen)(size_t n, const void *x, size_t stride, double *out);
    /* out = x / divisor, rounded to real */
    void (*narrow)(size_t n, const double *x, double divisor, void *out);
    /* out = x - y */
    void (*subtract)(size_t n, const void *x, const void *y, void *out);
    /* out = x / divisor - shift, rounded to real; returns |out|^2. */
    double (*centre)(size_t d, const double *x, double divisor, const void *shift, void *out);
    /* |x - y|^2, accumulated in double */
    double (*dist2)(size_t d, const void *x, const void *y);
    /* Bits of the greatest |x|, or of NaN where there is one. */
    uint64_t (*magnitude)(size_t n, const void *x);
};

/* Products of rows, which are packed into panels; panels are aligned to their vectors. */
struct ddoq_product_kernels {
    /* panel (depth, width) = rows[r][p] - shift[p], rows from count on are zero. */
    void (*pack)(const void *const *rows, const void *shift, size_t count, size_t width, size_t depth, void *panel);
    /* c (rows, cols of stride) = or += A B^T, from two panels (depth, tile_cols); a starts at the first of tile_rows
     * rows of its panel. tile_rows divides tile_cols. */
    void (*tile)(size_t depth, const void *a, const void *b, void *c, size_t stride, size_t rows, size_t cols, int add);
    /* c (rows <= tile_rows, tile_cols, of c_stride) = or += A B^T, of rows of a, which lie as they are, a_stride apart,
     * and a panel b, with the bits that tile gives. c is aligned to its vectors. */
    void (*tile_in_place)(size_t depth, const void *a, size_t a_stride, const void *b, void *c, size_t c_stride,
                          size_t rows, int add);
    /* out (tile_cols) = or += squared norms of a panel's rows, with the bits that tile gives. */
    void (*squares)(size_t depth, const void *panel, void *out, int add);
    /* out (m) = sum over the features p = q (mod m) of sign[p] (x[p] - shift[p]): a count-sketch of x (d). */
    void (*fold)(size_t d, size_t m, const void *x, const void *shift, const void *sign, void *out);
    /* Upper triangle of rows begin..end of the square matrix c = its lower triangle. */
    void (*mirror)(size_t n, size_t begin, size_t end, void *c);
};

/* The nearest of k points, from products. */
struct ddoq_search_kernels {
    /* best[i] = min over j of offset[j] + scale[j] * sums[j][i], label[i] = the first j that reaches it. */
    void (*nearest)(size_t n, size_t k, const double *sums, const double *scale, const double *offset, int64_t *label,
                    double *best);
    /* two = least and second least of norm[j] - 2 product[j]; returns the first index of the least. */
    size_t (*two_least)(size_t k, const double *product, const double *norm, double two[2]);
    /* The same of every column i < n of product (k, n of stride): least, second and the label, (n) each. */
    void (*two_nearest)(size_t n, size_t k, const void *product, size_t stride, const double *norm, int64_t *label,
                        double *least, double *second);
    /* With a sample in each of the tile_cols lanes, and labels that are integers as wide as real: best = min over the
     * rows of half[r] - product[r], product (rows, tile_cols); label = first + r of the first row that reaches it,
     * where it is below the best so far, of which there is none at first = 0. */
    void (*lower)(size_t rows, const void *product, const void *half, size_t first, void *best, void *label);
    void (*copy_labels)(size_t n, const void *label, int64_t *out);
    /* out = min(closest, distance to one sample), given its row of G and its squared norm; returns sum of w * out. */
    double (*trial)(size_t n, const void *gram_row, double norm, const double *diagonal, const double *closest,
                    const double *w, double *out);
};

/* The kernels that the quantiser is made of. */
struct ddoq_kernels {
    size_t item;                        /* bytes of one real */
    size_t tile_rows, tile_cols, lanes; /* a tile's columns are three vectors of lanes */
    struct ddoq_vector_kernels vector;
    struct ddoq_product_kernels product;
    struct ddoq_search_kernels search;
};

/* Sums over one row of the loss, of the target and of its products with the logarithms. */
struct ddoq_cross {
    double sum, cross;
    int is_negative; /* one of the target's probabilities is */
};

/* The kernels that the loss is made of, over one row of n classes. */
struct ddoq_loss_kernels {
    size_t item; /* bytes of one real */
    double (*largest)(size_t n, const void *x);
    /* Sum of x - shift. */
    double (*total)(size_t n, const void *x, double shift);
    /* out = exp(scale (x - shift)), for scale > 0 and x <= shift; returns the sum. */
    double (*exponentials)(size_t n, const void *x, double shift, double scale, void *out);
    /* out = e = exp(scale (t - t_shift)); its sum, and the sum over e != 0 of scale e ((t - t_shift) - (s - s_shift)).
     */
    struct ddoq_cross (*cross_logits)(size_t n, const void *s, double s_shift, const void *t, double t_shift,
                                      double scale, void *out);
    /* Sum of t, and the sum over t != 0 of t (log t - scale (s - s_shift)). */
    struct ddoq_cross (*cross_probs)(size_t n, const void *s, double s_shift, double scale, const void *t);
    /* out = the k values at their places, what they leave of 1 spread evenly over the others; -1 where a value is
     * negative or not a number, a place is out of range or taken twice, or the sum is above 1 + tolerance. */
    int (*spread)(size_t n, size_t k, const void *values, const int64_t *index, double tolerance, void *out);
    /* x = a x + b */
    void (*scale_add)(size_t n, double a, double b, void *x);
    /* x = a (x - b f) */
    void (*difference)(size_t n, double a, double b, const void *restrict f, void *restrict x);
};

/* Halves, which float16 and bfloat16 are: they are widened to float, and the loss alone rounds to bfloat16. */
struct ddoq_half_kernels {
    void (*from_float16)(size_t n, const uint16_t *x, float *out);
    void (*from_bfloat16)(size_t n, const uint16_t *x, float *out);
    /* Bits of the greatest |x|, or of NaN where there is one. */
    uint64_t (*magnitude)(size_t n, const void *x);
    /* As scale_add and difference of the loss, with out in bfloat16. */
    void (*scale_add)(size_t n, double a, double b, const float *x, uint16_t *out);
    void (*difference)(size_t n, double a, double b, const float *f, const float *x, uint16_t *out);
};

struct ddoq_isa {
    const char *name;
    struct ddoq_kernels real[2];      /* by enum ddoq_type */
    struct ddoq_loss_kernels loss[2]; /* by enum ddoq_type */
    struct ddoq_half_kernels half;
};

extern const struct ddoq_isa ddoq_isa_baseline;
#if defined(__x86_64__)
extern const struct ddoq_isa ddoq_isa_avx2, ddoq_isa_avx512;
#endif

#endif
