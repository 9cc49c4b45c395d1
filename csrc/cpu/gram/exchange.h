/* Exchanges of seeds. */
#ifndef DDOQ_CPU_GRAM_EXCHANGE_H
#define DDOQ_CPU_GRAM_EXCHANGE_H

#include "cpu/gram/fit.h"

/* Exchanges seeds for samples that are drawn with the n_candidates uniform numbers, so long as the weighted sum of
 * squared distances to the nearest seed falls. It works in arrays of the fit that hold nothing between seeding and the
 * first assignment. */
enum ddoq_status ddoq_exchange_seeds(struct ddoq_fit *fit, const double *uniforms, size_t n_candidates);

#endif
