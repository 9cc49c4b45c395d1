/* Sums of the rows of cells: a cell after the other, so that its sum stays in L1 while its rows pass. */
#ifndef DDOQ_CPU_SUMS_H
#define DDOQ_CPU_SUMS_H

#include "cpu/panels.h"
#include "cpu/parallel.h"

#define DDOQ_SUM_ROWS 4 /* rows widened at a time */

/* order = the i < n with cell[i] >= 0, cell by cell, rising within a cell; begin (k + 1) where each cell begins. */
void ddoq_sort_by_cell(size_t n, const int64_t *cell, size_t k, int64_t *order, int64_t *begin);

/* out (x->d) = sum of the rows listed (n_list), or of the first n_list ones where list is NULL, each times its weight.
 * widened (DDOQ_SUM_ROWS, x->d) real where rows are widened. */
enum ddoq_status ddoq_sum_rows(const struct ddoq_rows *x, const double *w, const int64_t *list, size_t n_list,
                               void *widened, double *out, struct ddoq_crew *crew);

#endif
