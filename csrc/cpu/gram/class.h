/* One class in Gram form: its share of the arguments, and all arrays that it is worked on in. */
#ifndef DDOQ_CPU_GRAM_CLASS_H
#define DDOQ_CPU_GRAM_CLASS_H

#include "cpu/assign.h"
#include "cpu/gram/fit.h"
#include "cpu/memory.h"
#include "cpu/panels.h"

#define DDOQ_POLISH_ROWS DDOQ_PRODUCT_ROWS /* samples whose moves are decided together: those of one product */

static inline size_t ddoq_polish_blocks(size_t n)
{
    return n / DDOQ_POLISH_ROWS + (n % DDOQ_POLISH_ROWS != 0);
}

/* Some samples of the class (n) in fewer features. */
struct ddoq_sketch {
    size_t n_features;      /* 0: the class has no sketch */
    bool is_used;           /* G is that of the sketch */
    double *w;              /* (n) weights of its samples */
    int64_t *place, *index; /* (n) where each of them is in the class, and in X */
    char *rows, *sign;      /* (n, n_features), (d) real */
};

/* The moves of all samples in all features, which follow a sketch (polish.c). */
struct ddoq_moves {
    double *sums;  /* (k, d) weighted sums of the cells' samples */
    char *points;  /* (k, d) real: their means less the shift */
    char *product; /* (k, DDOQ_POLISH_ROWS) real: of the points with a block of samples */
    double *pull;  /* (k) mass times the way that a block's moves bring the point, at most; -1: it stays. The fit's
                      squares, which nothing reads during the moves */
};

/* What the products of the moves say about distances (bounds.c). Of a block of samples they are as of its visit, of now
 * in the row after the last block's. */
struct ddoq_bounds {
    double *least;        /* (n, k) squared distance of the sample to the point, at least; -infinity: no point yet */
    double *reach, *away; /* (blocks + 1, k) way of the point in this pass, and distance from its anchor, at most */
    char *anchor;         /* (k, d) real: points, less the shift, at the beginning of the pass */
    double rounding;      /* of distances */
};

struct ddoq_class {
    const struct ddoq_quantize_args *args;
    size_t number, most;        /* of the class among the arguments'; points of the classes that share G, at most */
    struct ddoq_rows x, sample; /* all rows of the class, and those that G is of */
    const double *uniforms;     /* the class's own, or NULL */
    const int64_t *start_rows;
    struct ddoq_fit fit;
    struct ddoq_sketch sketch;
    struct ddoq_moves moves;
    struct ddoq_bounds bounds;
    struct ddoq_memory memory;       /* owns all arrays, of the fit, the sketch, the moves and the bounds too */
    double *w, *diagonal;            /* (n), (sample.n) */
    double *sum;                     /* (d) scratch of a mean */
    char *shift, *gram;              /* (d), (sample.n, sample.n) real */
    char *widened;                   /* (DDOQ_SUM_ROWS, d) real: rows of halves; NULL without */
    int64_t *kept_cell, *kept_label; /* (n) of the best restart so far */
};

/* Returns the class's points (k, d), which lie among the outputs. */
static inline char *ddoq_points_of(const struct ddoq_class *class)
{
    return (char *)class->args->points +
           (size_t)class->args->point_offsets[class->number] * class->x.d * class->x.kernels->item;
}

/* Takes the memory for the class, or for its sketch, reads the weights and makes G. */
enum ddoq_status ddoq_prepare_class(struct ddoq_class *class, bool sketched);

/* out (x->d) = weighted mean of the rows listed (n_list), or of the first n_list ones where list is NULL. */
enum ddoq_status ddoq_write_mean(struct ddoq_class *class, const struct ddoq_rows *x, const double *w,
                                 const int64_t *list, size_t n_list, void *out);

/* Returns the bytes of a class in Gram form, of rows that are widened, with the scratch of its product and of its last
 * assignment.
 */
double ddoq_gram_form_bytes(size_t n, size_t k, size_t d, size_t item, bool sketched);

#endif
