/* Running with the GIL released, and hearing Python's signals and the caller's progress function meanwhile. */
#ifndef DDOQ_PYTHON_CALLS_H
#define DDOQ_PYTHON_CALLS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

struct caller {
    PyThreadState *state; /* while the GIL is released */
    PyObject *progress;   /* NULL or a callable */
};

/* 0, or -1 with an exception set. */
int ddoq_call_progress(PyObject *progress, size_t done);
/* None or a callable; 0, or -1 with an exception set. */
int ddoq_read_progress(PyObject *object, struct caller *caller);
/* The poll function of a call, whose context is its struct caller. */
int ddoq_poll_python(void *context, size_t done);

#endif
