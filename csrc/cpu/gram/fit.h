/* One class in Gram form: everything Lloyd, seeding and single-point moves need once G is there. With S (k, n) and Q
 * (k) of a partition,
 *
 *     S[j][i] = sum over m in cell j of w_m G[m][i]        Q[j] = sum over i in cell j of w_i S[j][i]
 *     dist2(i, j) = G[i][i] - 2 S[j][i] / W_j + Q[j] / W_j^2
 *
 * G is real, all else is double, so that updates by differences do not drift. */
#ifndef DDOQ_CPU_GRAM_FIT_H
#define DDOQ_CPU_GRAM_FIT_H

#include <stdbool.h>

#include "classes.h"
#include "cpu/kernels/table.h"
#include "cpu/parallel.h"

struct ddoq_fit {
    const struct ddoq_kernels *kernels;
    struct ddoq_crew *crew;
    size_t n, k;
    const char *gram;       /* (n, n) real */
    const double *diagonal; /* (n) G[i][i] */
    const double *w;        /* (n) sample weights, > 0 */
    /* The partition whose means are the points. */
    int64_t *cell;   /* (n) */
    double *sums;    /* (k, n) S */
    double *squares; /* (k) Q */
    double *mass;    /* (k) W */
    int64_t *count;  /* (k) */
    double *scale;   /* (k) -2 / W_j, 0 for an empty cell */
    double *offset;  /* (k) Q_j / W_j^2 = |c_j|^2, infinity for an empty cell */
    /* The last assignment to the points. */
    int64_t *label;         /* (n) */
    double *dist2;          /* (n) squared distance to the nearest point */
    int64_t *target;        /* (n) the partition to come, in Lloyd's iterations */
    int64_t *order, *begin; /* (n), (k + 1) samples cell by cell (sums.h) */
    /* Scratch of seeding. */
    double *closest, *trial, *best, *cumulative; /* (n) each */
    int64_t *seeds;                              /* (k) */
    int64_t n_iter;
};

static inline const char *ddoq_gram_row(const struct ddoq_fit *fit, size_t i)
{
    return fit->gram + i * fit->n * fit->kernels->item;
}

#endif
