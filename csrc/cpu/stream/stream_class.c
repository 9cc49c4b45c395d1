/* One class in streaming form: pack, then n_starts times seed and iterate; the restart of the lowest distortion is
 * kept, the first on ties. What a caller sees is computed from the data: points are the means of the cells, summed in
 * double, labels and distances are those of direct distances (assign.c). */
#include "cpu/stream/stream_class.h"

#include <math.h>
#include <string.h>

#include "classes.h"
#include "cpu/assign.h"
#include "cpu/cells.h"
#include "cpu/stream/stream.h"
#include "cpu/stream/stream_lloyd.h"
#include "cpu/stream/stream_seed.h"

#define TASK_PRODUCTS 4e6 /* of one task of an assignment, in multiply-adds: some 0.1 ms */

static int poll_caller(void *context, size_t done)
{
    (void)done; /* tasks of a phase; the caller counts classes */
    struct ddoq_stream *stream = context;
    const struct ddoq_poll *poll = &stream->caller->poll;
    clock_gettime(CLOCK_MONOTONIC, &stream->last_poll);
    return poll->call ? poll->call(poll->context, 0) : 0;
}

/* Writes the first points of a restart. */
static enum ddoq_status start(struct ddoq_stream *stream, size_t c, const double *uniforms, size_t restart)
{
    const struct ddoq_quantize_args *args = stream->args;
    size_t k = stream->k, bytes = stream->x.d * stream->x.kernels->item, first_point = (size_t)args->point_offsets[c];
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

/* The best restart so far becomes the class's result. */
static void write_result(const struct ddoq_stream *stream, size_t c, int64_t n_iter)
{
    const struct ddoq_quantize_args *args = stream->args;
    size_t bytes = stream->x.d * stream->x.kernels->item;
    ddoq_write_cells(args, c, stream->label, stream->w, stream->dist2);
    memcpy((char *)args->points + (size_t)args->point_offsets[c] * bytes, stream->points, stream->k * bytes);
    args->n_iter[c] = n_iter;
}

static enum ddoq_status run_restarts(struct ddoq_stream *stream, size_t c, const double *uniforms)
{
    const struct ddoq_quantize_args *args = stream->args;
    double least = INFINITY;
    for (size_t restart = 0; restart < (size_t)args->n_starts[c]; restart++) {
        int64_t n_iter;
        enum ddoq_status status = start(stream, c, uniforms, restart);
        if (status == DDOQ_OK)
            status = ddoq_stream_lloyd(stream, args->tol, args->max_iter, &n_iter);
        if (status == DDOQ_OK)
            status = ddoq_assign_run(&stream->run, &stream->x, stream->points, stream->k, stream->label, stream->dist2);
        if (status != DDOQ_OK)
            return status;
        double sum = ddoq_sum_of_squares(stream->x.n, stream->w, stream->dist2);
        if (restart > 0 && !(sum < least - stream->tie))
            continue;
        least = sum;
        write_result(stream, c, n_iter);
    }
    return DDOQ_OK;
}

enum ddoq_status ddoq_stream_class(const struct ddoq_run *run, const struct ddoq_quantize_args *args, size_t c,
                                   const double *uniforms)
{
    size_t n = ddoq_class_size(args, c);
    struct ddoq_stream stream = {.caller = run, .run = *run, .args = args, .k = ddoq_class_points(args, c)};
    stream.run.poll = (struct ddoq_poll){.call = poll_caller, .context = &stream};
    clock_gettime(CLOCK_MONOTONIC, &stream.last_poll);
    stream.x = ddoq_rows_of(run->isa, args->type, args->X, n, args->d);
    stream.x.index = args->rows + args->row_offsets[c];
    stream.n_trials = args->uniforms ? ddoq_seed_trials(stream.k) : 0;
    stream.n_blocks = ddoq_stream_blocks(n);
    stream.task_blocks = (size_t)(TASK_PRODUCTS / DDOQ_STREAM_ROWS / (double)args->d / (double)stream.k) + 1;
    stream.n_tasks = (stream.n_blocks + stream.task_blocks - 1) / stream.task_blocks;
    enum ddoq_status status = DDOQ_NO_MEMORY;
    if (ddoq_stream_allocate(&stream)) {
        ddoq_read_weights(args, c, stream.w);
        status = ddoq_stream_prepare(&stream);
    }
    if (status == DDOQ_OK)
        status = run_restarts(&stream, c, uniforms);
    ddoq_release(&stream.memory);
    return status;
}
