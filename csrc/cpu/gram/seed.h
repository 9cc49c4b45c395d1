/* Greedy k-means++ in Gram form. */
#ifndef DDOQ_CPU_GRAM_SEED_H
#define DDOQ_CPU_GRAM_SEED_H

#include "cpu/gram/fit.h"

/* Writes the fit's seeds, from the ddoq_uniforms_of_start(k) numbers in [0, 1). */
enum ddoq_status ddoq_seed_greedy(struct ddoq_fit *fit, const double *uniforms);

/* label and dist2 = assignment to the samples in seeds. */
void ddoq_assign_to_seeds(struct ddoq_fit *fit);

#endif
