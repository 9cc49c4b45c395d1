/* Quantisation of many classes on one device: the CUDA counterpart of ddoq_quantize_classes. */
#ifndef DDOQ_CUDA_QUANTIZE_H
#define DDOQ_CUDA_QUANTIZE_H

#include "cuda/class.h"
#include "cuda/device.h"
#include "ddoq.h"

struct ddoq_cuda_job {
    /* X is float32, float16 or bfloat16. Of the forms it only counts whether single-point moves follow: every class is
     * in Gram form. tol is not read. */
    const struct ddoq_quantize_args *args;
    int device;
    cudaStream_t stream;               /* what X and points on the device are ordered by */
    int x_on_device, points_on_device; /* whether args->X and args->points are */
    size_t memory;                     /* most bytes to take on the device; 0: as much as is free */
    struct ddoq_poll poll;
    uint8_t *problems; /* out (n_classes) of enum ddoq_cuda_problem: what keeps a class from its result */
};

/* 0, or -1 with the error. Needs cuBLAS to be loaded. Returns when all results are there; other calls, on the same
 * device or others, may run at the same time. */
int ddoq_cuda_quantize(const struct ddoq_cuda_job *job, struct ddoq_cuda_error *error);

#endif
