/* The launcher of the fit: it enqueues on the stream and returns the launch's own error. Arrays of classes are on the
 * device. */
#ifndef DDOQ_CUDA_FIT_H
#define DDOQ_CUDA_FIT_H

#include <cuda_runtime_api.h>

#include "cuda/class.h"
#include "ddoq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Most bytes of a class's sums that go to shared memory: four blocks of a multiprocessor have room for theirs, and no
 * device needs to be asked for more than the 48 KB that all have. */
#define DDOQ_CUDA_SHARED_SUMS ((size_t)36 << 10)

/* All of the fit once gram is there: kept_cell, kept_label, weights, counts, list, begin, outcome. shared_bytes: the
 * most of those sums that are at most DDOQ_CUDA_SHARED_SUMS. */
cudaError_t ddoq_cuda_fit(const struct ddoq_cuda_class *classes, size_t n_classes, size_t shared_bytes,
                          cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
