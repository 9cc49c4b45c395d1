/* Where the arrays of the classes of a wave lie. Waves bound the memory: the classes of one are on the device at the
 * same time. Results do not depend on which classes are together. */
#ifndef DDOQ_CUDA_LAYOUT_H
#define DDOQ_CUDA_LAYOUT_H

#include <stdbool.h>

#include "cuda/class.h"
#include "cuda/job.h"

/* A stretch of device memory, and as much pinned host memory where it is copied as a whole. */
struct ddoq_cuda_region {
    uintptr_t device; /* 0: to measure alone */
    char *host;
    size_t used;
};

struct ddoq_cuda_regions {
    struct ddoq_cuda_region up, down, work, rows; /* to the device, from it, on it; samples of the host */
};

/* A wave, of classes order[first] and on. */
struct ddoq_cuda_wave {
    size_t first, count;
    struct ddoq_cuda_regions size; /* what its regions use */
};

struct ddoq_cuda_plan {
    const struct ddoq_cuda_job *job;
    bool centred; /* G is made of centred floats */
    const size_t *order;
    size_t n;
};

size_t ddoq_cuda_item(enum ddoq_type type);

/* Takes the arrays of a class. G, rows and weights are those of `previous`, which has the same rows, unless it is NULL.
 * False where sizes overflow. */
bool ddoq_cuda_lay_out(const struct ddoq_cuda_plan *plan, size_t class, const struct ddoq_cuda_class *previous,
                       struct ddoq_cuda_regions *regions, struct ddoq_cuda_class *laid);

/* The longest wave from order[first] on whose regions are at most limit bytes (of the rows, twice as many), or, if even
 * one class is more, that class alone. */
struct ddoq_cuda_wave ddoq_cuda_wave_from(const struct ddoq_cuda_plan *plan, size_t first, size_t limit);

size_t ddoq_cuda_bytes(const struct ddoq_cuda_regions *size);

#endif
