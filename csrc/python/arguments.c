/* Small positional arguments that both modules read. */
#include "python/arguments.h"

#include <math.h>

const char *const ddoq_target_names[] = {
    [DDOQ_INDEX] = "index", [DDOQ_PROBS] = "probs", [DDOQ_LOGITS] = "logits", [DDOQ_TOPK] = "topk", NULL};

int ddoq_check_arguments(const char *name, Py_ssize_t given, Py_ssize_t wanted)
{
    if (given == wanted)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s takes %zd positional arguments, %zd given", name, wanted, given);
    return -1;
}

int ddoq_read_count(PyObject *object, const char *name, size_t *value)
{
    if (!PyLong_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be an int", name);
        return -1;
    }
    Py_ssize_t read = PyLong_AsSsize_t(object);
    if (read == -1 && PyErr_Occurred())
        PyErr_Clear(); /* out of range: refused below */
    if (read < 1) {
        PyErr_Format(PyExc_ValueError, "%s must be from 1 to %zd, not %S", name, PY_SSIZE_T_MAX, object);
        return -1;
    }
    *value = (size_t)read;
    return 0;
}

int ddoq_read_real(PyObject *object, const char *name, double least, double *value)
{
    if (!PyFloat_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be a float", name);
        return -1;
    }
    *value = PyFloat_AsDouble(object);
    if (*value >= least && isfinite(*value))
        return 0;
    PyErr_Format(PyExc_ValueError, "%s must be finite and %s, not %S", name, least > 0 ? "positive" : "not negative",
                 object);
    return -1;
}
