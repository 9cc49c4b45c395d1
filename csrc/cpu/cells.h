/* What every form does with a partition: counts, the sample for an empty cell, and what a caller sees. */
#ifndef DDOQ_CPU_CELLS_H
#define DDOQ_CPU_CELLS_H

#include "ddoq.h"

/* count (k) = samples of each cell; cell (n). */
void ddoq_count_cells(size_t n, const int64_t *cell, size_t k, int64_t *count);

/* Returns the sample that an empty cell takes, as in scikit-learn's _relocate_empty_clusters_dense: the farthest one
 * (lowest index on ties) that is away from its point and not alone in its cell; n if there is none. */
size_t ddoq_farthest(size_t n, const double *dist2, const int64_t *cell, const int64_t *count);

/* Returns the weighted sum of squared distances. */
double ddoq_sum_of_squares(size_t n, const double *w, const double *dist2);

/* Writes the labels, weights, counts and the distortion of class c, from its labels, weights and squared distances (n).
 */
void ddoq_write_cells(const struct ddoq_quantize_args *args, size_t c, const int64_t *label, const double *w,
                      const double *dist2);

#endif
