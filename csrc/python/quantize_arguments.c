/* Reading and checking of the arrays that quantising takes. */
#include "python/quantize_arguments.h"

int ddoq_read_quantize_arrays(PyObject *const *args, const int *at, struct array *a)
{
    const struct {
        int which;
        const char *name;
        int type, ndim, output, optional;
    } specs[] = {
        {Q_SAMPLE_WEIGHT, "sample_weight", NPY_FLOAT64, 1, 0, 0},
        {Q_ROWS, "rows", NPY_INT64, 1, 0, 0},
        {Q_ROW_OFFSETS, "row_offsets", NPY_INT64, 1, 0, 0},
        {Q_POINT_OFFSETS, "point_offsets", NPY_INT64, 1, 0, 0},
        {Q_N_STARTS, "n_starts", NPY_INT64, 1, 0, 0},
        {Q_UNIFORMS, "uniforms", NPY_FLOAT64, 1, 0, 1},
        {Q_START_ROWS, "start_rows", NPY_INT64, 1, 0, 1},
        {Q_START_POINTS, "start_points", a[Q_X].type, 2, 0, 1},
        {Q_FORMS, "forms", NPY_UINT8, 1, 0, 0},
        {Q_WEIGHTS, "weights", NPY_FLOAT64, 1, 1, 0},
        {Q_COUNTS, "counts", NPY_INT64, 1, 1, 0},
        {Q_LABELS, "labels", NPY_INT64, 1, 1, 0},
        {Q_DISTORTION, "distortion", NPY_FLOAT64, 1, 1, 0},
        {Q_N_ITER, "n_iter", NPY_INT64, 1, 1, 0},
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        if (specs[i].optional && Py_IsNone(args[at[specs[i].which]]))
            continue;
        if (ddoq_read_array(args[at[specs[i].which]], specs[i].name, specs[i].type, specs[i].ndim, specs[i].output,
                            &a[specs[i].which]))
            return -1;
    }
    return 0;
}

int ddoq_check_quantize_arrays(const struct array *a, size_t n_init)
{
    size_t n_classes = a[Q_FORMS].shape[0], d = a[Q_X].shape[1];
    size_t n_rows = a[Q_ROWS].shape[0], n_points = a[Q_POINTS].shape[0];
    if (d == 0) {
        PyErr_SetString(PyExc_ValueError, "X must have at least one column");
        return -1;
    }
    if (ddoq_check_apart(a, N_QUANTIZE_ARRAYS) || ddoq_check_size(&a[Q_SAMPLE_WEIGHT], 0, a[Q_X].shape[0]) ||
        ddoq_check_size(&a[Q_ROW_OFFSETS], 0, n_classes + 1) ||
        ddoq_check_size(&a[Q_POINT_OFFSETS], 0, n_classes + 1) || ddoq_check_size(&a[Q_POINTS], 1, d) ||
        ddoq_check_size(&a[Q_WEIGHTS], 0, n_points) || ddoq_check_size(&a[Q_COUNTS], 0, n_points) ||
        ddoq_check_size(&a[Q_LABELS], 0, n_rows) || ddoq_check_size(&a[Q_DISTORTION], 0, n_classes) ||
        ddoq_check_size(&a[Q_N_STARTS], 0, n_classes) || ddoq_check_size(&a[Q_N_ITER], 0, n_classes))
        return -1;
    const int64_t *n_starts = a[Q_N_STARTS].data;
    for (size_t c = 0; c < n_classes; c++) {
        if (n_starts[c] < 1 || (uint64_t)n_starts[c] > n_init) {
            PyErr_Format(PyExc_ValueError, "n_starts[%zu] is %lld: it must be 1 to n_init", c, (long long)n_starts[c]);
            return -1;
        }
    }
    if (ddoq_check_offsets(&a[Q_ROW_OFFSETS], n_rows) || ddoq_check_offsets(&a[Q_POINT_OFFSETS], n_points) ||
        ddoq_check_indices(&a[Q_ROWS], 0, n_rows, a[Q_X].shape[0]))
        return -1;
    return ddoq_check_classes(&a[Q_ROW_OFFSETS], &a[Q_POINT_OFFSETS], &a[Q_ROWS], &a[Q_SAMPLE_WEIGHT]) ||
           ddoq_check_starts(&a[Q_ROW_OFFSETS], &a[Q_POINT_OFFSETS], n_init, &a[Q_UNIFORMS], &a[Q_START_ROWS],
                             &a[Q_START_POINTS], d);
}

struct ddoq_quantize_args ddoq_quantize_args_of(const struct array *a)
{
    return (struct ddoq_quantize_args){
        .type = a[Q_X].real,
        .X = a[Q_X].data,
        .d = a[Q_X].shape[1],
        .sample_weight = a[Q_SAMPLE_WEIGHT].data,
        .n_classes = a[Q_FORMS].shape[0],
        .rows = a[Q_ROWS].data,
        .row_offsets = a[Q_ROW_OFFSETS].data,
        .point_offsets = a[Q_POINT_OFFSETS].data,
        .n_starts = a[Q_N_STARTS].data,
        .uniforms = a[Q_UNIFORMS].data,
        .start_rows = a[Q_START_ROWS].data,
        .start_points = a[Q_START_POINTS].data,
        .forms = a[Q_FORMS].data,
        .points = a[Q_POINTS].data,
        .weights = a[Q_WEIGHTS].data,
        .counts = a[Q_COUNTS].data,
        .labels = a[Q_LABELS].data,
        .distortion = a[Q_DISTORTION].data,
        .n_iter = a[Q_N_ITER].data,
    };
}
