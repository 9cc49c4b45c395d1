/* What a call of the weighted loss on a device is asked for, and its limits. */
#ifndef DDOQ_CUDA_LOSS_ARGS_H
#define DDOQ_CUDA_LOSS_ARGS_H

#include "ddoq.h"

/* Rows are summed in at most so many parts, by the number of rows alone: the bits are the same on every device. */
#define DDOQ_CUDA_LOSS_PARTS 16384
/* One counter of the blocks that are done, which every launch leaves at 0, and the parts. */
#define DDOQ_CUDA_LOSS_WORKSPACE (8 * (1 + DDOQ_CUDA_LOSS_PARTS))
/* Most classes, and most of top-k targets, whose rows have marks in shared memory. */
#define DDOQ_CUDA_LOSS_CLASSES (1 << 30)
#define DDOQ_CUDA_LOSS_TOPK_CLASSES (1 << 18)

/* Pointers are to memory of the device. float16 logits get a float32 gradient: in float16 most of it would be lost
 * before a loss scaler's factor comes to it. */
struct ddoq_cuda_loss_args {
    enum ddoq_type type, target_type; /* of the logits and of soft targets: float32, float16 or bfloat16, in any pair */
    enum ddoq_type weight_type;       /* float32 or float64 */
    enum ddoq_target target;
    size_t n_rows, n_classes, k; /* at least 1, but for k without top-k */
    const void *logits;          /* (n_rows, n_classes) */
    const void *soft;            /* (n_rows, n_classes), top-k (n_rows, k); NULL for class indices */
    const int64_t *indices;      /* (n_rows), top-k (n_rows, k); NULL otherwise */
    const void *weight;          /* (n_rows) */
    double temperature, label_smoothing;
    void *gradient;  /* out (n_rows, n_classes): bfloat16 for bfloat16 logits, float32 for the others */
    float *loss;     /* out: one number */
    void *workspace; /* DDOQ_CUDA_LOSS_WORKSPACE bytes, the first 8 of them 0; of launches that do not overlap */
};

#endif
