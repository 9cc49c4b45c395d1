/* Nearest points, as by direct distances in double. */
#ifndef DDOQ_CPU_ASSIGN_H
#define DDOQ_CPU_ASSIGN_H

#include "cpu/panels.h"
#include "cpu/parallel.h"

/* labels (n): the lowest index of the points (k, d) that are nearest to each row of x; dist2 (n). On the calling
 * thread. */
enum ddoq_status ddoq_assign_rows(const struct ddoq_rows *x, const void *points, size_t k, int64_t *labels,
                                  double *dist2, struct ddoq_crew *crew);

/* The same, with all threads of the run. */
enum ddoq_status ddoq_assign_run(const struct ddoq_run *run, const struct ddoq_rows *x, const void *points, size_t k,
                                 int64_t *labels, double *dist2);

#define DDOQ_PRODUCT_ROWS 48 /* a multiple of every panel's width */

/* product (k, DDOQ_PRODUCT_ROWS) = points (k, x->d), from which the shift (x->d) has been taken, times the rows of x,
 * at most DDOQ_PRODUCT_ROWS, less the shift; squares (DDOQ_PRODUCT_ROWS), unless NULL, = the squared norms of those.
 * Both are real and aligned to cache lines. */
enum ddoq_status ddoq_multiply_points(const struct ddoq_rows *x, const char *shift, const char *points, size_t k,
                                      char *product, char *squares, struct ddoq_crew *crew);

#endif
