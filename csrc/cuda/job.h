/* What a call of the quantiser on a device is asked for. */
#ifndef DDOQ_CUDA_JOB_H
#define DDOQ_CUDA_JOB_H

#include <cuda_runtime_api.h>

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

#endif
