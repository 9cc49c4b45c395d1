/* The one place where a status of the core becomes a result or an exception. */
#ifndef DDOQ_PYTHON_STATUS_H
#define DDOQ_PYTHON_STATUS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "ddoq.h"

/* None, or NULL with an exception set, unless a poll has set one; where, for the message: "" or the class. */
PyObject *ddoq_result_of(enum ddoq_status status, const char *where);

#endif
