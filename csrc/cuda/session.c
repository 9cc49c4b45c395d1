/* Opening and closing, memory, products. */
#include "cuda/session.h"

#include <stdio.h>
#include <string.h>

#include "classes.h"

#define WORKSPACE ((size_t)32 << 20) /* of a stream: what cuBLAS asks for on the largest devices */
#define STAGING ((size_t)16 << 20)   /* of a buffer: so much that what it takes to start a copy does not count */
#define SHARE_OF_FREE 0.9            /* the rest is for what the driver takes beside it */

int ddoq_cuda_open(struct ddoq_cuda_session *session, const struct ddoq_cuda_job *job, struct ddoq_cuda_error *error)
{
    session->previous_device = -1;
    DDOQ_CUDA_TRY(cudaGetDevice(&session->previous_device));
    DDOQ_CUDA_TRY(cudaSetDevice(job->device));
    session->device = job->device;
    session->stream = job->stream;
    if (!job->x_on_device && !job->points_on_device) {
        DDOQ_CUDA_TRY(cudaStreamCreateWithFlags(&session->stream, cudaStreamNonBlocking));
        session->owns_stream = true;
    }
    DDOQ_CUDA_TRY(cudaStreamCreateWithFlags(&session->copies, cudaStreamNonBlocking));
    for (int i = 0; i < DDOQ_CUDA_STREAMS; i++) {
        DDOQ_CUDA_TRY(cudaStreamCreateWithFlags(&session->products[i], cudaStreamNonBlocking));
        DDOQ_CUDA_TRY(cudaEventCreateWithFlags(&session->join[i], cudaEventDisableTiming));
    }
    for (int i = 0; i < DDOQ_CUDA_SLOTS; i++) {
        DDOQ_CUDA_TRY(cudaEventCreateWithFlags(&session->copied[i], cudaEventDisableTiming));
        DDOQ_CUDA_TRY(cudaEventCreateWithFlags(&session->staged[i], cudaEventDisableTiming));
    }
    DDOQ_CUDA_TRY(cudaEventCreateWithFlags(&session->fork, cudaEventDisableTiming));
    DDOQ_CUDA_TRY(cudaEventCreateWithFlags(&session->finished, cudaEventDisableTiming));
    if (!job->x_on_device) {
        size_t row = job->args->d * ddoq_cuda_item(job->args->type);
        session->staging_bytes = row > STAGING ? row : STAGING;
        for (int i = 0; i < DDOQ_CUDA_SLOTS; i++)
            DDOQ_CUDA_TRY(cudaMallocHost((void **)&session->staging[i], session->staging_bytes));
    }
    session->blas = ddoq_cublas_loaded();
    if (!session->blas) {
        error->status = DDOQ_CUDA_NO_LIBRARY;
        snprintf(error->text, sizeof error->text, "cuBLAS is not loaded");
        return -1;
    }
    DDOQ_CUBLAS_TRY(session->blas->create(&session->handle));
    return 0;
cleanup:
    return -1;
}

static void give_memory_back(struct ddoq_cuda_session *session)
{
    cudaFree(session->memory);
    cudaFreeHost(session->up);
    cudaFreeHost(session->down);
    session->memory = session->up = session->down = NULL;
}

void ddoq_cuda_close(struct ddoq_cuda_session *session)
{
    if (session->stream || session->owns_stream || session->memory)
        cudaStreamSynchronize(session->stream);
    if (session->copies)
        cudaStreamSynchronize(session->copies);
    for (int i = 0; i < DDOQ_CUDA_STREAMS; i++) /* after a failure nothing else has waited for the products */
        if (session->products[i])
            cudaStreamSynchronize(session->products[i]);
    if (session->handle)
        session->blas->destroy(session->handle);
    give_memory_back(session);
    for (int i = 0; i < DDOQ_CUDA_STREAMS; i++) {
        if (session->products[i])
            cudaStreamDestroy(session->products[i]);
        if (session->join[i])
            cudaEventDestroy(session->join[i]);
    }
    for (int i = 0; i < DDOQ_CUDA_SLOTS; i++) {
        cudaFreeHost(session->staging[i]);
        if (session->copied[i])
            cudaEventDestroy(session->copied[i]);
        if (session->staged[i])
            cudaEventDestroy(session->staged[i]);
    }
    if (session->fork)
        cudaEventDestroy(session->fork);
    if (session->finished)
        cudaEventDestroy(session->finished);
    if (session->copies)
        cudaStreamDestroy(session->copies);
    if (session->owns_stream)
        cudaStreamDestroy(session->stream);
    if (session->previous_device >= 0)
        cudaSetDevice(session->previous_device);
    cudaGetLastError(); /* what failed has been told */
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The most that the waves of a plan use of each region; *alone: a class by itself that is more than the limit, or n. */
static struct ddoq_cuda_regions measure(const struct ddoq_cuda_plan *plan, size_t limit, size_t *alone)
{
    struct ddoq_cuda_regions most = {0};
    *alone = plan->n;
    for (size_t first = 0; first < plan->n;) {
        struct ddoq_cuda_wave wave = ddoq_cuda_wave_from(plan, first, limit);
        if (ddoq_cuda_bytes(&wave.size) > limit && *alone == plan->n)
            *alone = first;
        most.up.used = larger(most.up.used, wave.size.up.used);
        most.down.used = larger(most.down.used, wave.size.down.used);
        most.work.used = larger(most.work.used, wave.size.work.used);
        most.rows.used = larger(most.rows.used, wave.size.rows.used);
        first += wave.count;
    }
    return most;
}

static int too_large(const struct ddoq_cuda_plan *plan, size_t class, size_t limit, struct ddoq_cuda_error *error)
{
    const struct ddoq_quantize_args *args = plan->job->args;
    struct ddoq_cuda_plan alone = {.job = plan->job, .centred = plan->centred, .order = &class, .n = 1};
    struct ddoq_cuda_wave wave = ddoq_cuda_wave_from(&alone, 0, SIZE_MAX);
    error->status = DDOQ_CUDA_NO_MEMORY;
    snprintf(error->text, sizeof error->text,
             "quantising the %lld samples of class %zu takes %.2f GiB of the GPU (it grows with the square of their "
             "number), and %.2f GiB are free: use fewer samples, device=\"cpu\", or free memory of the GPU "
             "(torch.cuda.empty_cache())",
             (long long)ddoq_class_size(args, class), class, (double)ddoq_cuda_bytes(&wave.size) / (1 << 30),
             (double)limit / (1 << 30));
    return -1;
}

/* Shares the memory out: workspaces, then the regions. */
static void share_out(struct ddoq_cuda_session *session, const struct ddoq_cuda_regions *most)
{
    session->workspace = session->memory;
    uintptr_t next = (uintptr_t)session->memory + DDOQ_CUDA_STREAMS * WORKSPACE;
    for (int i = 0; i < DDOQ_CUDA_SLOTS; i++) {
        session->regions[i] = (struct ddoq_cuda_regions){
            .up = {.device = next, .host = session->up},
            .down = {.device = next + most->up.used, .host = session->down},
            .work = {.device = next + most->up.used + most->down.used},
            .rows = {.device = next + most->up.used + most->down.used + most->work.used + (size_t)i * most->rows.used},
        };
    }
}

int ddoq_cuda_reserve(struct ddoq_cuda_session *session, const struct ddoq_cuda_plan *plan, size_t *limit,
                      struct ddoq_cuda_error *error)
{
    size_t spare = DDOQ_CUDA_STREAMS * WORKSPACE, free_bytes, total, alone;
    give_memory_back(session);
    DDOQ_CUDA_TRY(cudaMemGetInfo(&free_bytes, &total));
    free_bytes = (size_t)((double)free_bytes * SHARE_OF_FREE);
    free_bytes = free_bytes > spare ? free_bytes - spare : 0;
    if (*limit == 0 || *limit > free_bytes)
        *limit = free_bytes;
    for (;;) {
        struct ddoq_cuda_regions most = measure(plan, *limit, &alone);
        if (alone < plan->n)
            return too_large(plan, plan->order[alone], *limit, error);
        size_t bytes = ddoq_cuda_bytes(&most);
        cudaError_t code = cudaMalloc((void **)&session->memory, spare + bytes);
        if (code == cudaErrorMemoryAllocation) { /* another process, or pieces too small: smaller waves */
            cudaGetLastError();
            *limit = (bytes < *limit ? bytes : *limit) / 2;
            continue;
        }
        DDOQ_CUDA_TRY(code);
        DDOQ_CUDA_TRY(cudaMallocHost((void **)&session->up, most.up.used));
        DDOQ_CUDA_TRY(cudaMallocHost((void **)&session->down, most.down.used));
        share_out(session, &most);
        return 0;
    }
cleanup:
    return -1;
}

int ddoq_cuda_multiply(struct ddoq_cuda_session *session, const struct ddoq_cuda_class *class, size_t at, size_t d,
                       enum ddoq_type type, struct ddoq_cuda_error *error)
{
    const float one = 1, zero = 0;
    size_t i = at % DDOQ_CUDA_STREAMS;
    int n = class->n, m = (int)d;
    const void *panel = class->panel ? class->panel : class->rows;
    cudaDataType of = type == DDOQ_FLOAT32 ? CUDA_R_32F : type == DDOQ_FLOAT16 ? CUDA_R_16F : CUDA_R_16BF;
    DDOQ_CUBLAS_TRY(session->blas->set_stream(session->handle, session->products[i]));
    DDOQ_CUBLAS_TRY(session->blas->set_workspace(session->handle, session->workspace + i * WORKSPACE, WORKSPACE));
    /* row-major rows (n, d) are column-major (d, n) */
    DDOQ_CUBLAS_TRY(session->blas->gemm(session->handle, DDOQ_CUBLAS_OP_T, DDOQ_CUBLAS_OP_N, n, n, m, &one, panel, of,
                                        m, panel, of, m, &zero, class->gram, CUDA_R_32F, (int)class->stride,
                                        DDOQ_CUBLAS_COMPUTE_32F, DDOQ_CUBLAS_GEMM_DEFAULT));
    return 0;
cleanup:
    return -1;
}
