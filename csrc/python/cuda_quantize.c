/* Binding of the quantiser on a GPU: checks all that the kernels trust, as that of the core does for the core. */
#include "python/cuda_quantize.h"

#include "cuda/quantize.h"
#include "python/arguments.h"
#include "python/cuda_samples.h"

/* Positions of quantize_classes' arguments. */
enum {
    A_X,
    A_SAMPLE_WEIGHT,
    A_ROWS,
    A_ROW_OFFSETS,
    A_POINT_OFFSETS,
    A_N_INIT,
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

struct caller {
    PyThreadState *state; /* while the GIL is released */
    PyObject *progress;   /* NULL or a callable */
};

static int call_progress(PyObject *progress, size_t done)
{
    PyObject *result = PyObject_CallFunction(progress, "n", (Py_ssize_t)done);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static int poll_python(void *context, size_t done)
{
    struct caller *caller = context;
    PyEval_RestoreThread(caller->state);
    int stop = PyErr_CheckSignals();
    if (!stop && caller->progress)
        stop = call_progress(caller->progress, done);
    caller->state = PyEval_SaveThread();
    return stop;
}

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

static int read_arrays(PyObject *const *args, struct array *a)
{
    const struct {
        int at;
        const char *name;
        int type, ndim, output, optional;
    } specs[] = {
        {A_SAMPLE_WEIGHT, "sample_weight", NPY_FLOAT64, 1, 0, 0},
        {A_ROWS, "rows", NPY_INT64, 1, 0, 0},
        {A_ROW_OFFSETS, "row_offsets", NPY_INT64, 1, 0, 0},
        {A_POINT_OFFSETS, "point_offsets", NPY_INT64, 1, 0, 0},
        {A_UNIFORMS, "uniforms", NPY_FLOAT64, 1, 0, 1},
        {A_START_ROWS, "start_rows", NPY_INT64, 1, 0, 1},
        {A_START_POINTS, "start_points", NPY_FLOAT32, 2, 0, 1},
        {A_FORMS, "forms", NPY_UINT8, 1, 0, 0},
        {A_WEIGHTS, "weights", NPY_FLOAT64, 1, 1, 0},
        {A_COUNTS, "counts", NPY_INT64, 1, 1, 0},
        {A_LABELS, "labels", NPY_INT64, 1, 1, 0},
        {A_DISTORTION, "distortion", NPY_FLOAT64, 1, 1, 0},
        {A_N_ITER, "n_iter", NPY_INT64, 1, 1, 0},
        {A_PROBLEMS, "problems", NPY_UINT8, 1, 1, 0},
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        if (specs[i].optional && Py_IsNone(args[specs[i].at]))
            continue;
        if (ddoq_read_array(args[specs[i].at], specs[i].name, specs[i].type, specs[i].ndim, specs[i].output,
                            &a[specs[i].at]))
            return -1;
    }
    return 0;
}

/* Sizes, offsets, the range of every index. */
static int check_job(const struct array *a, size_t n_init)
{
    size_t n_classes = a[A_FORMS].shape[0], d = a[A_X].shape[1];
    size_t n_rows = a[A_ROWS].shape[0], n_points = a[A_POINTS].shape[0];
    if (d == 0) {
        PyErr_SetString(PyExc_ValueError, "X must have at least one column");
        return -1;
    }
    if (ddoq_check_size(&a[A_SAMPLE_WEIGHT], 0, a[A_X].shape[0]) ||
        ddoq_check_size(&a[A_ROW_OFFSETS], 0, n_classes + 1) ||
        ddoq_check_size(&a[A_POINT_OFFSETS], 0, n_classes + 1) || ddoq_check_size(&a[A_POINTS], 1, d) ||
        ddoq_check_size(&a[A_WEIGHTS], 0, n_points) || ddoq_check_size(&a[A_COUNTS], 0, n_points) ||
        ddoq_check_size(&a[A_LABELS], 0, n_rows) || ddoq_check_size(&a[A_DISTORTION], 0, n_classes) ||
        ddoq_check_size(&a[A_N_ITER], 0, n_classes) || ddoq_check_size(&a[A_PROBLEMS], 0, n_classes))
        return -1;
    if (ddoq_check_offsets(&a[A_ROW_OFFSETS], n_rows) || ddoq_check_offsets(&a[A_POINT_OFFSETS], n_points) ||
        ddoq_check_indices(&a[A_ROWS], 0, n_rows, a[A_X].shape[0]))
        return -1;
    return ddoq_check_classes(&a[A_ROW_OFFSETS], &a[A_POINT_OFFSETS], &a[A_ROWS], &a[A_SAMPLE_WEIGHT]) ||
           ddoq_check_starts(&a[A_ROW_OFFSETS], &a[A_POINT_OFFSETS], n_init, &a[A_UNIFORMS], &a[A_START_ROWS],
                             &a[A_START_POINTS], d);
}

static struct ddoq_quantize_args job_of(const struct array *a, size_t n_init, size_t max_iter)
{
    return (struct ddoq_quantize_args){
        .type = a[A_X].real,
        .X = a[A_X].data,
        .d = a[A_X].shape[1],
        .sample_weight = a[A_SAMPLE_WEIGHT].data,
        .n_classes = a[A_FORMS].shape[0],
        .rows = a[A_ROWS].data,
        .row_offsets = a[A_ROW_OFFSETS].data,
        .point_offsets = a[A_POINT_OFFSETS].data,
        .n_init = n_init,
        .uniforms = a[A_UNIFORMS].data,
        .start_rows = a[A_START_ROWS].data,
        .start_points = a[A_START_POINTS].data,
        .max_iter = max_iter,
        .forms = a[A_FORMS].data,
        .points = a[A_POINTS].data,
        .weights = a[A_WEIGHTS].data,
        .counts = a[A_COUNTS].data,
        .labels = a[A_LABELS].data,
        .distortion = a[A_DISTORTION].data,
        .n_iter = a[A_N_ITER].data,
    };
}

/* An int of at least 0. */
static int read_number(PyObject *object, const char *name, size_t *value)
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

static int read_progress(PyObject *object, struct caller *caller)
{
    if (Py_IsNone(object))
        return 0;
    caller->progress = object;
    if (PyCallable_Check(object))
        return 0;
    PyErr_SetString(PyExc_TypeError, "progress must be None or a callable");
    return -1;
}

PyObject *ddoq_cuda_quantize_classes(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    struct array a[N_ARGUMENTS] = {0};
    struct placed X = {0}, points = {0};
    struct caller caller = {0};
    struct ddoq_cuda_error error = {0};
    struct ddoq_cuda_job job = {.poll = {.call = poll_python, .context = &caller}};
    size_t n_init, max_iter, device, stream;

    if (check_arguments("quantize_classes", n_args, N_ARGUMENTS) || ddoq_read_placed_samples(args[A_X], &X) ||
        ddoq_read_placed_points(args[A_POINTS], &points) || read_arrays(args, a) ||
        read_count(args[A_N_INIT], "n_init", &n_init) || read_count(args[A_MAX_ITER], "max_iter", &max_iter) ||
        read_number(args[A_DEVICE], "device", &device) || read_number(args[A_STREAM], "stream", &stream) ||
        read_number(args[A_MEMORY], "memory", &job.memory) || check_device(device, &X, &points) ||
        read_progress(args[A_PROGRESS], &caller))
        return NULL;
    a[A_X] = X.array;
    a[A_POINTS] = points.array;
    if (ddoq_check_apart(a, N_ARGUMENTS) || check_job(a, n_init))
        return NULL;
    const struct ddoq_quantize_args quantize = job_of(a, n_init, max_iter);
    job.args = &quantize;
    job.device = (int)device;
    job.stream = (cudaStream_t)stream;
    job.x_on_device = X.device >= 0;
    job.points_on_device = points.device >= 0;
    job.problems = a[A_PROBLEMS].data;
    caller.state = PyEval_SaveThread();
    ddoq_cuda_quantize(&job, &error);
    PyEval_RestoreThread(caller.state);
    if (error.status == DDOQ_CUDA_OK && caller.progress && call_progress(caller.progress, quantize.n_classes))
        return NULL;
    return result_of(&error);
}
