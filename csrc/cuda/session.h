/* What one call of the quantiser holds on its device: streams, events, cuBLAS's handle and memory. */
#ifndef DDOQ_CUDA_SESSION_H
#define DDOQ_CUDA_SESSION_H

#include "cuda/cublas.h"
#include "cuda/layout.h"

/* Products of classes run side by side: one of 1,300 samples has fewer tiles than a large device has multiprocessors.
 * cuBLAS could do many of a size at once, but picks its algorithm by their number, and bits would depend on the waves,
 * that is on free memory. */
enum { DDOQ_CUDA_STREAMS = 4, DDOQ_CUDA_SLOTS = 2 };

struct ddoq_cuda_session {
    int device, previous_device;
    cudaStream_t stream, copies, products[DDOQ_CUDA_STREAMS];
    bool owns_stream;
    cudaEvent_t fork, join[DDOQ_CUDA_STREAMS], finished;
    cudaEvent_t copied[DDOQ_CUDA_SLOTS], staged[DDOQ_CUDA_SLOTS]; /* a wave's samples; a staging buffer */
    const struct ddoq_cublas *blas;
    ddoq_cublas_handle handle;
    char *memory;                   /* of the device: workspaces, and the regions of a wave */
    char *workspace;                /* (DDOQ_CUDA_STREAMS) */
    char *up, *down;                /* pinned */
    char *staging[DDOQ_CUDA_SLOTS]; /* pinned */
    size_t staging_bytes;
    struct ddoq_cuda_regions regions[DDOQ_CUDA_SLOTS]; /* empty; they differ in rows alone */
};

/* Opens streams, events and cuBLAS on the job's device, which becomes the thread's; 0, or -1 with the error. */
int ddoq_cuda_open(struct ddoq_cuda_session *session, const struct ddoq_cuda_job *job, struct ddoq_cuda_error *error);

/* Memory for the waves of a plan, none of which takes more than *limit, which falls where the device has less; 0 means
 * what is free. */
int ddoq_cuda_reserve(struct ddoq_cuda_session *session, const struct ddoq_cuda_plan *plan, size_t *limit,
                      struct ddoq_cuda_error *error);

/* Waits for all work and gives everything back; also what is half open. */
void ddoq_cuda_close(struct ddoq_cuda_session *session);

/* Enqueues gram = panel panel^T of a class, on one of the streams of products. */
int ddoq_cuda_multiply(struct ddoq_cuda_session *session, const struct ddoq_cuda_class *class, size_t at, size_t d,
                       enum ddoq_type type, struct ddoq_cuda_error *error);

#endif
