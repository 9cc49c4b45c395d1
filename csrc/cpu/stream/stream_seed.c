/* Greedy k-means++ in streaming form (the rule is that of gram/seed.c): a step packs its candidates and multiplies
 * every block of the samples by them. Norms have the bits of the products, so that the distance of a sample to itself
 * and to its duplicates is zero and they are never drawn. */
#include "cpu/stream/stream_seed.h"

#include <math.h>

#include "classes.h"
#include "cpu/draws.h"

/* Blocks of a task: enough to be worth starting. */
#define SEED_BLOCKS 16

static size_t seed_tasks(const struct ddoq_stream *stream)
{
    return (stream->n_blocks + SEED_BLOCKS - 1) / SEED_BLOCKS;
}

static enum ddoq_status norm_task(void *context, size_t task, struct ddoq_crew *crew)
{
    struct ddoq_stream *stream = context;
    const struct ddoq_kernels *kernels = stream->x.kernels;
    size_t width = kernels->tile_cols, item = kernels->item, d = stream->x.d;
    char squares[DDOQ_STREAM_ROWS * sizeof(double)] __attribute__((aligned(DDOQ_CACHE_LINE)));
    size_t end = ddoq_smaller((task + 1) * SEED_BLOCKS, stream->n_blocks);
    for (size_t block = task * SEED_BLOCKS; block < end; block++) {
        size_t rows = ddoq_stream_rows_of(stream, block);
        if (ddoq_stopped(crew))
            return DDOQ_INTERRUPTED;
        for (size_t first = 0; first < d; first += DDOQ_DEPTH) {
            size_t depth = ddoq_smaller(DDOQ_DEPTH, d - first);
            for (size_t i = 0; i < rows; i += width)
                kernels->product.squares(depth, ddoq_stream_chunk(stream, block, first) + i * depth * item,
                                         squares + i * item, first > 0);
        }
        kernels->vector.widen(rows, squares, 1, stream->norms + block * DDOQ_STREAM_ROWS);
    }
    return DDOQ_OK;
}

/* product (padded n_candidates, DDOQ_STREAM_ROWS) = candidates times the samples of a block. */
static void multiply(const struct ddoq_stream *stream, size_t block, char *product)
{
    const struct ddoq_kernels *kernels = stream->x.kernels;
    size_t width = kernels->tile_cols, item = kernels->item, d = stream->x.d;
    size_t rows = ddoq_stream_rows_of(stream, block), stride = ddoq_padded(kernels, stream->n_candidates);
    for (size_t first = 0; first < d; first += DDOQ_DEPTH) {
        size_t depth = ddoq_smaller(DDOQ_DEPTH, d - first);
        const char *chunk = ddoq_stream_chunk(stream, block, first);
        for (size_t i = 0; i < rows; i += width)
            ddoq_multiply_panel(kernels, stream->candidate_panels + first * stride * item, stream->n_candidates,
                                chunk + i * depth * item, width, depth, product + i * item, DDOQ_STREAM_ROWS,
                                first > 0);
    }
}

static enum ddoq_status trial_task(void *context, size_t task, struct ddoq_crew *crew)
{
    struct ddoq_stream *stream = context;
    const struct ddoq_kernels *kernels = stream->x.kernels;
    char *product = ddoq_allocate(ddoq_padded(kernels, stream->n_candidates), DDOQ_STREAM_ROWS, kernels->item);
    enum ddoq_status status = product ? DDOQ_OK : DDOQ_NO_MEMORY;
    size_t end = ddoq_smaller((task + 1) * SEED_BLOCKS, stream->n_blocks);
    for (size_t block = task * SEED_BLOCKS; block < end && status == DDOQ_OK; block++) {
        size_t begin = block * DDOQ_STREAM_ROWS;
        if (ddoq_stopped(crew)) {
            status = DDOQ_INTERRUPTED;
            break;
        }
        multiply(stream, block, product);
        for (size_t t = 0; t < stream->n_candidates; t++)
            stream->potentials[block * stream->n_candidates + t] = kernels->search.trial(
                ddoq_stream_rows_of(stream, block), product + t * DDOQ_STREAM_ROWS * kernels->item,
                stream->norms[stream->candidates[t]], stream->norms + begin, stream->closest + begin, stream->w + begin,
                stream->trials[t] + begin);
    }
    free(product);
    return status;
}

/* Packs the rows DDOQ_DEPTH features after DDOQ_DEPTH features, as the samples are. */
static void pack_candidates(struct ddoq_stream *stream, const struct ddoq_rows *rows)
{
    size_t stride = ddoq_padded(rows->kernels, rows->n);
    for (size_t first = 0; first < rows->d; first += DDOQ_DEPTH)
        ddoq_pack(rows, stream->shift, first, ddoq_smaller(DDOQ_DEPTH, rows->d - first),
                  stream->candidate_panels + first * stride * rows->kernels->item);
}

/* closest = distances to the nearest seed with the best of the first n candidates, *seed = that candidate. */
static enum ddoq_status try_candidates(struct ddoq_stream *stream, size_t n, int64_t *seed)
{
    size_t best = 0;
    double least = INFINITY;
    struct ddoq_rows candidates = stream->x;
    int64_t *rows = stream->candidate_rows;
    for (size_t t = 0; t < n; t++)
        rows[t] = candidates.index ? candidates.index[stream->candidates[t]] : stream->candidates[t];
    candidates.index = rows;
    candidates.n = stream->n_candidates = n;
    pack_candidates(stream, &candidates);
    enum ddoq_status status = ddoq_stream_phase(stream, seed_tasks(stream), trial_task);
    for (size_t t = 0; t < n && status == DDOQ_OK; t++) {
        double potential = 0;
        for (size_t block = 0; block < stream->n_blocks; block++)
            potential += stream->potentials[block * n + t];
        if (t == 0 || potential < least * (1 - DDOQ_TIE)) {
            least = potential;
            best = t;
        }
    }
    *seed = stream->candidates[best];
    double *closest = stream->closest;
    stream->closest = stream->trials[best];
    stream->trials[best] = closest;
    return status;
}

enum ddoq_status ddoq_stream_seed(struct ddoq_stream *stream, const double *uniforms)
{
    size_t n = stream->x.n, n_trials = stream->n_trials;
    enum ddoq_status status = ddoq_stream_phase(stream, seed_tasks(stream), norm_task);
    if (status != DDOQ_OK)
        return status;
    for (size_t i = 0; i < n; i++)
        stream->closest[i] = INFINITY;
    ddoq_accumulate(n, stream->w, NULL, stream->cumulative);
    stream->candidates[0] = (int64_t)ddoq_draw(n, stream->cumulative, *uniforms++);
    status = try_candidates(stream, 1, &stream->seeds[0]);

    for (size_t j = 1; j < stream->k && status == DDOQ_OK; j++, uniforms += n_trials) {
        if (!(ddoq_accumulate(n, stream->w, stream->closest, stream->cumulative) > 0)) {
            stream->seeds[j] = (int64_t)ddoq_first_free(n, stream->seeds, j);
            continue;
        }
        for (size_t t = 0; t < n_trials; t++)
            stream->candidates[t] = (int64_t)ddoq_draw(n, stream->cumulative, uniforms[t]);
        status = try_candidates(stream, n_trials, &stream->seeds[j]);
    }
    return status;
}
