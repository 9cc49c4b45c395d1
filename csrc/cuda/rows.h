/* Launchers of the passes over the samples: each enqueues on the stream and returns the launch's own error. Arrays of
 * classes are on the device. */
#ifndef DDOQ_CUDA_ROWS_H
#define DDOQ_CUDA_ROWS_H

#include <cuda_runtime_api.h>

#include "cuda/class.h"
#include "ddoq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Features of one block of a pass over the samples: one for each of its threads. */
#define DDOQ_CUDA_FEATURES 256

static inline size_t ddoq_cuda_chunks(size_t d)
{
    return (d + DDOQ_CUDA_FEATURES - 1) / DDOQ_CUDA_FEATURES;
}

/* panel, where there is one, = the rows of x, of so many bytes each, one after the other, as they are. */
cudaError_t ddoq_cuda_gather(const struct ddoq_cuda_class *classes, size_t n_classes, const void *x, size_t bytes,
                             cudaStream_t stream);

/* panel, where there is one, = the rows less their weighted mean, in float. */
cudaError_t ddoq_cuda_centre(const struct ddoq_cuda_class *classes, size_t n_classes, size_t d, enum ddoq_type type,
                             cudaStream_t stream);

/* label and dist2 = assignment to start_points, by coordinates; rows is the most of a class. */
cudaError_t ddoq_cuda_assign(const struct ddoq_cuda_class *classes, size_t n_classes, size_t rows, size_t d,
                             enum ddoq_type type, cudaStream_t stream);

/* points and partial of the classes whose outcome is fine. */
cudaError_t ddoq_cuda_points(const struct ddoq_cuda_class *classes, size_t n_classes, size_t d, enum ddoq_type type,
                             cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
