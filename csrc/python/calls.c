/* Polling. */
#include "python/calls.h"

int ddoq_call_progress(PyObject *progress, size_t done)
{
    PyObject *result = PyObject_CallFunction(progress, "n", (Py_ssize_t)done);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

int ddoq_read_progress(PyObject *object, struct caller *caller)
{
    if (Py_IsNone(object))
        return 0;
    caller->progress = object;
    if (PyCallable_Check(object))
        return 0;
    PyErr_SetString(PyExc_TypeError, "progress must be None or a callable");
    return -1;
}

int ddoq_poll_python(void *context, size_t done)
{
    struct caller *caller = context;
    PyEval_RestoreThread(caller->state);
    int stop = PyErr_CheckSignals();
    if (!stop && caller->progress)
        stop = ddoq_call_progress(caller->progress, done);
    caller->state = PyEval_SaveThread();
    return stop;
}
