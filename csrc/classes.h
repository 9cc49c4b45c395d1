/* The classes of a quantiser's call, as cpu/ and cuda/ both read them, and the rules that both keep. */
#ifndef DDOQ_CLASSES_H
#define DDOQ_CLASSES_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "ddoq.h"

/* Of two sums that differ by less than this share, the first counts as the lower one: sums of thousands of doubles are
 * rounded by about so much, and their order below it would be chance. */
#define DDOQ_TIE 1e-12
/* A single-point move is made if it lowers its sample's cost by more than this share: less is rounding of float
 * products. */
#define DDOQ_LEAST_GAIN 1e-6
/* Sweeps of single-point moves, at most: never reached on data whose distances exceed the rounding of G. */
#define DDOQ_MAX_SWEEPS 1000
/* Weights are raised to this share of the greatest, so that their squares do not vanish. */
#define DDOQ_LEAST_WEIGHT 1e-150

/* Samples of class c. */
static inline size_t ddoq_class_size(const struct ddoq_quantize_args *args, size_t c)
{
    return (size_t)(args->row_offsets[c + 1] - args->row_offsets[c]);
}

static inline size_t ddoq_class_points(const struct ddoq_quantize_args *args, size_t c)
{
    return (size_t)(args->point_offsets[c + 1] - args->point_offsets[c]);
}

/* Whether the class has the rows of the one before it, and so may have its Gram matrix. */
static inline bool ddoq_same_rows(const struct ddoq_quantize_args *args, size_t c)
{
    return c > 0 && ddoq_class_size(args, c) == ddoq_class_size(args, c - 1) &&
           memcmp(args->rows + args->row_offsets[c], args->rows + args->row_offsets[c - 1],
                  ddoq_class_size(args, c) * sizeof *args->rows) == 0;
}

/* Uniform numbers that one start of a class of k points takes: one for the first seed, and one for each candidate. */
static inline size_t ddoq_uniforms_of_start(size_t k)
{
    return 1 + (k - 1) * ddoq_seed_trials(k);
}

/* w (n) = the weights of the class's rows, scaled by a power of two so that the greatest is in 1/2..1. */
static inline void ddoq_read_weights(const struct ddoq_quantize_args *args, size_t c, double *w)
{
    const int64_t *rows = args->rows + args->row_offsets[c];
    size_t n = ddoq_class_size(args, c);
    double greatest = 0;
    int exponent;
    for (size_t i = 0; i < n; i++) {
        w[i] = args->sample_weight[rows[i]];
        greatest = fmax(greatest, w[i]);
    }
    frexp(greatest, &exponent);
    for (size_t i = 0; i < n; i++)
        w[i] = fmax(ldexp(w[i], -exponent), DDOQ_LEAST_WEIGHT);
}

#endif
