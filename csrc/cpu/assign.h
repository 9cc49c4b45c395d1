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

#endif
