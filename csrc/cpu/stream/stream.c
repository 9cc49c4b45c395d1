/* The memory of a class in streaming form, its phases with all threads, and its samples packed into panels. */
#include "cpu/stream/stream.h"

#include <float.h>
#include <string.h>

#include "classes.h"

#define CHUNKS 64            /* of the rows, each with sums of its own: means are the same for any number of threads */
#define MAX_POINTS INT32_MAX /* labels of floats are integers of 32 bits until they are copied */

enum ddoq_status ddoq_stream_phase(struct ddoq_stream *stream, size_t n_tasks, ddoq_task task)
{
    size_t failed;
    bool is_child;
    enum ddoq_status status = ddoq_run_tasks(n_tasks, &stream->run, task, stream, &failed);
    if (status == DDOQ_OK && ddoq_poll_is_due(&stream->last_poll) && ddoq_ask_to_stop(&stream->run.poll, 0, &is_child))
        status = DDOQ_INTERRUPTED;
    return status;
}

/* ---- memory ---- */

/* Lists every array of the class by its sizes, and returns their number. */
static size_t list_arrays(struct ddoq_stream *stream, struct ddoq_array *arrays)
{
    size_t n = stream->x.n, k = stream->k, d = stream->x.d, item = stream->x.kernels->item;
    size_t trials = stream->n_trials, seeded = trials > 0;
    const struct ddoq_array table[] = {
        {&stream->w, n, 1, sizeof *stream->w},
        {&stream->shift, d, 1, item},
        {&stream->panels, stream->n_blocks * DDOQ_STREAM_ROWS, d, item},
        {&stream->chunk_sums, CHUNKS, d, sizeof *stream->chunk_sums},
        {&stream->chunk_squares, CHUNKS, 1, sizeof *stream->chunk_squares},
        {&stream->chunk_weighted, CHUNKS, 1, sizeof *stream->chunk_weighted},

        {&stream->points, k, d, item},
        {&stream->centred, k, ddoq_stream_stride(stream), item},
        {&stream->before, d, 1, item},
        {&stream->half, ddoq_padded(stream->x.kernels, k), 1, item},
        {&stream->cell, n, 1, sizeof *stream->cell},
        {&stream->sums, k, d, sizeof *stream->sums},
        {&stream->mass, k, 1, sizeof *stream->mass},
        {&stream->heaviest, k, 1, sizeof *stream->heaviest},
        {&stream->count, k, 1, sizeof *stream->count},

        {&stream->label, n, 1, sizeof *stream->label},
        {&stream->moved, n, 1, sizeof *stream->moved},
        {&stream->n_moved, stream->n_tasks, 1, sizeof *stream->n_moved},
        {&stream->dist2, n, 1, sizeof *stream->dist2},

        {&stream->norms, seeded * n, 1, sizeof *stream->norms},
        {&stream->closest, seeded * n, 1, sizeof *stream->closest},
        {&stream->cumulative, seeded * n, 1, sizeof *stream->cumulative},
        {&stream->seeds, seeded * k, 1, sizeof *stream->seeds},
        {&stream->trial_rows, trials, n, sizeof *stream->trial_rows},
        {&stream->trials, trials, 1, sizeof *stream->trials},
        {&stream->potentials, trials, stream->n_blocks, sizeof *stream->potentials},
        {&stream->candidates, trials, 1, sizeof *stream->candidates},
        {&stream->candidate_rows, trials, 1, sizeof *stream->candidate_rows},
        {&stream->candidate_panels, ddoq_padded(stream->x.kernels, trials), d, item},
    };
    _Static_assert(sizeof table / sizeof *table <= DDOQ_MOST_ARRAYS, "there is room for all");
    memcpy(arrays, table, sizeof table);
    return sizeof table / sizeof *table;
}

bool ddoq_stream_allocate(struct ddoq_stream *stream)
{
    struct ddoq_array arrays[DDOQ_MOST_ARRAYS];
    size_t n_arrays = list_arrays(stream, arrays);
    if (stream->k > MAX_POINTS || !ddoq_take_all(&stream->memory, arrays, n_arrays))
        return false;
    for (size_t t = 0; t < stream->n_trials; t++)
        stream->trials[t] = stream->trial_rows + t * stream->x.n;
    return true;
}

double ddoq_stream_form_bytes(size_t n, size_t k, size_t d, size_t item)
{
    struct ddoq_array arrays[DDOQ_MOST_ARRAYS];
    const struct ddoq_kernels kernels = {.item = item, .tile_cols = DDOQ_MAX_PANEL_WIDTH};
    struct ddoq_stream stream = {.x = {.kernels = &kernels, .n = n, .d = d}, .k = k, .n_trials = ddoq_seed_trials(k)};
    stream.n_blocks = stream.n_tasks = ddoq_stream_blocks(n); /* a task has a block at least */
    return ddoq_bytes_of(arrays, list_arrays(&stream, arrays));
}

/* ---- preparation ---- */

static size_t chunk_begin(const struct ddoq_stream *stream, size_t chunk)
{
    return stream->n_blocks / CHUNKS * chunk + ddoq_smaller(chunk, stream->n_blocks % CHUNKS);
}

/* Adds the chunk's rows. */
static enum ddoq_status sum_task(void *context, size_t chunk, struct ddoq_crew *crew)
{
    struct ddoq_stream *stream = context;
    const struct ddoq_rows *x = &stream->x;
    double *sum = stream->chunk_sums + chunk * x->d;
    float widened[DDOQ_DEPTH];
    size_t end = ddoq_smaller(chunk_begin(stream, chunk + 1) * DDOQ_STREAM_ROWS, x->n);
    memset(sum, 0, x->d * sizeof *sum);
    for (size_t i = chunk_begin(stream, chunk) * DDOQ_STREAM_ROWS; i < end; i++) {
        if (i % DDOQ_STREAM_ROWS == 0 && ddoq_stopped(crew))
            return DDOQ_INTERRUPTED;
        for (size_t first = 0; first < x->d; first += DDOQ_DEPTH) {
            size_t depth = ddoq_smaller(DDOQ_DEPTH, x->d - first);
            x->kernels->vector.axpy(depth, 1, ddoq_features(x, i, first, depth, widened), sum + first);
        }
    }
    return DDOQ_OK;
}

/* Packs the chunk's rows, and sums their squared distances to the mean, plain and weighted. */
static enum ddoq_status pack_rows(struct ddoq_stream *stream, size_t chunk, void *widened, struct ddoq_crew *crew)
{
    const struct ddoq_rows *x = &stream->x;
    double plain = 0, weighted = 0;
    for (size_t block = chunk_begin(stream, chunk); block < chunk_begin(stream, chunk + 1); block++) {
        size_t begin = block * DDOQ_STREAM_ROWS;
        const struct ddoq_rows rows = ddoq_part(x, begin, ddoq_stream_rows_of(stream, block));
        if (ddoq_stopped(crew))
            return DDOQ_INTERRUPTED;
        for (size_t first = 0; first < x->d; first += DDOQ_DEPTH)
            ddoq_pack(&rows, stream->shift, first, ddoq_smaller(DDOQ_DEPTH, x->d - first),
                      ddoq_stream_chunk(stream, block, first));
        for (size_t i = 0; i < rows.n; i++) {
            double square = x->kernels->vector.dist2(x->d, ddoq_features(&rows, i, 0, x->d, widened), stream->shift);
            /* so that |c|^2 / 2 - <x, c> does not overflow */
            if (!(square <= (x->kernels->item == sizeof(float) ? FLT_MAX : DBL_MAX) / 4))
                return DDOQ_NOT_FINITE;
            plain += square;
            weighted += stream->w[begin + i] * square;
        }
    }
    stream->chunk_squares[chunk] = plain;
    stream->chunk_weighted[chunk] = weighted;
    return DDOQ_OK;
}

static enum ddoq_status pack_task(void *context, size_t chunk, struct ddoq_crew *crew)
{
    struct ddoq_stream *stream = context;
    float *widened = ddoq_row_of_halves(&stream->x);
    enum ddoq_status status = DDOQ_NO_MEMORY;
    if (widened || !stream->x.widen)
        status = pack_rows(stream, chunk, widened, crew);
    free(widened);
    return status;
}

enum ddoq_status ddoq_stream_prepare(struct ddoq_stream *stream)
{
    size_t d = stream->x.d, n = stream->x.n;
    enum ddoq_status status = ddoq_stream_phase(stream, CHUNKS, sum_task);
    if (status != DDOQ_OK)
        return status;
    for (size_t chunk = 1; chunk < CHUNKS; chunk++)
        for (size_t p = 0; p < d; p++)
            stream->chunk_sums[p] += stream->chunk_sums[chunk * d + p];
    stream->x.kernels->vector.narrow(d, stream->chunk_sums, (double)n, stream->shift);
    status = ddoq_stream_phase(stream, CHUNKS, pack_task);
    stream->variance = stream->tie = 0;
    for (size_t chunk = 0; chunk < CHUNKS && status == DDOQ_OK; chunk++) {
        stream->variance += stream->chunk_squares[chunk] / (double)n / (double)d;
        stream->tie += DDOQ_TIE * stream->chunk_weighted[chunk];
    }
    return status;
}
