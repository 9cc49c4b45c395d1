/* Binding of the weighted loss on a CUDA device: memory comes as addresses, whose sizes nobody can check here; all
 * numbers are. */
#include "python/cuda_loss_binding.h"
#include "cuda/loss.h"

/* Positions of weighted_loss's arguments. */
enum {
    A_LOGITS,
    A_TYPE,
    A_SOFT,
    A_SOFT_TYPE,
    A_INDICES,
    A_WEIGHT,
    A_WEIGHT_TYPE,
    A_TARGET,
    A_ROWS,
    A_CLASSES,
    A_K,
    A_TEMPERATURE,
    A_SMOOTHING,
    A_GRADIENT,
    A_LOSS,
    A_WORKSPACE,
    A_DEVICE,
    A_STREAM,
    N_ARGUMENTS
};

static const char *const types[] = {[DDOQ_FLOAT32] = "float32",
                                    [DDOQ_FLOAT64] = "float64",
                                    [DDOQ_BFLOAT16] = "bfloat16",
                                    [DDOQ_FLOAT16] = "float16",
                                    NULL};

/* The place of a name among names, or -1 with an exception set. */
static int read_name(PyObject *object, const char *const *names, const char *what)
{
    for (int i = 0; PyUnicode_Check(object) && names[i]; i++)
        if (PyUnicode_CompareWithASCIIString(object, names[i]) == 0)
            return i;
    PyErr_Format(PyExc_ValueError, "%s cannot be %R", what, object);
    return -1;
}

static int read_type(PyObject *object, const char *what, enum ddoq_type *type)
{
    int found = read_name(object, types, what);
    *type = (enum ddoq_type)found;
    return found < 0 ? -1 : 0;
}

/* An address; 0 only where it may be. */
static int read_address(PyObject *object, const char *what, int may_be_null, void **address)
{
    *address = NULL;
    if (object == Py_None && may_be_null)
        return 0;
    if (!PyLong_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be an address", what);
        return -1;
    }
    *address = PyLong_AsVoidPtr(object);
    if (!*address && !PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "%s must not be at address 0", what);
    return PyErr_Occurred() ? -1 : 0;
}

static int read_factor(PyObject *object, const char *what, double *value)
{
    *value = PyFloat_Check(object) ? PyFloat_AsDouble(object) : NAN;
    if (*value >= 0 && *value < INFINITY)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s must be a float, finite and at least 0", what);
    return -1;
}

/* Logits, gradient, weights and the rest that every kind of target has. */
static int read_common(PyObject *const *args, struct ddoq_cuda_loss_args *job)
{
    void *logits, *weight, *gradient, *loss, *workspace;
    if (read_address(args[A_LOGITS], "logits", 0, &logits) || read_type(args[A_TYPE], "logits' type", &job->type) ||
        read_address(args[A_WEIGHT], "weight", 0, &weight) ||
        read_type(args[A_WEIGHT_TYPE], "weight's type", &job->weight_type) ||
        ddoq_read_count(args[A_ROWS], "n_rows", &job->n_rows) ||
        ddoq_read_count(args[A_CLASSES], "n_classes", &job->n_classes) ||
        read_factor(args[A_TEMPERATURE], "temperature", &job->temperature) ||
        read_factor(args[A_SMOOTHING], "label_smoothing", &job->label_smoothing) ||
        read_address(args[A_GRADIENT], "gradient", 0, &gradient) || read_address(args[A_LOSS], "loss", 0, &loss) ||
        read_address(args[A_WORKSPACE], "workspace", 0, &workspace))
        return -1;
    job->logits = logits;
    job->weight = weight;
    job->gradient = gradient;
    job->loss = loss;
    job->workspace = workspace;
    if (job->type == DDOQ_FLOAT64 || (job->weight_type != DDOQ_FLOAT32 && job->weight_type != DDOQ_FLOAT64)) {
        PyErr_SetString(PyExc_ValueError, "logits cannot be float64, weights only float32 or float64");
        return -1;
    }
    if (job->n_classes > DDOQ_CUDA_LOSS_CLASSES) {
        PyErr_Format(PyExc_ValueError, "n_classes must be at most %d", (int)DDOQ_CUDA_LOSS_CLASSES);
        return -1;
    }
    return 0;
}

/* Soft targets and indices, as the kind of target has them. */
static int read_targets(PyObject *const *args, struct ddoq_cuda_loss_args *job)
{
    int target = read_name(args[A_TARGET], ddoq_target_names, "target"), has_indices, is_soft;
    void *soft, *indices;
    if (target < 0)
        return -1;
    job->target = (enum ddoq_target)target;
    has_indices = target == DDOQ_INDEX || target == DDOQ_TOPK;
    is_soft = target != DDOQ_INDEX;
    if (read_address(args[A_SOFT], "soft", !is_soft, &soft) ||
        (is_soft && read_type(args[A_SOFT_TYPE], "soft's type", &job->target_type)) ||
        read_address(args[A_INDICES], "indices", !has_indices, &indices) ||
        (target == DDOQ_TOPK && ddoq_read_count(args[A_K], "k", &job->k)))
        return -1;
    job->soft = soft;
    job->indices = indices;
    if (is_soft && job->target_type == DDOQ_FLOAT64) {
        PyErr_SetString(PyExc_ValueError, "soft cannot be float64");
        return -1;
    }
    if (job->k > job->n_classes || (target == DDOQ_TOPK && job->n_classes > DDOQ_CUDA_LOSS_TOPK_CLASSES)) {
        PyErr_Format(PyExc_ValueError, "topk needs k of at most n_classes, and these at most %d",
                     (int)DDOQ_CUDA_LOSS_TOPK_CLASSES);
        return -1;
    }
    return 0;
}

PyObject *ddoq_cuda_module_weighted_loss(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    struct ddoq_cuda_loss_args job = {0};
    struct ddoq_cuda_error error = {0};
    void *stream;
    if (ddoq_check_arguments("weighted_loss", n_args, N_ARGUMENTS) || read_common(args, &job) ||
        read_targets(args, &job))
        return NULL;
    long device = PyLong_AsLong(args[A_DEVICE]);
    if (device == -1 && PyErr_Occurred())
        return NULL;
    if (device < 0 || device > INT_MAX)
        return PyErr_Format(PyExc_ValueError, "device must be the number of one, not %ld", device);
    stream = PyLong_AsVoidPtr(args[A_STREAM]); /* 0: the default one */
    if (PyErr_Occurred())
        return NULL;
    PyThreadState *state = PyEval_SaveThread();
    int failed = ddoq_cuda_weighted_loss(&job, (int)device, stream, &error);
    PyEval_RestoreThread(state);
    if (failed)
        return PyErr_Format(PyExc_RuntimeError, "the weighted loss on the GPU failed: %s", error.text);
    return Py_NewRef(Py_None);
}
