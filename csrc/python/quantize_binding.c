/* Binding of the quantiser of many classes, and of what it foretells. */
#include "python/quantize_binding.h"

#include "python/arguments.h"
#include "python/calls.h"
#include "python/isas.h"
#include "python/quantize_arguments.h"
#include "python/status.h"

/* Positions of quantize_classes' arguments. */
enum {
    A_X,
    A_SAMPLE_WEIGHT,
    A_ROWS,
    A_ROW_OFFSETS,
    A_POINT_OFFSETS,
    A_N_INIT,
    A_N_STARTS,
    A_UNIFORMS,
    A_START_ROWS,
    A_START_POINTS,
    A_MAX_ITER,
    A_TOL,
    A_FORMS,
    A_N_THREADS,
    A_ISA,
    A_POINTS,
    A_WEIGHTS,
    A_COUNTS,
    A_LABELS,
    A_DISTORTION,
    A_N_ITER,
    A_PROGRESS,
    N_ARGUMENTS,
};

/* Where the arrays are among them. */
static const int AT[N_QUANTIZE_ARRAYS] = {
    [Q_X] = A_X,
    [Q_SAMPLE_WEIGHT] = A_SAMPLE_WEIGHT,
    [Q_ROWS] = A_ROWS,
    [Q_ROW_OFFSETS] = A_ROW_OFFSETS,
    [Q_POINT_OFFSETS] = A_POINT_OFFSETS,
    [Q_N_STARTS] = A_N_STARTS,
    [Q_UNIFORMS] = A_UNIFORMS,
    [Q_START_ROWS] = A_START_ROWS,
    [Q_START_POINTS] = A_START_POINTS,
    [Q_FORMS] = A_FORMS,
    [Q_POINTS] = A_POINTS,
    [Q_WEIGHTS] = A_WEIGHTS,
    [Q_COUNTS] = A_COUNTS,
    [Q_LABELS] = A_LABELS,
    [Q_DISTORTION] = A_DISTORTION,
    [Q_N_ITER] = A_N_ITER,
};

PyObject *ddoq_core_quantize_classes(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    struct array a[N_QUANTIZE_ARRAYS] = {0};
    struct caller caller = {0};
    struct ddoq_run run = {.poll = {.call = ddoq_poll_python, .context = &caller}};
    size_t n_init, max_iter, failed_class;
    double tol;

    if (ddoq_check_arguments("quantize_classes", n_args, N_ARGUMENTS) || ddoq_read_samples(args[A_X], &a[Q_X]) ||
        ddoq_read_array(args[A_POINTS], "points", a[Q_X].type, 2, 1, &a[Q_POINTS]) ||
        ddoq_read_quantize_arrays(args, AT, a) || ddoq_read_count(args[A_N_INIT], "n_init", &n_init) ||
        ddoq_read_count(args[A_MAX_ITER], "max_iter", &max_iter) || ddoq_read_real(args[A_TOL], "tol", 0, &tol) ||
        ddoq_read_count(args[A_N_THREADS], "n_threads", &run.n_threads) || ddoq_read_isa(args[A_ISA], &run.isa) ||
        ddoq_check_quantize_arrays(a, n_init) || ddoq_read_progress(args[A_PROGRESS], &caller))
        return NULL;
    struct ddoq_quantize_args job = ddoq_quantize_args_of(a);
    job.n_init = n_init;
    job.max_iter = max_iter;
    job.tol = tol;
    caller.state = PyEval_SaveThread();
    enum ddoq_status status = ddoq_quantize_classes(&run, &job, &failed_class);
    PyEval_RestoreThread(caller.state);
    if (status == DDOQ_OK && caller.progress && ddoq_call_progress(caller.progress, job.n_classes))
        return NULL;
    char where[64];
    PyOS_snprintf(where, sizeof where, " (class %zu)", failed_class);
    return ddoq_result_of(status, where);
}

PyObject *ddoq_core_form_bytes(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    size_t n, k, d, item;
    if (ddoq_check_arguments("form_bytes", n_args, 5))
        return NULL;
    long form = PyLong_AsLong(args[0]);
    if (form == -1 && PyErr_Occurred())
        return NULL;
    if (form < DDOQ_GRAM || form > DDOQ_STREAMING)
        return PyErr_Format(PyExc_ValueError, "form must be one of this module's, not %ld", form);
    if (ddoq_read_count(args[1], "n", &n) || ddoq_read_count(args[2], "k", &k) || ddoq_read_count(args[3], "d", &d) ||
        ddoq_read_count(args[4], "itemsize", &item))
        return NULL;
    return PyFloat_FromDouble(ddoq_form_bytes((enum ddoq_form)form, n, k, d, item));
}

PyObject *ddoq_core_seed_trials(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    size_t k;
    if (ddoq_check_arguments("seed_trials", n_args, 1) || ddoq_read_count(args[0], "k", &k))
        return NULL;
    return PyLong_FromSize_t(ddoq_seed_trials(k));
}
