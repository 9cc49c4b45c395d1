/* Matrices on a device, by DLPack. All functions return 0, or -1 with an exception set. */
#ifndef DDOQ_PYTHON_CUDA_SAMPLES_H
#define DDOQ_PYTHON_CUDA_SAMPLES_H

#include "python/arrays.h"

/* An array of the host, or of a device (its number; -1 for the host). */
struct placed {
    struct array array;
    int device;
};

/* X, or points: a NumPy array, or a DLPack capsule that stays unconsumed, and is read in place, while the caller keeps
 * it. A capsule's matrix is float32, float16 or bfloat16, C-contiguous and aligned to its items. */
int ddoq_read_placed_samples(PyObject *object, struct placed *placed);
int ddoq_read_placed_points(PyObject *object, struct placed *placed);

#endif
