/* The draws of greedy k-means++, in Gram form and in streaming form. */
#ifndef DDOQ_CPU_DRAWS_H
#define DDOQ_CPU_DRAWS_H

#include <stddef.h>
#include <stdint.h>

/* cumulative (n) = sequential sums of w * value, or of w where value is NULL; returns the total. */
double ddoq_accumulate(size_t n, const double *w, const double *value, double *cumulative);

/* Returns the first index with cumulative > u * total, or the last one that adds mass if rounding leaves none. */
size_t ddoq_draw(size_t n, const double *cumulative, double u);

/* Returns the lowest of 0..n-1 that is not in seeds (n_seeds). */
size_t ddoq_first_free(size_t n, const int64_t *seeds, size_t n_seeds);

#endif
