/* Binding of the C core: checks every argument, releases the GIL, calls, maps the status to an exception. Positional
 * arguments and C-contiguous arrays only; conversion, defaults and friendly messages live in Python. Whatever is
 * passed, the answer is a result or an exception: indices are checked against their range here, since the core trusts
 * them. */
#include <float.h>

#include "python/arguments.h"
#include "python/arrays.h"
#include "python/calls.h"
#include "python/isas.h"
#include "python/loss_binding.h"
#include "python/quantize_binding.h"
#include "python/status.h"

/* ---- functions ---- */

static PyObject *core_gram(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    struct array arrays[2];
    struct array *X = &arrays[0], *out = &arrays[1];
    struct caller caller = {0};
    struct ddoq_run run = {.n_threads = 1, .poll = {.call = ddoq_poll_python, .context = &caller}};

    if (ddoq_check_arguments("gram", n_args, 3) || ddoq_read_samples(args[0], X) ||
        ddoq_read_array(args[1], "out", X->type, 2, 1, out) || ddoq_read_isa(args[2], &run.isa))
        return NULL;
    if (ddoq_check_size(out, 0, X->shape[0]) || ddoq_check_size(out, 1, X->shape[0]) || ddoq_check_apart(arrays, 2))
        return NULL;

    caller.state = PyEval_SaveThread();
    enum ddoq_status status = ddoq_gram(&run, X->real, X->data, X->shape[0], X->shape[1], out->data);
    PyEval_RestoreThread(caller.state);
    return ddoq_result_of(status, "");
}

static PyObject *core_largest(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    struct array X;
    struct caller caller = {0};
    struct ddoq_run run = {.poll = {.call = ddoq_poll_python, .context = &caller}};
    double largest = 0;

    if (ddoq_check_arguments("largest", n_args, 3) || ddoq_read_samples(args[0], &X) ||
        ddoq_read_count(args[1], "n_threads", &run.n_threads) || ddoq_read_isa(args[2], &run.isa))
        return NULL;
    caller.state = PyEval_SaveThread();
    enum ddoq_status status = ddoq_largest(&run, X.real, X.data, X.shape[0], X.shape[1], &largest);
    PyEval_RestoreThread(caller.state);
    return status == DDOQ_OK ? PyFloat_FromDouble(largest) : ddoq_result_of(status, "");
}

static PyObject *core_assign(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    struct array arrays[4];
    struct array *X = &arrays[0], *points = &arrays[1], *labels = &arrays[2], *dist2 = &arrays[3];
    struct caller caller = {0};
    struct ddoq_run run = {.poll = {.call = ddoq_poll_python, .context = &caller}};

    if (ddoq_check_arguments("assign", n_args, 6) || ddoq_read_samples(args[0], X) ||
        ddoq_read_array(args[1], "points", X->type, 2, 0, points) ||
        ddoq_read_array(args[2], "labels", NPY_INT64, 1, 1, labels) ||
        ddoq_read_array(args[3], "dist2", NPY_FLOAT64, 1, 1, dist2) ||
        ddoq_read_count(args[4], "n_threads", &run.n_threads) || ddoq_read_isa(args[5], &run.isa))
        return NULL;
    size_t n = X->shape[0], d = X->shape[1], k = points->shape[0];
    if (ddoq_check_size(points, 1, d) || ddoq_check_size(labels, 0, n) || ddoq_check_size(dist2, 0, n) ||
        ddoq_check_apart(arrays, 4))
        return NULL;
    if (k == 0) {
        PyErr_SetString(PyExc_ValueError, "points must have at least one row");
        return NULL;
    }

    caller.state = PyEval_SaveThread();
    enum ddoq_status status = ddoq_assign(&run, X->real, X->data, n, points->data, k, d, labels->data, dist2->data);
    PyEval_RestoreThread(caller.state);
    return ddoq_result_of(status, "");
}

static PyObject *core_clvq(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    struct array a[8] = {0};
    struct array *X = &a[0], *points = &a[1], *weights = &a[2], *wins = &a[3], *winners = &a[4];
    struct array *sums = &a[5], *summed = &a[6], *weight_sums = &a[7];
    struct caller caller = {0};
    struct ddoq_run run = {.poll = {.call = ddoq_poll_python, .context = &caller}};
    struct ddoq_clvq_args job = {0};

    if (ddoq_check_arguments("clvq", n_args, 12) || ddoq_read_matrix(args[0], "X", X) ||
        ddoq_read_array(args[1], "points", X->type, 2, 1, points) ||
        (!Py_IsNone(args[2]) && ddoq_read_array(args[2], "weights", NPY_FLOAT64, 1, 1, weights)) ||
        ddoq_read_array(args[3], "wins", NPY_INT64, 1, 1, wins) ||
        ddoq_read_array(args[4], "winners", NPY_INT64, 1, 1, winners) ||
        ddoq_read_real(args[5], "b", DBL_MIN, &job.b) || ddoq_read_real(args[6], "power", 0, &job.power) ||
        (!Py_IsNone(args[7]) && (ddoq_read_array(args[7], "sums", NPY_FLOAT64, 2, 1, sums) ||
                                 ddoq_read_array(args[8], "summed", NPY_INT64, 1, 1, summed))) ||
        (!Py_IsNone(args[9]) && ddoq_read_array(args[9], "weight_sums", NPY_FLOAT64, 1, 1, weight_sums)) ||
        ddoq_read_count(args[10], "n_threads", &run.n_threads) || ddoq_read_isa(args[11], &run.isa))
        return NULL;
    job.type = X->real;
    job.n = X->shape[0];
    job.d = X->shape[1];
    job.k = points->shape[0];
    if (ddoq_check_size(points, 1, job.d) || (weights->name && ddoq_check_size(weights, 0, job.k)) ||
        ddoq_check_size(wins, 0, job.k) || ddoq_check_size(winners, 0, job.n) || ddoq_check_apart(a, 8) ||
        ddoq_check_indices(wins, 0, job.k, (size_t)1 << 53) ||
        (sums->name && (ddoq_check_size(sums, 0, job.k) || ddoq_check_size(sums, 1, job.d) ||
                        ddoq_check_size(summed, 0, job.k) || ddoq_check_indices(summed, 0, job.k, (size_t)1 << 53))) ||
        (weight_sums->name && ddoq_check_size(weight_sums, 0, job.k)))
        return NULL;
    if (job.k == 0 || job.d == 0) {
        PyErr_SetString(PyExc_ValueError, "points must have at least one row and one column");
        return NULL;
    }
    job.X = X->data;
    job.points = points->data;
    job.weights = weights->data;
    job.wins = wins->data;
    job.winners = winners->data;
    job.sums = sums->data;
    job.summed = summed->data;
    job.weight_sums = weight_sums->data;
    caller.state = PyEval_SaveThread();
    enum ddoq_status status = ddoq_clvq(&run, &job);
    PyEval_RestoreThread(caller.state);
    return ddoq_result_of(status, "");
}

/* ---- module ---- */

static PyMethodDef methods[] = {
    {"isas", ddoq_core_isas, METH_NOARGS,
     PyDoc_STR("Names of the instruction sets this machine can run, worst to best.")},
    {"gram", (PyCFunction)(void (*)(void))core_gram, METH_FASTCALL, PyDoc_STR("gram(X, out, isa): out = X X^T.")},
    {"largest", (PyCFunction)(void (*)(void))core_largest, METH_FASTCALL,
     PyDoc_STR("largest(X, n_threads, isa): the greatest absolute value; NaN where there is one.")},
    {"assign", (PyCFunction)(void (*)(void))core_assign, METH_FASTCALL,
     PyDoc_STR("assign(X, points, labels, dist2, n_threads, isa): nearest point and squared distance.")},
    {"clvq", (PyCFunction)(void (*)(void))core_clvq, METH_FASTCALL, PyDoc_STR("clvq(...): see _core.pyi.")},
    {"quantize_classes", (PyCFunction)(void (*)(void))ddoq_core_quantize_classes, METH_FASTCALL,
     PyDoc_STR("quantize_classes(...): see _core.pyi.")},
    {"form_bytes", (PyCFunction)(void (*)(void))ddoq_core_form_bytes, METH_FASTCALL,
     PyDoc_STR("form_bytes(form, n, k, d, itemsize): bytes that a class takes in a form.")},
    {"seed_trials", (PyCFunction)(void (*)(void))ddoq_core_seed_trials, METH_FASTCALL,
     PyDoc_STR("seed_trials(k): candidates of a step of greedy k-means++.")},
    {"weighted_loss", (PyCFunction)(void (*)(void))ddoq_core_weighted_loss, METH_FASTCALL,
     PyDoc_STR("weighted_loss(...): see _core.pyi.")},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    ddoq_load_isas();
    if (PyModule_AddIntConstant(module, "GRAM", DDOQ_GRAM) ||
        PyModule_AddIntConstant(module, "GRAM_MOVES", DDOQ_GRAM_MOVES) ||
        PyModule_AddIntConstant(module, "SKETCH", DDOQ_SKETCH) ||
        PyModule_AddIntConstant(module, "STREAMING", DDOQ_STREAMING))
        return -1;
    return ddoq_import_numpy();
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)execute},
#if !defined(Py_LIMITED_API) && defined(Py_mod_gil)
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "ddoq._core", .m_doc = "Quantisation in C; ddoq._backend is its only importer.",
    .m_methods = methods,  .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
