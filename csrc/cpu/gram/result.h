/* One class: its share of the arguments, what its fit works in, and the writing of its result. */
#ifndef DDOQ_CPU_GRAM_RESULT_H
#define DDOQ_CPU_GRAM_RESULT_H

#include "cpu/assign.h"
#include "cpu/gram/fit.h"
#include "cpu/gram/gram.h"
#include "cpu/memory.h"
#include "cpu/sums.h"

#define DDOQ_POLISH_ROWS DDOQ_PRODUCT_ROWS /* samples whose moves are decided together */

static inline size_t ddoq_polish_blocks(size_t n)
{
    return n / DDOQ_POLISH_ROWS + (n % DDOQ_POLISH_ROWS != 0);
}

struct ddoq_task {
    const struct ddoq_quantize_args *args;
    struct ddoq_rows x, sample;                 /* all rows of the class, and those that the Gram matrix is of */
    size_t class, first_row, first_point, most; /* most: points of the classes that share the Gram matrix */
    const double *uniforms;
    const int64_t *start_rows;
    struct ddoq_fit fit;
    struct ddoq_memory memory;       /* owns every array below and of the fit */
    double *w, *diagonal, *sum;      /* (n), (sample.n), (d) */
    char *shift, *gram;              /* (d), (sample.n, sample.n) real */
    char *widened;                   /* (DDOQ_SUM_ROWS, d) real: rows of halves; NULL without */
    int64_t *kept_cell, *kept_label; /* (n) of the best restart so far */
    /* With a sketch alone. */
    size_t n_sketch;         /* its features; 0 without one */
    bool sketched;           /* G is that of the sketch */
    double *sample_w, *sums; /* (sample.n), (k, d) sums of the cells' samples */
    int64_t *place, *index;  /* (sample.n) the sample's place in the class and in X */
    char *sketch, *sign;     /* (sample.n, n_sketch), (d) real */
    char *centred;           /* (k, d) real: points less the shift */
    char *product;           /* (k, DDOQ_POLISH_ROWS) real */
    /* Bounds (bounds.c), as of the visit of each block of samples, and at last as of now. */
    double *bound;        /* (n, k) squared distance of the sample to the point, at least; -infinity: no point yet */
    double *reach, *away; /* (blocks + 1, k) way of the point in this pass, and distance from its anchor, at most */
    char *anchor;         /* (k, d) real: points, less the shift, at the beginning of the pass */
    double rounding;      /* of distances */
};

/* out (x->d) = weighted mean of the rows listed (n_list), or of the first n_list ones where list is NULL. */
enum ddoq_status ddoq_write_mean(struct ddoq_task *task, const struct ddoq_rows *x, const double *w,
                                 const int64_t *list, size_t n_list, void *out);

/* After a sketch: moves of all samples in all features. kept_cell, -1 for the samples outside the sketch, becomes the
 * partition, sums and the fit's mass and count its own. */
enum ddoq_status ddoq_polish(struct ddoq_task *task);

/* Writes the class's outputs from kept_cell and kept_label; with a sketch, labels are those nearest to the means in all
 * features. *empty: then some point would be left without a sample, and nothing is written. */
enum ddoq_status ddoq_write_result(struct ddoq_task *task, bool *empty);

#endif
