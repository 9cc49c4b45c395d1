/* One class: its share of the arguments, what its fit works in, and the writing of its result. */
#ifndef DDOQ_CPU_RESULT_H
#define DDOQ_CPU_RESULT_H

#include "cpu/fit.h"
#include "cpu/gram.h"
#include "cpu/memory.h"

struct ddoq_task {
    const struct ddoq_quantize_args *args;
    struct ddoq_rows x;
    size_t class, first_row, first_point;
    const double *uniforms;
    const int64_t *start_rows;
    struct ddoq_fit fit;
    struct ddoq_memory memory;       /* owns every array below and of the fit */
    double *w, *diagonal, *sum;      /* (n), (n), (d) */
    char *shift, *gram;              /* (d), (n, n) real */
    size_t n_sketch;                 /* features of the sketch; 0 without one */
    bool sketched;                   /* G is that of the sketch */
    void *widened;                   /* (d) real: a row of halves; NULL without them */
    char *sketch, *sign;             /* (n, n_sketch), (d) real; NULL without a sketch */
    int64_t *kept_cell, *kept_label; /* (n) of the best restart so far */
};

/* w (n) = weights of the rows, scaled by a power of two so that the greatest is in 1/2..1. */
void ddoq_read_weights(const struct ddoq_rows *x, const double *sample_weight, double *w);

/* out (x->d) = weighted mean of the class's rows x with cell[i] == j, or of all of them where cell is NULL. */
enum ddoq_status ddoq_write_mean(struct ddoq_task *task, const struct ddoq_rows *x, const int64_t *cell, int64_t j,
                                 void *out);

/* Writes the class's outputs from kept_cell and kept_label; with a sketch, labels are those nearest to the means in all
 * features. *empty: then some point would be left without a sample, and nothing is written. */
enum ddoq_status ddoq_write_result(struct ddoq_task *task, bool *empty);

#endif
