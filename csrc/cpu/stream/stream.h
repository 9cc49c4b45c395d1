/* One big class in streaming form: Lloyd's iterations over the samples themselves, with all threads of the call. The
 * samples are packed once, less their mean, in blocks of DDOQ_STREAM_ROWS rows, DDOQ_DEPTH features after DDOQ_DEPTH
 * features, so that an iteration reads the panels from begin to end. */
#ifndef DDOQ_CPU_STREAM_STREAM_H
#define DDOQ_CPU_STREAM_STREAM_H

#include <stdbool.h>
#include <time.h>

#include "cpu/memory.h"
#include "cpu/panels.h"
#include "cpu/parallel.h"

#define DDOQ_STREAM_ROWS 96 /* a multiple of every panel's width, so that sums over a block have the same order */

struct ddoq_stream {
    const struct ddoq_run *caller;
    struct ddoq_run run; /* of a phase: polls the caller between phases too */
    struct timespec last_poll;
    const struct ddoq_quantize_args *args;
    struct ddoq_rows x;
    size_t k, n_blocks, task_blocks, n_tasks; /* task_blocks: blocks of one task of an assignment */
    struct ddoq_memory memory;
    char *shift;                            /* (d) real, mean of the samples */
    char *panels;                           /* (n_blocks * DDOQ_STREAM_ROWS, d) */
    double *w;                              /* (n) */
    double *chunk_sums;                     /* (chunks, d) of the rows of each chunk */
    double *chunk_squares, *chunk_weighted; /* (chunks) sums of squared distances to the mean, and of weighted ones */
    double variance;                        /* mean of the features' variances */
    double tie;                             /* of the weighted sum of the squared distances */
    /* The points, and the partition whose means they are. */
    char *points;     /* (k, d) real */
    char *centred;    /* (k, ddoq_stream_stride) real: the points less the shift */
    char *before;     /* (d) real scratch */
    char *half;       /* (padded k) real |c - shift|^2 / 2, infinity for an empty cell */
    int64_t *cell;    /* (n) */
    double *sums;     /* (k, d) weighted sums of the cells, a slice of the features after the other */
    size_t slice;     /* features of one, the last has the rest */
    double *mass;     /* (k) */
    double *heaviest; /* (k) the greatest mass since the sums were made */
    int64_t *count;
    /* The last assignment. */
    int64_t *label;  /* (n) */
    int64_t *moved;  /* (n) rows of each task whose label is not their cell */
    size_t *n_moved; /* (n_tasks) */
    bool rebuild;    /* the sums are to be made from all samples */
    double *dist2;   /* (n) */
    /* Scratch of seeding. */
    double *norms, *closest, *cumulative; /* (n) each */
    double **trials, *trial_rows;         /* (n_trials) of (n): distance to the nearest seed, were the candidate one */
    double *potentials;                   /* (n_blocks, n_candidates) */
    int64_t *seeds;                       /* (k) */
    int64_t *candidates, *candidate_rows; /* (n_trials) */
    char *candidate_panels;               /* (padded n_trials, d) */
    size_t n_trials, n_candidates;        /* of a step, at most; of this step */
};

static inline size_t ddoq_stream_blocks(size_t n)
{
    return (n + DDOQ_STREAM_ROWS - 1) / DDOQ_STREAM_ROWS;
}

/* Takes all arrays; false where memory is short, or where there are more points than labels of floats can tell apart.
 */
bool ddoq_stream_allocate(struct ddoq_stream *stream);

/* Returns the bytes of a class in streaming form that is seeded by greedy k-means++. */
double ddoq_stream_form_bytes(size_t n, size_t k, size_t d, size_t item);

/* Makes the mean, the panels, the variance and the tie. */
enum ddoq_status ddoq_stream_prepare(struct ddoq_stream *stream);

/* Runs tasks 0..n_tasks-1 with all threads, and polls the caller where the last poll is long ago. */
enum ddoq_status ddoq_stream_phase(struct ddoq_stream *stream, size_t n_tasks, ddoq_task task);

static inline size_t ddoq_stream_rows_of(const struct ddoq_stream *stream, size_t block)
{
    return ddoq_smaller(DDOQ_STREAM_ROWS, stream->x.n - block * DDOQ_STREAM_ROWS);
}

/* Returns where the features first.. of a block begin in the panels. */
static inline char *ddoq_stream_chunk(const struct ddoq_stream *stream, size_t block, size_t first)
{
    return stream->panels + (block * stream->x.d + first) * DDOQ_STREAM_ROWS * stream->x.kernels->item;
}

/* Returns the stride of the centred points: a power of two, as many features are, would put all points of a tile into
 * the same sets of a cache. */
static inline size_t ddoq_stream_stride(const struct ddoq_stream *stream)
{
    return stream->x.d + DDOQ_CACHE_LINE / sizeof(float);
}

/* Returns scratch for a widened row (d), which the caller frees; NULL also where the rows are not halves. */
static inline float *ddoq_row_of_halves(const struct ddoq_rows *x)
{
    return x->widen ? ddoq_allocate(x->d, 1, sizeof(float)) : NULL;
}

#endif
