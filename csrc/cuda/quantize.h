/* Quantisation of many classes on one device: the CUDA counterpart of ddoq_quantize_classes. */
#ifndef DDOQ_CUDA_QUANTIZE_H
#define DDOQ_CUDA_QUANTIZE_H

#include "cuda/device.h"
#include "cuda/job.h"

/* 0, or -1 with the error. Needs cuBLAS to be loaded. Returns when all results are there; other calls, on the same
 * device or others, may run at the same time. */
int ddoq_cuda_quantize(const struct ddoq_cuda_job *job, struct ddoq_cuda_error *error);

#endif
