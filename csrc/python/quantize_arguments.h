/* The arrays that quantising takes, on the CPU and on a GPU. All functions return 0, or -1 with an exception set. */
#ifndef DDOQ_PYTHON_QUANTIZE_ARGUMENTS_H
#define DDOQ_PYTHON_QUANTIZE_ARGUMENTS_H

#include "python/arrays.h"

enum {
    Q_X,
    Q_SAMPLE_WEIGHT,
    Q_ROWS,
    Q_ROW_OFFSETS,
    Q_POINT_OFFSETS,
    Q_N_STARTS,
    Q_UNIFORMS,
    Q_START_ROWS,
    Q_START_POINTS,
    Q_FORMS,
    Q_POINTS,
    Q_WEIGHTS,
    Q_COUNTS,
    Q_LABELS,
    Q_DISTORTION,
    Q_N_ITER,
    N_QUANTIZE_ARRAYS,
};

/* Reads every array but X and points, which are in a already, from args[at[i]]; those that are None stay empty. */
int ddoq_read_quantize_arrays(PyObject *const *args, const int *at, struct array *a);

/* Everything that the core trusts: outputs apart from all else, sizes, offsets, the range of every index. */
int ddoq_check_quantize_arrays(const struct array *a, size_t n_init);

/* Arguments of a call, but for the numbers. */
struct ddoq_quantize_args ddoq_quantize_args_of(const struct array *a);

#endif
