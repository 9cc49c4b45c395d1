/* NumPy arrays as plain pointers and sizes, and the checks that the C core relies on. All functions return 0, or -1
 * with an exception set. */
#ifndef DDOQ_PYTHON_ARRAYS_H
#define DDOQ_PYTHON_ARRAYS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define PY_ARRAY_UNIQUE_SYMBOL ddoq_numpy_api
#ifndef DDOQ_IMPORTS_NUMPY
#    define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "ddoq.h"

/* A borrowed view of a C-contiguous, aligned array; all zero for an argument that is None. */
struct array {
    const char *name;
    void *data;
    int type;            /* NumPy's type number; of samples that are halves, the one that they widen to */
    enum ddoq_type real; /* of a matrix */
    int output;
    size_t shape[2], bytes;
};

int ddoq_import_numpy(void);

int ddoq_read_array(PyObject *object, const char *name, int type, int ndim, int output, struct array *array);
/* An input, two-dimensional, float32 or float64. */
int ddoq_read_matrix(PyObject *object, const char *name, struct array *array);
/* X: as a matrix, or float16, or bfloat16 in uint16. */
int ddoq_read_samples(PyObject *object, struct array *array);

int ddoq_check_size(const struct array *array, int axis, size_t wanted);
/* No output shares memory with any other argument. */
int ddoq_check_apart(const struct array *arrays, size_t n);
/* 0 = first, rising by at least 1, last = total. */
int ddoq_check_offsets(const struct array *offsets, size_t total);
/* Entries begin..end are in 0..limit-1. */
int ddoq_check_indices(const struct array *indices, size_t begin, size_t end, size_t limit);
/* No class has more points than rows; weights of the rows used are finite and > 0. */
int ddoq_check_classes(const struct array *row_offsets, const struct array *point_offsets, const struct array *rows,
                       const struct array *sample_weight);
/* Exactly one start is given, of the right size and in range. */
int ddoq_check_starts(const struct array *row_offsets, const struct array *point_offsets, size_t n_init,
                      const struct array *uniforms, const struct array *start_rows, const struct array *start_points,
                      size_t d);

#endif
