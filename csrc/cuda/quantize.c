/* Quantisation of many classes on a device, a wave of them at a time: samples from the host are copied while the wave
 * before is at work; then a product a class, one launch for the fits of all, one for the points. The host waits for a
 * wave's end alone. Classes whose halves have a mean too far out for products in float go once more, centred. */
#include "cuda/quantize.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "classes.h"
#include "cuda/fit.h"
#include "cuda/rows.h"
#include "cuda/session.h"

struct call {
    const struct ddoq_cuda_job *job;
    struct ddoq_cuda_session session;
    struct ddoq_cuda_class *laid; /* of a wave, in its order */
    size_t *order, *uniforms, *again;
    size_t n_again, done;
    struct timespec polled;
};

/* ---- inputs of a wave ---- */

/* What lies on the host for a pointer into a region. */
static void *on_host(const struct ddoq_cuda_region *region, const void *device)
{
    return region->host + ((uintptr_t)device - region->device);
}

static void fill_in(const struct call *call, const struct ddoq_cuda_region *up, size_t class,
                    const struct ddoq_cuda_class *laid, bool shared)
{
    const struct ddoq_quantize_args *args = call->job->args;
    size_t n = (size_t)laid->n, k = (size_t)laid->k, first_point = (size_t)args->point_offsets[class];
    size_t n_init = (size_t)laid->n_init, n_uniforms = n_init * ddoq_uniforms_of_start(k);
    if (!shared) {
        ddoq_read_weights(args, class, on_host(up, laid->w));
        if (laid->index)
            memcpy(on_host(up, laid->index), args->rows + args->row_offsets[class], n * sizeof *args->rows);
    }
    if (laid->uniforms)
        memcpy(on_host(up, laid->uniforms), args->uniforms + call->uniforms[class],
               n_uniforms * sizeof *args->uniforms);
    if (laid->start_rows)
        memcpy(on_host(up, laid->start_rows), args->start_rows + first_point * args->n_init,
               n_init * k * sizeof *args->start_rows);
    if (laid->start_points)
        memcpy(on_host(up, laid->start_points), (const float *)args->start_points + first_point * args->d,
               k * args->d * sizeof(float));
}

static bool is_shared(const struct ddoq_cuda_class *laid, size_t i)
{
    return i > 0 && laid[i].gram == laid[i - 1].gram;
}

static int larger_first(const void *a_, const void *b_)
{
    const struct ddoq_cuda_class *a = a_, *b = b_;
    double of_a = (double)a->n * a->k, of_b = (double)b->n * b->k;
    return (of_a < of_b) - (of_a > of_b);
}

/* Lays the classes of a wave out and fills in what goes up: they themselves first, the most work in front. */
static struct ddoq_cuda_regions prepare(struct call *call, const struct ddoq_cuda_plan *plan,
                                        const struct ddoq_cuda_wave *wave, int slot)
{
    struct ddoq_cuda_regions regions = call->session.regions[slot];
    const size_t *order = plan->order + wave->first;
    struct ddoq_cuda_class *classes = (struct ddoq_cuda_class *)regions.up.host;
    regions.up.used = (wave->count * sizeof *classes + 255) / 256 * 256;
    for (size_t i = 0; i < wave->count; i++) {
        bool same = i > 0 && order[i] == order[i - 1] + 1 && ddoq_same_rows(call->job->args, order[i]);
        ddoq_cuda_lay_out(plan, order[i], same ? &call->laid[i - 1] : NULL, &regions, &call->laid[i]);
        fill_in(call, &regions.up, order[i], &call->laid[i], same);
    }
    memcpy(classes, call->laid, wave->count * sizeof *classes);
    qsort(classes, wave->count, sizeof *classes, larger_first);
    return regions;
}

/* ---- samples from the host ---- */

/* Copies some rows of the data side by side. */
static void collect_rows(const struct ddoq_quantize_args *args, const int64_t *rows, size_t count, char *out)
{
    size_t bytes = args->d * ddoq_cuda_item(args->type);
    for (size_t i = 0, run; i < count; i += run) {
        for (run = 1; i + run < count && rows[i + run] == rows[i] + (int64_t)run;)
            run++;
        memcpy(out + i * bytes, (const char *)args->X + (size_t)rows[i] * bytes, run * bytes);
    }
}

/* Enqueues the copy of a wave's samples to its slot. */
static int stage(struct call *call, const struct ddoq_cuda_plan *plan, const struct ddoq_cuda_wave *wave, int slot,
                 struct ddoq_cuda_error *error)
{
    const struct ddoq_quantize_args *args = call->job->args;
    struct ddoq_cuda_session *session = &call->session;
    struct ddoq_cuda_regions regions = session->regions[slot];
    struct ddoq_cuda_class laid = {0}, before;
    size_t bytes = args->d * ddoq_cuda_item(args->type), most = session->staging_bytes / bytes, piece = 0;
    for (size_t at = wave->first; at < wave->first + wave->count; at++) {
        size_t class = plan->order[at];
        bool same = at > wave->first && class == plan->order[at - 1] + 1 && ddoq_same_rows(args, class);
        before = laid;
        ddoq_cuda_lay_out(plan, class, same ? &before : NULL, &regions, &laid);
        for (size_t i = 0, count; i < (size_t)laid.n && !same; i += count, piece++) {
            int buffer = (int)(piece % DDOQ_CUDA_SLOTS);
            count = (size_t)laid.n - i < most ? (size_t)laid.n - i : most;
            DDOQ_CUDA_TRY(cudaEventSynchronize(session->staged[buffer]));
            collect_rows(args, args->rows + args->row_offsets[class] + i, count, session->staging[buffer]);
            DDOQ_CUDA_TRY(cudaMemcpyAsync((char *)laid.rows + i * bytes, session->staging[buffer], count * bytes,
                                          cudaMemcpyHostToDevice, session->copies));
            DDOQ_CUDA_TRY(cudaEventRecord(session->staged[buffer], session->copies));
        }
    }
    DDOQ_CUDA_TRY(cudaEventRecord(session->copied[slot], session->copies));
    return 0;
cleanup:
    return -1;
}

/* ---- the work ---- */

static int multiply_all(struct call *call, const struct ddoq_cuda_plan *plan, size_t count,
                        struct ddoq_cuda_error *error)
{
    struct ddoq_cuda_session *session = &call->session;
    const struct ddoq_quantize_args *args = call->job->args;
    enum ddoq_type type = plan->centred ? DDOQ_FLOAT32 : args->type;
    DDOQ_CUDA_TRY(cudaEventRecord(session->fork, session->stream));
    for (int i = 0; i < DDOQ_CUDA_STREAMS; i++)
        DDOQ_CUDA_TRY(cudaStreamWaitEvent(session->products[i], session->fork, 0));
    for (size_t i = 0; i < count; i++)
        if (!is_shared(call->laid, i) && ddoq_cuda_multiply(session, &call->laid[i], i, args->d, type, error))
            return -1;
    for (int i = 0; i < DDOQ_CUDA_STREAMS; i++) {
        DDOQ_CUDA_TRY(cudaEventRecord(session->join[i], session->products[i]));
        DDOQ_CUDA_TRY(cudaStreamWaitEvent(session->stream, session->join[i], 0));
    }
    return 0;
cleanup:
    return -1;
}

/* Enqueues all of a wave. */
static int enqueue(struct call *call, const struct ddoq_cuda_plan *plan, const struct ddoq_cuda_wave *wave,
                   const struct ddoq_cuda_regions *regions, int slot, struct ddoq_cuda_error *error)
{
    const struct ddoq_quantize_args *args = call->job->args;
    cudaStream_t stream = call->session.stream;
    const struct ddoq_cuda_class *classes = (const struct ddoq_cuda_class *)regions->up.device;
    size_t count = wave->count, d = args->d, shared_bytes = 0, rows = 0;
    bool gathers = false;
    for (size_t i = 0; i < count; i++) {
        size_t bytes = (size_t)call->laid[i].n * (size_t)call->laid[i].k * sizeof(double);
        shared_bytes = bytes > shared_bytes && bytes <= DDOQ_CUDA_SHARED_SUMS ? bytes : shared_bytes;
        rows = (size_t)call->laid[i].n > rows ? (size_t)call->laid[i].n : rows;
        gathers |= call->laid[i].panel != NULL;
    }
    DDOQ_CUDA_TRY(cudaMemcpyAsync((void *)regions->up.device, regions->up.host, regions->up.used,
                                  cudaMemcpyHostToDevice, stream));
    DDOQ_CUDA_TRY(cudaMemsetAsync((void *)regions->down.device, 0, regions->down.used, stream)); /* gaps, failures */
    if (!call->job->x_on_device)
        DDOQ_CUDA_TRY(cudaStreamWaitEvent(stream, call->session.copied[slot], 0));
    if (plan->centred)
        DDOQ_CUDA_TRY(ddoq_cuda_centre(classes, count, d, args->type, stream));
    else if (gathers)
        DDOQ_CUDA_TRY(ddoq_cuda_gather(classes, count, args->X, d * ddoq_cuda_item(args->type), stream));
    if (multiply_all(call, plan, count, error))
        return -1;
    if (args->start_points)
        DDOQ_CUDA_TRY(ddoq_cuda_assign(classes, count, rows, d, args->type, stream));
    DDOQ_CUDA_TRY(ddoq_cuda_fit(classes, count, shared_bytes, stream));
    DDOQ_CUDA_TRY(ddoq_cuda_points(classes, count, d, args->type, stream));
    DDOQ_CUDA_TRY(cudaMemcpyAsync(regions->down.host, (const void *)regions->down.device, regions->down.used,
                                  cudaMemcpyDeviceToHost, stream));
    DDOQ_CUDA_TRY(cudaEventRecord(call->session.finished, stream));
    return 0;
cleanup:
    return -1;
}

static long nanoseconds_from(const struct timespec *start, const struct timespec *now)
{
    return (now->tv_sec - start->tv_sec) * 1000000000L + (now->tv_nsec - start->tv_nsec);
}

/* Polls, unless that was done a moment ago, in this wave or one before it. */
static int poll_if_due(struct call *call, struct ddoq_cuda_error *error)
{
    const struct ddoq_poll *poll = &call->job->poll;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (nanoseconds_from(&call->polled, &now) < DDOQ_POLL_NANOSECONDS)
        return 0;
    call->polled = now;
    if (!poll->call || !poll->call(poll->context, call->done))
        return 0;
    error->status = DDOQ_CUDA_INTERRUPTED;
    return -1;
}

/* Waits for the wave, and polls meanwhile. */
static int wait_for(struct call *call, struct ddoq_cuda_error *error)
{
    struct timespec start, now, nap = {.tv_nsec = 50000};
    cudaError_t code;
    clock_gettime(CLOCK_MONOTONIC, &start);
    while ((code = cudaEventQuery(call->session.finished)) == cudaErrorNotReady) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (nanoseconds_from(&start, &now) < 1000000)
            sched_yield();
        else
            nanosleep(&nap, NULL);
        if (poll_if_due(call, error))
            return -1;
    }
    DDOQ_CUDA_TRY(code);
    return 0;
cleanup:
    return -1;
}

/* ---- results of a wave ---- */

static void write_result(const struct call *call, const struct ddoq_cuda_region *down, size_t class,
                         const struct ddoq_cuda_class *laid)
{
    const struct ddoq_quantize_args *args = call->job->args;
    const int32_t *label = on_host(down, laid->kept_label), *counts = on_host(down, laid->counts);
    const double *partial = on_host(down, laid->partial), *weights = on_host(down, laid->weights);
    const double *w = on_host(&call->session.regions[0].up, laid->w);
    size_t first_row = (size_t)args->row_offsets[class], first_point = (size_t)args->point_offsets[class];
    double total = 0, distortion = 0;
    for (int32_t i = 0; i < laid->n; i++) {
        args->labels[first_row + (size_t)i] = label[i];
        total += w[i];
    }
    for (int32_t j = 0; j < laid->k; j++) {
        args->weights[first_point + (size_t)j] = weights[j];
        args->counts[first_point + (size_t)j] = counts[j];
    }
    for (size_t chunk = 0; chunk < ddoq_cuda_chunks(args->d); chunk++)
        distortion += partial[chunk];
    args->distortion[class] = distortion / total;
    args->n_iter[class] = ((const struct ddoq_cuda_outcome *)on_host(down, laid->outcome))->n_iter;
}

static int collect(struct call *call, const struct ddoq_cuda_plan *plan, const struct ddoq_cuda_wave *wave,
                   const struct ddoq_cuda_regions *regions, struct ddoq_cuda_error *error)
{
    const struct ddoq_quantize_args *args = call->job->args;
    for (size_t i = 0; i < wave->count; i++) {
        const struct ddoq_cuda_class *laid = &call->laid[i];
        size_t class = plan->order[wave->first + i], first_point = (size_t)args->point_offsets[class];
        int32_t problem = ((const struct ddoq_cuda_outcome *)on_host(&regions->down, laid->outcome))->problem;
        call->job->problems[class] = (uint8_t)problem;
        if (problem == DDOQ_CUDA_FAR_MEAN)
            call->again[call->n_again++] = class;
        else
            call->done++;
        if (problem != DDOQ_CUDA_FINE)
            continue;
        write_result(call, &regions->down, class, laid);
        if (!call->job->points_on_device)
            DDOQ_CUDA_TRY(cudaMemcpyAsync((float *)args->points + first_point * args->d, laid->points,
                                          (size_t)laid->k * args->d * sizeof(float), cudaMemcpyDeviceToHost,
                                          call->session.stream));
    }
    DDOQ_CUDA_TRY(cudaStreamSynchronize(call->session.stream));
    return 0;
cleanup:
    return -1;
}

/* ---- all waves ---- */

static int run_plan(struct call *call, const struct ddoq_cuda_plan *plan, struct ddoq_cuda_error *error)
{
    size_t limit = call->job->memory;
    bool stages = !call->job->x_on_device;
    if (ddoq_cuda_reserve(&call->session, plan, &limit, error))
        return -1;
    struct ddoq_cuda_wave wave = ddoq_cuda_wave_from(plan, 0, limit), next;
    if (stages && stage(call, plan, &wave, 0, error))
        return -1;
    for (int slot = 0; wave.count > 0; slot = 1 - slot, wave = next) {
        struct ddoq_cuda_regions regions = prepare(call, plan, &wave, slot);
        next = ddoq_cuda_wave_from(plan, wave.first + wave.count, limit);
        if (enqueue(call, plan, &wave, &regions, slot, error))
            return -1;
        if (stages && next.count > 0 && stage(call, plan, &next, 1 - slot, error))
            return -1;
        if (wait_for(call, error) || collect(call, plan, &wave, &regions, error) || poll_if_due(call, error))
            return -1;
    }
    return 0;
}

static bool allocate(struct call *call)
{
    size_t n = call->job->args->n_classes ? call->job->args->n_classes : 1;
    call->laid = calloc(n, sizeof *call->laid);
    call->order = calloc(n, sizeof *call->order);
    call->uniforms = calloc(n, sizeof *call->uniforms);
    call->again = calloc(n, sizeof *call->again);
    return call->laid && call->order && call->uniforms && call->again;
}

int ddoq_cuda_quantize(const struct ddoq_cuda_job *job, struct ddoq_cuda_error *error)
{
    const struct ddoq_quantize_args *args = job->args;
    struct call call = {.job = job};
    size_t next = 0;
    int failed = -1;
    call.session.previous_device = -1;
    clock_gettime(CLOCK_MONOTONIC, &call.polled);
    if (!allocate(&call)) {
        error->status = DDOQ_CUDA_NO_MEMORY;
        snprintf(error->text, sizeof error->text, "not enough memory");
        goto cleanup;
    }
    for (size_t c = 0; c < args->n_classes; c++) {
        call.order[c] = c;
        call.uniforms[c] = next;
        next += args->n_init * ddoq_uniforms_of_start(ddoq_class_points(args, c));
    }
    if (ddoq_cuda_open(&call.session, job, error))
        goto cleanup;
    struct ddoq_cuda_plan plan = {.job = job, .order = call.order, .n = args->n_classes};
    plan.centred = args->type == DDOQ_FLOAT32;
    failed = run_plan(&call, &plan, error);
    if (!failed && call.n_again > 0) {
        struct ddoq_cuda_plan centred = {.job = job, .centred = true, .order = call.again, .n = call.n_again};
        failed = run_plan(&call, &centred, error);
    }
cleanup:
    ddoq_cuda_close(&call.session);
    free(call.laid);
    free(call.order);
    free(call.uniforms);
    free(call.again);
    return failed;
}
