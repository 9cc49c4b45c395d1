/* Binding of the weighted loss: sizes and dtypes are checked here, values in the pass itself. bfloat16 comes as uint16,
 * which NumPy has in its place. */
#include "python/loss_binding.h"
#include "python/arguments.h"
#include "python/isas.h"

/* Positions of weighted_loss's arguments. */
enum {
    A_LOGITS,
    A_SOFT,
    A_INDICES,
    A_WEIGHT,
    A_TARGET,
    A_TEMPERATURE,
    A_SMOOTHING,
    A_THREADS,
    A_ISA,
    A_GRADIENT,
    N_ARGUMENTS
};

static int read_target(PyObject *object, enum ddoq_target *target)
{
    for (int i = 0; PyUnicode_Check(object) && ddoq_target_names[i]; i++) {
        if (PyUnicode_CompareWithASCIIString(object, ddoq_target_names[i]) == 0) {
            *target = (enum ddoq_target)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "target must be 'index', 'probs', 'logits' or 'topk', not %R", object);
    return -1;
}

static int type_of(PyObject *object)
{
    return PyArray_Check(object) ? PyArray_TYPE((PyArrayObject *)object) : NPY_FLOAT32;
}

/* Reads a matrix of float32, float64 or bfloat16 (as uint16); array->real tells which. */
static int read_floats(PyObject *object, const char *name, struct array *array)
{
    int type = type_of(object);
    if (type != NPY_FLOAT32 && type != NPY_FLOAT64 && type != NPY_UINT16) {
        PyErr_Format(PyExc_TypeError, "%s must have dtype float32, float64 or uint16 (bfloat16)", name);
        return -1;
    }
    if (ddoq_read_array(object, name, type, 2, 0, array))
        return -1;
    if (type == NPY_UINT16)
        array->real = DDOQ_BFLOAT16;
    return 0;
}

static int read_float(PyObject *object, const char *name, double *value)
{
    if (!PyFloat_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be a float", name);
        return -1;
    }
    *value = PyFloat_AsDouble(object);
    return 0;
}

/* Soft targets and indices, as the kind of target has them. */
static int read_targets(PyObject *const *args, enum ddoq_target target, struct array *a)
{
    size_t n = a[A_LOGITS].shape[0];
    if (target != DDOQ_INDEX) {
        if (read_floats(args[A_SOFT], "soft", &a[A_SOFT]) || ddoq_check_size(&a[A_SOFT], 0, n))
            return -1;
        if ((a[A_SOFT].real == DDOQ_FLOAT64) != (a[A_LOGITS].real == DDOQ_FLOAT64)) {
            PyErr_SetString(PyExc_TypeError, "soft must be float64 if and only if logits are");
            return -1;
        }
        if (target != DDOQ_TOPK)
            return ddoq_check_size(&a[A_SOFT], 1, a[A_LOGITS].shape[1]);
    }
    if (ddoq_read_array(args[A_INDICES], "indices", NPY_INT64, target == DDOQ_TOPK ? 2 : 1, 0, &a[A_INDICES]) ||
        ddoq_check_size(&a[A_INDICES], 0, n))
        return -1;
    if (target == DDOQ_INDEX)
        return 0;
    if (a[A_SOFT].shape[1] > a[A_LOGITS].shape[1]) {
        PyErr_SetString(PyExc_ValueError, "soft must not have more columns than logits");
        return -1;
    }
    return ddoq_check_size(&a[A_INDICES], 1, a[A_SOFT].shape[1]);
}

PyObject *ddoq_core_weighted_loss(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    struct array a[N_ARGUMENTS] = {0};
    struct array *logits = &a[A_LOGITS], *gradient = &a[A_GRADIENT];
    struct ddoq_run run = {0};
    double loss = 0;
    struct ddoq_loss_args job = {.loss = &loss};

    if (ddoq_check_arguments("weighted_loss", n_args, N_ARGUMENTS))
        return NULL;
    int weight_type = type_of(args[A_WEIGHT]) == NPY_FLOAT64 ? NPY_FLOAT64 : NPY_FLOAT32;
    if (read_target(args[A_TARGET], &job.target) || read_floats(args[A_LOGITS], "logits", logits) ||
        read_targets(args, job.target, a) ||
        ddoq_read_array(args[A_WEIGHT], "weight", weight_type, 1, 0, &a[A_WEIGHT]) ||
        read_float(args[A_TEMPERATURE], "temperature", &job.temperature) ||
        read_float(args[A_SMOOTHING], "label_smoothing", &job.label_smoothing) ||
        ddoq_read_count(args[A_THREADS], "n_threads", &run.n_threads) || ddoq_read_isa(args[A_ISA], &run.isa) ||
        ddoq_read_array(args[A_GRADIENT], "gradient", logits->type, 2, 1, gradient))
        return NULL;
    if (ddoq_check_size(&a[A_WEIGHT], 0, logits->shape[0]) || ddoq_check_size(gradient, 0, logits->shape[0]) ||
        ddoq_check_size(gradient, 1, logits->shape[1]) || ddoq_check_apart(a, N_ARGUMENTS))
        return NULL;
    if (logits->shape[0] == 0 || logits->shape[1] == 0) {
        PyErr_SetString(PyExc_ValueError, "logits must have at least one row and one column");
        return NULL;
    }
    job.type = logits->real;
    job.target_type = a[A_SOFT].real;
    job.weight_type = a[A_WEIGHT].real;
    job.n_rows = logits->shape[0];
    job.n_classes = logits->shape[1];
    job.k = a[A_SOFT].shape[1];
    job.logits = logits->data;
    job.soft = a[A_SOFT].data;
    job.indices = a[A_INDICES].data;
    job.weight = a[A_WEIGHT].data;
    job.gradient = gradient->data;

    PyThreadState *state = PyEval_SaveThread();
    enum ddoq_status status = ddoq_weighted_loss(&run, &job);
    PyEval_RestoreThread(state);
    if (status == DDOQ_OK)
        return PyFloat_FromDouble(loss);
    if (status == DDOQ_NO_MEMORY)
        return PyErr_NoMemory();
    PyErr_SetString(PyExc_ValueError, "a row's weight, class index or probabilities break a rule");
    return NULL;
}
