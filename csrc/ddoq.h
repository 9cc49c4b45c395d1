/* ddoq's public C entry points. No Python here or below.
 *
 * n samples, d features, k points. All matrices are row-major and contiguous. Sizes are checked against overflow before
 * every allocation; values are trusted: the caller has checked every index and offset against its range (the binding
 * does). Results have the same bits for any number of threads. */
#ifndef DDOQ_H
#define DDOQ_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum ddoq_status {
    DDOQ_OK,
    DDOQ_NO_MEMORY,
    DDOQ_INTERRUPTED, /* the poll function asked to stop */
    DDOQ_NOT_FINITE,  /* NaN, infinity, or squares that overflow the element type */
    DDOQ_BAD_ROW,     /* of the loss: an index, a weight or a probability out of range */
};

/* Halves, of the samples and of the loss, are widened to float row by row; what is computed from them is float. */
enum ddoq_type { DDOQ_FLOAT32, DDOQ_FLOAT64, DDOQ_BFLOAT16, DDOQ_FLOAT16 };

/* A person feels no delay below it, and a poll, which may wait for Python's lock, costs nothing at this pace. */
#define DDOQ_POLL_NANOSECONDS INT64_C(50000000)

/* Called on the calling thread about every 50 ms with the number of finished tasks; anything but 0 stops the work. */
struct ddoq_poll {
    int (*call)(void *context, size_t done);
    void *context;
};

/* How a call runs: the instruction set by name (one of ddoq_isa_name), the most threads to use, the poll function. */
struct ddoq_run {
    const struct ddoq_isa *isa;
    size_t n_threads;
    struct ddoq_poll poll;
};

/* Writes the table of the instruction sets of this machine. Call once, before anything else. */
void ddoq_load_isas(void);
/* The i-th instruction set this machine can run, worst to best; NULL past the end. */
const struct ddoq_isa *ddoq_isa_at(size_t i);
const char *ddoq_isa_name(const struct ddoq_isa *isa);

/* out (n, n) = X X^T, X (n, d). */
enum ddoq_status ddoq_gram(const struct ddoq_run *run, enum ddoq_type type, const void *X, size_t n, size_t d,
                           void *out);

/* *largest = the greatest |x|, NaN where there is one; NaN above infinity. */
enum ddoq_status ddoq_largest(const struct ddoq_run *run, enum ddoq_type type, const void *X, size_t n, size_t d,
                              double *largest);

/* labels (n), dist2 (n): index of the nearest of k points (lowest on ties) and the squared distance to it. */
enum ddoq_status ddoq_assign(const struct ddoq_run *run, enum ddoq_type type, const void *X, size_t n,
                             const void *points, size_t k, size_t d, int64_t *labels, double *dist2);

/* Features of the sketch for k points (the most of the classes that share it), and how many of n samples it has: it is
 * there to find the cells, and moves in all features and samples follow. No sketch is made of fewer features. */
static inline size_t ddoq_sketch_features(size_t k)
{
    return k <= 16 ? 640 : 512;
}

static inline size_t ddoq_sketch_samples(size_t n, size_t k)
{
    size_t enough = 600 + 4 * k;
    return n < enough ? n : enough;
}

/* How a class is quantised: in Gram form by Lloyd's iterations, with single-point moves after them, and both in a
 * sketch of some samples, before moves of all; or streaming, by Lloyd's iterations over the samples with all threads.
 */
enum ddoq_form { DDOQ_GRAM, DDOQ_GRAM_MOVES, DDOQ_SKETCH, DDOQ_STREAMING };

struct ddoq_quantize_args {
    enum ddoq_type type;
    const void *X; /* (n, d) */
    size_t d;
    const double *sample_weight; /* (n), > 0 for the rows used */
    size_t n_classes;
    const int64_t *rows;          /* rows of X, class by class; the same rows again: one Gram matrix */
    const int64_t *row_offsets;   /* (n_classes + 1) into rows */
    const int64_t *point_offsets; /* (n_classes + 1) into points */
    size_t n_init;                /* starts of a class that are given */
    const int64_t *n_starts;      /* (n_classes) how many of them it makes, 1 to n_init */
    const double *uniforms;       /* exactly one of the three is not NULL */
    const int64_t *start_rows;    /* positions within the class */
    const void *start_points;     /* (K, d) */
    size_t max_iter;
    double tol;           /* streaming stops where the points' squared shift is at most tol x mean of the variances */
    const uint8_t *forms; /* (n_classes) of enum ddoq_form */
    void *points;         /* out (K, d) */
    double *weights;      /* out (K), sums to 1 per class */
    int64_t *counts;      /* out (K) */
    int64_t *labels;      /* out (as rows): index within the class */
    double *distortion;   /* out (n_classes): weighted mean squared distance */
    int64_t *n_iter;      /* out (n_classes) */
};

/* Number of candidates per greedy k-means++ step: 2 + floor(ln k). */
static inline size_t ddoq_seed_trials(size_t k)
{
    return 2 + (size_t)floor(log((double)k));
}

/* Returns the bytes that a class of n samples and k points takes in a form while it is quantised, besides its
 * arguments: of d features, and reals of item bytes. Rows are counted as widened, streaming with k-means++, and what
 * threads take for a moment is left out. It is a number and no size, since no memory need have so much. */
double ddoq_form_bytes(enum ddoq_form form, size_t n, size_t k, size_t d, size_t item);

/* Quantises every class; on failure *failed_class is the class that failed. */
enum ddoq_status ddoq_quantize_classes(const struct ddoq_run *run, const struct ddoq_quantize_args *args,
                                       size_t *failed_class);

enum ddoq_target { DDOQ_INDEX, DDOQ_PROBS, DDOQ_LOGITS, DDOQ_TOPK };

/* The sum of a row's probabilities may be so far from 1: rows that were stored as float16 or bfloat16 are. */
#define DDOQ_SUM_TOLERANCE 1e-2

struct ddoq_loss_args {
    enum ddoq_type type;        /* of logits and gradient */
    enum ddoq_type target_type; /* of soft targets: float64 with float64 logits, float32 or bfloat16 with the others */
    enum ddoq_type weight_type; /* float32 or float64 */
    enum ddoq_target target;
    size_t n_rows, n_classes, k;
    const void *logits;     /* (n_rows, n_classes) */
    const void *soft;       /* (n_rows, n_classes), top-k (n_rows, k); NULL for class indices */
    const int64_t *indices; /* (n_rows), top-k (n_rows, k); NULL otherwise; values are checked here */
    const void *weight;     /* (n_rows); values are checked here */
    double temperature, label_smoothing;
    void *gradient; /* out (n_rows, n_classes) */
    double *loss;   /* out: one number */
};

/* The weighted loss and its gradient by the logits; n_rows and n_classes are at least 1. */
enum ddoq_status ddoq_weighted_loss(const struct ddoq_run *run, const struct ddoq_loss_args *args);

struct ddoq_clvq_args {
    enum ddoq_type type;
    const void *X; /* (n, d), in the order of the steps */
    size_t n, d, k;
    double b, power; /* the step is (1 + i / b)^-power */
    void *points;    /* in and out (k, d) */
    double *weights; /* in and out (k), and i counts all steps; NULL: i counts the winner's own wins */
    int64_t *wins;   /* in and out (k): steps that each point has won; their sum is the number of steps so far */
    double *sums;    /* NULL, or in and out (k, d): sum of each point over the first summed[j] steps of its clock; */
    int64_t *summed; /* in and out (k): after them the point has not moved */
    double *weight_sums; /* NULL, or in and out (k): sum of the weights over all steps */
    int64_t *winners;    /* out (n) */
};

/* One step of competitive learning vector quantisation for each sample. Points, weights, wins and the sums are the
 * whole state, of which a call that is interrupted has taken a whole number of steps. */
enum ddoq_status ddoq_clvq(const struct ddoq_run *run, const struct ddoq_clvq_args *args);

#endif
