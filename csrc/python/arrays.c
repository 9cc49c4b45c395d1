/* Reading and checking of array arguments. */
#define DDOQ_IMPORTS_NUMPY
#include "python/arrays.h"

#include <math.h>

#include "classes.h"

int ddoq_import_numpy(void)
{
    import_array1(-1);
    return 0;
}

static const char *type_name(int type)
{
    switch (type) {
    case NPY_FLOAT32:
        return "float32";
    case NPY_FLOAT64:
        return "float64";
    case NPY_INT64:
        return "int64";
    case NPY_UINT16:
        return "uint16";
    case NPY_HALF:
        return "float16";
    default:
        return "uint8";
    }
}

int ddoq_read_array(PyObject *object, const char *name, int type, int ndim, int output, struct array *array)
{
    if (!PyArray_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be a NumPy array", name);
        return -1;
    }
    PyArrayObject *given = (PyArrayObject *)object;
    int number = PyArray_TYPE(given);
    /* NumPy looks up both numbers, and some user-defined types have none. */
    if (!(PyTypeNum_ISINTEGER(number) || PyTypeNum_ISFLOAT(number)) || !PyArray_EquivTypenums(number, type)) {
        PyErr_Format(PyExc_TypeError, "%s must have dtype %s", name, type_name(type));
        return -1;
    }
    if (PyArray_NDIM(given) != ndim) {
        PyErr_Format(PyExc_ValueError, "%s must have %d dimension(s), not %d", name, ndim, PyArray_NDIM(given));
        return -1;
    }
    if (output ? !PyArray_ISCARRAY(given) : !PyArray_ISCARRAY_RO(given)) {
        PyErr_Format(PyExc_ValueError, "%s must be C-contiguous, aligned, in native byte order%s", name,
                     output ? " and writeable" : "");
        return -1;
    }
    *array = (struct array){.name = name, .data = PyArray_DATA(given), .type = type, .output = output};
    array->real = type == NPY_FLOAT64 ? DDOQ_FLOAT64 : DDOQ_FLOAT32;
    array->bytes = (size_t)PyArray_NBYTES(given);
    for (int axis = 0; axis < ndim; axis++)
        array->shape[axis] = (size_t)PyArray_DIM(given, axis);
    return 0;
}

int ddoq_read_matrix(PyObject *object, const char *name, struct array *array)
{
    int type = NPY_FLOAT32;
    if (PyArray_Check(object)) {
        type = PyArray_TYPE((PyArrayObject *)object);
        if (type != NPY_FLOAT32 && type != NPY_FLOAT64) {
            PyErr_Format(PyExc_TypeError, "%s must have dtype float32 or float64", name);
            return -1;
        }
    }
    return ddoq_read_array(object, name, type, 2, 0, array);
}

int ddoq_read_samples(PyObject *object, struct array *array)
{
    int type = PyArray_Check(object) ? PyArray_TYPE((PyArrayObject *)object) : NPY_FLOAT32;
    if (type != NPY_HALF && type != NPY_UINT16)
        return ddoq_read_matrix(object, "X", array);
    if (ddoq_read_array(object, "X", type, 2, 0, array))
        return -1;
    array->real = type == NPY_HALF ? DDOQ_FLOAT16 : DDOQ_BFLOAT16;
    array->type = NPY_FLOAT32;
    return 0;
}

int ddoq_check_size(const struct array *array, int axis, size_t wanted)
{
    if (array->shape[axis] == wanted)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s must have size %zu along axis %d, not %zu", array->name, wanted, axis,
                 array->shape[axis]);
    return -1;
}

int ddoq_check_apart(const struct array *arrays, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            const struct array *a = &arrays[i], *b = &arrays[j];
            if (i == j || !a->output || a->bytes == 0 || b->bytes == 0)
                continue;
            uintptr_t a0 = (uintptr_t)a->data, b0 = (uintptr_t)b->data;
            if (a0 < b0 + b->bytes && b0 < a0 + a->bytes) {
                PyErr_Format(PyExc_ValueError, "output %s shares memory with %s", a->name, b->name);
                return -1;
            }
        }
    }
    return 0;
}

int ddoq_check_offsets(const struct array *offsets, size_t total)
{
    const int64_t *value = offsets->data;
    size_t n = offsets->shape[0];
    if (value[0] != 0 || (uint64_t)value[n - 1] != total) {
        PyErr_Format(PyExc_ValueError, "%s must go from 0 to %zu", offsets->name, total);
        return -1;
    }
    for (size_t i = 1; i < n; i++) {
        if (value[i] <= value[i - 1]) {
            PyErr_Format(PyExc_ValueError, "%s must rise: class %zu is empty", offsets->name, i - 1);
            return -1;
        }
    }
    return 0;
}

int ddoq_check_indices(const struct array *indices, size_t begin, size_t end, size_t limit)
{
    const int64_t *value = indices->data;
    for (size_t i = begin; i < end; i++) {
        if (value[i] < 0 || (uint64_t)value[i] >= limit) {
            PyErr_Format(PyExc_ValueError, "%s[%zu] = %lld is not in 0..%lld", indices->name, i, (long long)value[i],
                         (long long)limit - 1);
            return -1;
        }
    }
    return 0;
}

int ddoq_check_classes(const struct array *row_offsets, const struct array *point_offsets, const struct array *rows,
                       const struct array *sample_weight)
{
    const int64_t *row = row_offsets->data, *point = point_offsets->data, *index = rows->data;
    const double *weight = sample_weight->data;
    for (size_t c = 0; c + 1 < row_offsets->shape[0]; c++) {
        if (point[c + 1] - point[c] > row[c + 1] - row[c]) {
            PyErr_Format(PyExc_ValueError, "class %zu has more points than rows", c);
            return -1;
        }
    }
    for (size_t i = 0; i < rows->shape[0]; i++) {
        double w = weight[index[i]];
        if (!(w > 0) || !isfinite(w)) {
            PyErr_Format(PyExc_ValueError, "sample_weight[%lld] must be finite and > 0", (long long)index[i]);
            return -1;
        }
    }
    return 0;
}

/* *total += n_init * each; refuses overflow. */
static int add_product(size_t n_init, size_t each, size_t *total)
{
    size_t product;
    if (__builtin_mul_overflow(n_init, each, &product) || __builtin_add_overflow(*total, product, total)) {
        PyErr_SetString(PyExc_ValueError, "n_init is too large");
        return -1;
    }
    return 0;
}

int ddoq_check_starts(const struct array *row_offsets, const struct array *point_offsets, size_t n_init,
                      const struct array *uniforms, const struct array *start_rows, const struct array *start_points,
                      size_t d)
{
    const int64_t *row = row_offsets->data, *point = point_offsets->data;
    size_t n_classes = row_offsets->shape[0] - 1, n_uniforms = 0, n_starts = 0;
    if ((uniforms->name != NULL) + (start_rows->name != NULL) + (start_points->name != NULL) != 1) {
        PyErr_SetString(PyExc_ValueError, "exactly one of uniforms, start_rows and start_points must be given");
        return -1;
    }
    if (start_points->name) {
        if (n_init != 1) {
            PyErr_SetString(PyExc_ValueError, "n_init must be 1 with start_points");
            return -1;
        }
        return ddoq_check_size(start_points, 0, (size_t)point[n_classes]) || ddoq_check_size(start_points, 1, d) ? -1
                                                                                                                 : 0;
    }
    for (size_t c = 0; c < n_classes; c++) {
        size_t k = (size_t)(point[c + 1] - point[c]), first = n_starts;
        if (add_product(n_init, ddoq_uniforms_of_start(k), &n_uniforms) || add_product(n_init, k, &n_starts))
            return -1;
        if (start_rows->name && n_starts <= start_rows->shape[0] &&
            ddoq_check_indices(start_rows, first, n_starts, (size_t)(row[c + 1] - row[c])))
            return -1;
    }
    if (start_rows->name)
        return ddoq_check_size(start_rows, 0, n_starts);
    if (ddoq_check_size(uniforms, 0, n_uniforms))
        return -1;
    const double *u = uniforms->data;
    for (size_t i = 0; i < n_uniforms; i++) {
        if (!(u[i] >= 0 && u[i] < 1)) {
            PyErr_Format(PyExc_ValueError, "uniforms[%zu] is not in [0, 1)", i);
            return -1;
        }
    }
    return 0;
}
