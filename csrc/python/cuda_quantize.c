/* Binding of the quantiser on a GPU: checks all that the kernels trust, as that of the core does for the core. */
#include "python/cuda_quantize.h"

#include "cuda/quantize.h"
#include "python/arguments.h"
#include "python/calls.h"
#include "python/cuda_samples.h"
#include "python/quantize_arguments.h"

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
    A_FORMS,
    A_DEVICE,
    A_STREAM,
    A_MEMORY,
    A_POINTS,
    A_WEIGHTS,
    A_COUNTS,
    A_LABELS,
    A_DISTORTION,
    A_N_ITER,
    A_PROBLEMS,
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

static PyObject *result_of(const struct ddoq_cuda_error *error)
{
    switch (error->status) {
    case DDOQ_CUDA_OK:
        Py_RETURN_NONE;
    case DDOQ_CUDA_NO_MEMORY:
        return PyErr_Format(PyExc_MemoryError, "%s", error->text);
    case DDOQ_CUDA_NO_LIBRARY:
        return PyErr_Format(PyExc_ImportError, "%s", error->text);
    case DDOQ_CUDA_FAILED:
        return PyErr_Format(PyExc_RuntimeError, "CUDA: %s", error->text);
    case DDOQ_CUDA_INTERRUPTED: /* by an exception that is set */
        break;
    }
    return NULL;
}

/* Reads an int of at least 0. */
static int read_size(PyObject *object, const char *name, size_t *value)
{
    *value = PyLong_Check(object) ? PyLong_AsSize_t(object) : 0;
    if (PyLong_Check(object) && !PyErr_Occurred())
        return 0;
    PyErr_Format(PyExc_TypeError, "%s must be an int of at least 0", name);
    return -1;
}

/* The device: that of the arrays that are on one. */
static int check_device(size_t device, const struct placed *X, const struct placed *points)
{
    const struct placed *placed[] = {X, points};
    if (device > INT_MAX) {
        PyErr_SetString(PyExc_ValueError, "device is out of range");
        return -1;
    }
    for (size_t i = 0; i < 2; i++) {
        if (placed[i]->device >= 0 && (size_t)placed[i]->device != device) {
            PyErr_Format(PyExc_ValueError, "%s is on device %d, not on device %zu", placed[i]->array.name,
                         placed[i]->device, device);
            return -1;
        }
    }
    return 0;
}

PyObject *ddoq_cuda_quantize_classes(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    struct array a[N_QUANTIZE_ARRAYS] = {0}, problems = {0};
    struct placed X = {0}, points = {0};
    struct caller caller = {0};
    struct ddoq_cuda_error error = {0};
    struct ddoq_cuda_job job = {.poll = {.call = ddoq_poll_python, .context = &caller}};
    size_t n_init, max_iter, device, stream;

    if (ddoq_check_arguments("quantize_classes", n_args, N_ARGUMENTS) || ddoq_read_placed_samples(args[A_X], &X) ||
        ddoq_read_placed_points(args[A_POINTS], &points))
        return NULL;
    a[Q_X] = X.array;
    a[Q_POINTS] = points.array;
    if (ddoq_read_quantize_arrays(args, AT, a) ||
        ddoq_read_array(args[A_PROBLEMS], "problems", NPY_UINT8, 1, 1, &problems) ||
        ddoq_read_count(args[A_N_INIT], "n_init", &n_init) ||
        ddoq_read_count(args[A_MAX_ITER], "max_iter", &max_iter) || read_size(args[A_DEVICE], "device", &device) ||
        read_size(args[A_STREAM], "stream", &stream) || read_size(args[A_MEMORY], "memory", &job.memory) ||
        check_device(device, &X, &points) || ddoq_read_progress(args[A_PROGRESS], &caller) ||
        ddoq_check_quantize_arrays(a, n_init) || ddoq_check_size(&problems, 0, a[Q_FORMS].shape[0]))
        return NULL;
    struct ddoq_quantize_args quantize = ddoq_quantize_args_of(a);
    quantize.n_init = n_init;
    quantize.max_iter = max_iter;
    job.args = &quantize;
    job.device = (int)device;
    job.stream = (cudaStream_t)stream;
    job.x_on_device = X.device >= 0;
    job.points_on_device = points.device >= 0;
    job.problems = problems.data;
    caller.state = PyEval_SaveThread();
    ddoq_cuda_quantize(&job, &error);
    PyEval_RestoreThread(caller.state);
    if (error.status == DDOQ_CUDA_OK && caller.progress && ddoq_call_progress(caller.progress, quantize.n_classes))
        return NULL;
    return result_of(&error);
}
