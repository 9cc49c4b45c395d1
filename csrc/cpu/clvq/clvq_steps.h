/* A call of competitive learning, which its threads share, and the part of it that is sequential. */
#ifndef DDOQ_CPU_CLVQ_STEPS_H
#define DDOQ_CPU_CLVQ_STEPS_H

#include <stdatomic.h>

#include "cpu/memory.h"
#include "cpu/panels.h"

#define DDOQ_CLVQ_BLOCK 96 /* samples; a multiple of every panel's width */

struct ddoq_clvq_block {
    struct ddoq_rows x;
    bool is_shifted;   /* its shift is not that of the block before */
    const char *shift; /* (d) real: near the block's mean */
    char *packed;      /* the block less the shift in panels, some features after the other */
    double *grams;     /* (DDOQ_CLVQ_BLOCK, DDOQ_CLVQ_BLOCK): their products, in the upper triangle */
};

struct ddoq_clvq_call {
    const struct ddoq_clvq_args *args;
    const struct ddoq_kernels *kernels;
    size_t n_blocks, n_groups;
    atomic_size_t next, multiplied, finished; /* items begun, groups multiplied, other items finished */
    struct ddoq_memory memory;
    struct ddoq_clvq_block blocks[2];
    char *shifts[2];  /* (d) real each: the blocks' */
    double spread;    /* mean squared distance to the shift of the samples whose mean it is */
    char *gram;       /* (DDOQ_CLVQ_BLOCK, DDOQ_CLVQ_BLOCK) real scratch */
    double *mean;     /* (d) scratch */
    char *shifted;    /* (k, d) the points less the shift */
    double *squares;  /* (k) of the shifted points */
    double *products; /* (DDOQ_CLVQ_BLOCK, k) of a block and the points */
    double *sum;      /* (d) scratch of the steps */
    double step[DDOQ_CLVQ_BLOCK];
    int64_t steps; /* taken before the block */
};

static inline char *ddoq_clvq_point_at(const struct ddoq_clvq_call *m, size_t j)
{
    return (char *)m->args->points + j * m->args->d * m->kernels->item;
}

/* Makes the shifted point and its square afresh, since point j or the shift has changed. */
void ddoq_clvq_shift_point(struct ddoq_clvq_call *m, const char *shift, size_t j);

/* Takes the steps of the block, from its products: writes winners, weights, sums and points. */
void ddoq_clvq_take_steps(struct ddoq_clvq_call *m, const struct ddoq_clvq_block *block, int64_t *winners);

#endif
