/* Nearest points, as by direct distances in double. */
#ifndef DDOQ_CPU_ASSIGN_H
#define DDOQ_CPU_ASSIGN_H

#include <float.h>

#include "cpu/panels.h"
#include "cpu/parallel.h"

#define DDOQ_PRODUCT_ROWS 48 /* a multiple of every panel's width */

/* labels (n): the lowest index of the points (k, d) that are nearest to each row of x; dist2 (n) is the squared
 * distance. It runs on the calling thread. */
enum ddoq_status ddoq_assign_rows(const struct ddoq_rows *x, const void *points, size_t k, int64_t *labels,
                                  double *dist2, struct ddoq_crew *crew);

/* Returns the bytes that ddoq_assign_rows takes for k points of d features while it works, at most. */
static inline double ddoq_assign_scratch(size_t k, size_t d, size_t item)
{
    double reals = (double)(k + 2) * (double)d + (double)k * DDOQ_PRODUCT_ROWS; /* points, shift, a row; products */
    return reals * (double)item + (double)(k + d) * sizeof(double);             /* norms and the sum of the points */
}

/* Does the same with all threads of the run. */
enum ddoq_status ddoq_assign_run(const struct ddoq_run *run, const struct ddoq_rows *x, const void *points, size_t k,
                                 int64_t *labels, double *dist2);

/* Error of an element of ddoq_multiply_points, at most, relative to |x - shift| |c - shift|: a rounding at each step of
 * a chain of DDOQ_DEPTH multiply-adds, at each sum of two chains, and of each factor less the shift. They do not
 * average out: in a flat image all steps are alike, and so are their roundings, up to a quarter of the bound together.
 */
static inline double ddoq_product_roundings(const struct ddoq_kernels *kernels, size_t d)
{
    size_t depth = d < DDOQ_DEPTH ? d : DDOQ_DEPTH, chains = d / DDOQ_DEPTH + 1, of_factors = 4;
    return (double)(depth + chains + of_factors) / 2 * (kernels->item == sizeof(float) ? FLT_EPSILON : DBL_EPSILON);
}

/* The same of the kernels' dist2, relative to it: chains in 16 virtual lanes, their sum, the rest and the difference.
 */
static inline double ddoq_distance_roundings(size_t d)
{
    return (double)(d / 16 + 40) / 2 * DBL_EPSILON;
}

/* product (k, DDOQ_PRODUCT_ROWS) = points (k, x->d), from which the shift (x->d) has been taken, times the rows of x,
 * at most DDOQ_PRODUCT_ROWS, less the shift; squares (DDOQ_PRODUCT_ROWS), unless NULL, = the squared norms of those.
 * Both are real and aligned to cache lines. */
enum ddoq_status ddoq_multiply_points(const struct ddoq_rows *x, const char *shift, const char *points, size_t k,
                                      char *product, char *squares, struct ddoq_crew *crew);

#endif
