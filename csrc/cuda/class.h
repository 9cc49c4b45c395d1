/* One class on the device, as cpu/gram/fit.h has it on the CPU: what the kernels read, work in and write. All pointers
 * are to device memory and disjoint. G is float, what is made of it is double: sums that are updated by differences do
 * not drift then, single-point moves end, and G needs no centring but for the rounding of its own entries. */
#ifndef DDOQ_CUDA_CLASS_H
#define DDOQ_CUDA_CLASS_H

#include <stddef.h>
#include <stdint.h>

/* What keeps a class from its result on the device. */
enum ddoq_cuda_problem {
    DDOQ_CUDA_FINE,
    DDOQ_CUDA_FAR_MEAN,   /* products of halves lose too much: once more from centred floats */
    DDOQ_CUDA_TOO_ALIKE,  /* G cannot tell as many samples apart as there are points */
    DDOQ_CUDA_NOT_FINITE, /* NaN, infinity, or squares that overflow */
};

struct ddoq_cuda_outcome {
    int32_t n_iter;  /* of the kept restart */
    int32_t problem; /* enum ddoq_cuda_problem */
};

struct ddoq_cuda_class {
    /* The samples: row i is the index[i]-th of rows, or the i-th where index is NULL. */
    const void *rows;
    const int64_t *index;
    /* (n, d) what G is made of: a copy of the rows, or centred floats; NULL for the rows as they lie, and where G is
     * that of the class before. */
    void *panel;
    float *gram;   /* (n, stride) */
    size_t stride; /* a multiple of 8, at least n */
    int32_t n, k, n_init, n_trials, max_iter;
    int32_t moves;          /* single-point moves follow Lloyd's iterations */
    int32_t guarded;        /* look for a far mean */
    const double *w;        /* (n) sample weights, > 0 */
    const double *uniforms; /* one of the three is not NULL; with start_points, label and dist2 are set already */
    const int64_t *start_rows;
    const float *start_points; /* (k, d) */
    /* As in struct ddoq_fit. */
    double *sums;                            /* (k, n) */
    double *diagonal, *dist2;                /* (n); dist2 is to the nearest seed while there is no assignment */
    int32_t *cell, *label, *target;          /* (n) */
    double *squares, *mass, *scale, *offset; /* (k) */
    int32_t *count, *seeds;                  /* (k) */
    /* The samples that change the sums of cell j, or make them: list[begin[j]] and on, entry ~i to take sample i out.
     * length[j] is twice their number, plus 1 where the sums are made afresh. */
    int32_t *list;                   /* (n) */
    int32_t *begin, *length;         /* (k) */
    int32_t *kept_cell, *kept_label; /* (n) of the best restart so far */
    /* Results; afterwards list and begin hold the samples of each kept cell. */
    float *points;   /* (k, d) */
    double *weights; /* (k) */
    int32_t *counts; /* (k) */
    double *partial; /* (chunks of features) of the weighted sum of squared distances */
    struct ddoq_cuda_outcome *outcome;
};

#endif
