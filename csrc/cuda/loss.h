/* The weighted loss and its gradient by the logits on a CUDA device, in one launch. */
#ifndef DDOQ_CUDA_LOSS_H
#define DDOQ_CUDA_LOSS_H

#include "cuda/device.h"
#include "cuda/loss_args.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Puts the launch into the stream, and does not wait for it; 0, or -1 with *error filled. A row whose weight, class
 * index or probabilities break a rule has NaN as its loss and gradient: to raise an error would be to wait. */
int ddoq_cuda_weighted_loss(const struct ddoq_cuda_loss_args *args, int device, cudaStream_t stream,
                            struct ddoq_cuda_error *error);

#ifdef __cplusplus
}
#endif

#endif
