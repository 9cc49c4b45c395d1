/* One class in streaming form: pack, then n_starts times seed and iterate; the restart of the lowest distortion is
 * kept, the first on ties. What a caller sees is computed from the data: points are the means of the cells, summed in
 * double, labels and distances are those of direct distances (assign.c). */
#include <float.h>
#include <math.h>
#include <string.h>

#include "cpu/assign.h"
#include "cpu/gram/result.h"
#include "cpu/gram/seed.h"
#include "cpu/stream/stream.h"

#define CHUNKS 64            /* of the rows, each with sums of its own: means are the same for any number of threads */
#define TASK_PRODUCTS 4e6    /* of one task of an assignment, in multiply-adds: some 0.1 ms */
#define MAX_POINTS INT32_MAX /* labels of floats are integers of 32 bits until they are copied */

/* ---- phases ---- */

static int poll_caller(void *context, size_t done)
{
    (void)done; /* tasks of a phase; the caller counts classes */
    struct ddoq_stream *stream = context;
    const struct ddoq_poll *poll = &stream->caller->poll;
    clock_gettime(CLOCK_MONOTONIC, &stream->last_poll);
    return poll->call ? poll->call(poll->context, 0) : 0;
}

enum ddoq_status ddoq_stream_phase(struct ddoq_stream *stream, size_t n_tasks, ddoq_task task)
{
    size_t failed;
    bool is_child;
    enum ddoq_status status = ddoq_run_tasks(n_tasks, &stream->run, task, stream, &failed);
    if (status == DDOQ_OK && ddoq_poll_is_due(&stream->last_poll) && ddoq_ask_to_stop(&stream->run.poll, 0, &is_child))
        status = DDOQ_INTERRUPTED;
    return status;
}

/* ---- preparation ---- */

void ddoq_pack_depths(const struct ddoq_rows *x, const void *shift, char *panels)
{
    size_t stride = ddoq_padded(x->kernels, x->n);
    for (size_t first = 0; first < x->d; first += DDOQ_DEPTH)
        ddoq_pack(x, shift, first, ddoq_smaller(DDOQ_DEPTH, x->d - first), panels + first * stride * x->kernels->item);
}

static size_t chunk_begin(const struct ddoq_stream *stream, size_t chunk)
{
    return stream->n_blocks / CHUNKS * chunk + ddoq_smaller(chunk, stream->n_blocks % CHUNKS);
}

/* Sums of the chunk's rows. */
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
            x->kernels->axpy(depth, 1, ddoq_features(x, i, first, depth, widened), sum + first);
        }
    }
    return DDOQ_OK;
}

/* Packs the chunk's rows; chunk_squares = sums of their squared distances to the mean, plain and weighted. */
static enum ddoq_status pack_rows(struct ddoq_stream *stream, size_t chunk, void *widened, struct ddoq_crew *crew)
{
    const struct ddoq_rows *x = &stream->x;
    double *squares = stream->chunk_squares + 2 * chunk;
    squares[0] = squares[1] = 0;
    for (size_t block = chunk_begin(stream, chunk); block < chunk_begin(stream, chunk + 1); block++) {
        size_t begin = block * DDOQ_STREAM_ROWS;
        const struct ddoq_rows rows = ddoq_part(x, begin, ddoq_stream_rows_of(stream, block));
        if (ddoq_stopped(crew))
            return DDOQ_INTERRUPTED;
        for (size_t first = 0; first < x->d; first += DDOQ_DEPTH)
            ddoq_pack(&rows, stream->shift, first, ddoq_smaller(DDOQ_DEPTH, x->d - first),
                      ddoq_stream_chunk(stream, block, first));
        for (size_t i = 0; i < rows.n; i++) {
            double square = x->kernels->dist2(x->d, ddoq_features(&rows, i, 0, x->d, widened), stream->shift);
            /* so that |c|^2 / 2 - <x, c> does not overflow */
            if (!(square <= (x->kernels->item == sizeof(float) ? FLT_MAX : DBL_MAX) / 4))
                return DDOQ_NOT_FINITE;
            squares[0] += square;
            squares[1] += stream->w[begin + i] * square;
        }
    }
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

static enum ddoq_status prepare(struct ddoq_stream *stream)
{
    size_t d = stream->x.d, n = stream->x.n;
    enum ddoq_status status = ddoq_stream_phase(stream, CHUNKS, sum_task);
    if (status != DDOQ_OK)
        return status;
    for (size_t chunk = 1; chunk < CHUNKS; chunk++)
        for (size_t p = 0; p < d; p++)
            stream->chunk_sums[p] += stream->chunk_sums[chunk * d + p];
    stream->x.kernels->narrow(d, stream->chunk_sums, (double)n, stream->shift);
    status = ddoq_stream_phase(stream, CHUNKS, pack_task);
    stream->variance = stream->tie = 0;
    for (size_t chunk = 0; chunk < CHUNKS && status == DDOQ_OK; chunk++) {
        stream->variance += stream->chunk_squares[2 * chunk] / (double)n / (double)d;
        stream->tie += DDOQ_TIE * stream->chunk_squares[2 * chunk + 1];
    }
    return status;
}

static bool allocate(struct ddoq_stream *stream)
{
    struct ddoq_memory *memory = &stream->memory;
    size_t n = stream->x.n, k = stream->k, d = stream->x.d, item = stream->x.kernels->item;
    size_t padded = ddoq_padded(stream->x.kernels, k), trials = stream->n_trials;
    double **per_row[] = {&stream->w, &stream->dist2};
    int64_t **label_per_row[] = {&stream->cell, &stream->label, &stream->moved};
    for (size_t i = 0; i < sizeof per_row / sizeof *per_row; i++)
        *per_row[i] = ddoq_take(memory, n, 1, sizeof(double));
    for (size_t i = 0; i < sizeof label_per_row / sizeof *label_per_row; i++)
        *label_per_row[i] = ddoq_take(memory, n, 1, sizeof(int64_t));
    stream->shift = ddoq_take(memory, d, 1, item);
    stream->before = ddoq_take(memory, d, 1, item);
    stream->panels = ddoq_take(memory, stream->n_blocks * DDOQ_STREAM_ROWS, d, item);
    stream->chunk_sums = ddoq_take(memory, CHUNKS, d, sizeof(double));
    stream->chunk_squares = ddoq_take(memory, CHUNKS, 2, sizeof(double));
    stream->points = ddoq_take(memory, k, d, item);
    stream->centred = ddoq_take(memory, k, ddoq_stream_stride(stream), item);
    stream->half = ddoq_take(memory, padded, 1, item);
    stream->sums = ddoq_take(memory, k, d, sizeof(double));
    stream->mass = ddoq_take(memory, k, 1, sizeof(double));
    stream->heaviest = ddoq_take(memory, k, 1, sizeof(double));
    stream->count = ddoq_take(memory, k, 1, sizeof(int64_t));
    stream->n_moved = ddoq_take(memory, stream->n_tasks, 1, sizeof(size_t));
    if (stream->args->uniforms) {
        stream->norms = ddoq_take(memory, n, 1, sizeof(double));
        stream->cumulative = ddoq_take(memory, n, 1, sizeof(double));
        stream->closest = ddoq_take(memory, n, 1 + trials, sizeof(double));
        stream->trials = ddoq_take(memory, trials, 1, sizeof(double *));
        stream->potentials = ddoq_take(memory, stream->n_blocks, trials, sizeof(double));
        stream->candidates = ddoq_take(memory, trials, 1, sizeof(int64_t));
        stream->candidate_rows = ddoq_take(memory, trials, 1, sizeof(int64_t));
        stream->candidate_panels = ddoq_take(memory, ddoq_padded(stream->x.kernels, trials), d, item);
        stream->seeds = ddoq_take(memory, k, 1, sizeof(int64_t));
        for (size_t t = 0; t < trials && !memory->is_short; t++)
            stream->trials[t] = stream->closest + (t + 1) * n;
    }
    return !memory->is_short && k <= MAX_POINTS;
}

/* ---- restarts ---- */

/* First points. */
static enum ddoq_status start(struct ddoq_stream *stream, const double *uniforms, size_t first_point, size_t restart)
{
    const struct ddoq_quantize_args *args = stream->args;
    size_t k = stream->k, bytes = stream->x.d * stream->x.kernels->item;
    const int64_t *rows = stream->seeds;
    if (args->start_points) {
        memcpy(stream->points, (const char *)args->start_points + first_point * bytes, k * bytes);
        return DDOQ_OK;
    }
    if (args->start_rows) {
        rows = args->start_rows + first_point * args->n_init + restart * k;
    } else {
        enum ddoq_status status = ddoq_stream_seed(stream, uniforms + restart * ddoq_uniforms_of_start(k));
        if (status != DDOQ_OK)
            return status;
    }
    for (size_t j = 0; j < k; j++)
        memmove(stream->points + j * bytes, /* a row of halves is widened where it is to be */
                ddoq_features(&stream->x, (size_t)rows[j], 0, stream->x.d, stream->points + j * bytes), bytes);
    return DDOQ_OK;
}

/* Outputs of the class from label and dist2; distortion: weighted sum of dist2. */
static void write_result(struct ddoq_stream *stream, size_t class, double distortion, int64_t n_iter)
{
    const struct ddoq_quantize_args *args = stream->args;
    size_t first_point = (size_t)args->point_offsets[class], first_row = (size_t)args->row_offsets[class];
    size_t k = stream->k, bytes = stream->x.d * stream->x.kernels->item;
    double *weights = args->weights + first_point, total = 0;
    int64_t *counts = args->counts + first_point;
    memset(weights, 0, k * sizeof *weights);
    memset(counts, 0, k * sizeof *counts);
    for (size_t i = 0; i < stream->x.n; i++) {
        weights[stream->label[i]] += stream->w[i];
        counts[stream->label[i]]++;
        total += stream->w[i];
    }
    for (size_t j = 0; j < k; j++)
        weights[j] /= total;
    memcpy((char *)args->points + first_point * bytes, stream->points, k * bytes);
    memcpy(args->labels + first_row, stream->label, stream->x.n * sizeof *stream->label);
    args->distortion[class] = distortion / total;
    args->n_iter[class] = n_iter;
}

static enum ddoq_status fit(struct ddoq_stream *stream, size_t class, const double *uniforms)
{
    const struct ddoq_quantize_args *args = stream->args;
    double least = INFINITY;
    enum ddoq_status status = prepare(stream);
    for (size_t restart = 0; restart < (size_t)args->n_starts[class] && status == DDOQ_OK; restart++) {
        int64_t n_iter;
        double distortion = 0;
        status = start(stream, uniforms, (size_t)args->point_offsets[class], restart);
        if (status == DDOQ_OK)
            status = ddoq_stream_lloyd(stream, args->tol, args->max_iter, &n_iter);
        if (status == DDOQ_OK)
            status = ddoq_assign_run(&stream->run, &stream->x, stream->points, stream->k, stream->label, stream->dist2);
        if (status != DDOQ_OK)
            break;
        for (size_t i = 0; i < stream->x.n; i++)
            distortion += stream->w[i] * stream->dist2[i];
        if (restart > 0 && !(distortion < least - stream->tie))
            continue;
        least = distortion;
        write_result(stream, class, distortion, n_iter);
    }
    return status;
}

enum ddoq_status ddoq_stream_class(const struct ddoq_run *run, const struct ddoq_quantize_args *args, size_t class,
                                   const double *uniforms)
{
    size_t n = ddoq_class_size(args, class);
    struct ddoq_stream stream = {.caller = run, .run = *run, .args = args};
    stream.run.poll = (struct ddoq_poll){.call = poll_caller, .context = &stream};
    clock_gettime(CLOCK_MONOTONIC, &stream.last_poll);
    stream.x = ddoq_rows_of(run->isa, args->type, args->X, n, args->d);
    stream.x.index = args->rows + args->row_offsets[class];
    stream.k = ddoq_class_points(args, class);
    stream.n_trials = ddoq_seed_trials(stream.k);
    stream.n_blocks = (n + DDOQ_STREAM_ROWS - 1) / DDOQ_STREAM_ROWS;
    stream.task_blocks = (size_t)(TASK_PRODUCTS / DDOQ_STREAM_ROWS / (double)args->d / (double)stream.k) + 1;
    stream.n_tasks = (stream.n_blocks + stream.task_blocks - 1) / stream.task_blocks;
    enum ddoq_status status = DDOQ_NO_MEMORY;
    if (allocate(&stream)) {
        ddoq_read_weights(args, class, stream.w);
        status = fit(&stream, class, uniforms);
    }
    ddoq_release(&stream.memory);
    return status;
}
