/* Small positional arguments of the modules' functions. All return 0, or -1 with an exception set. */
#ifndef DDOQ_PYTHON_ARGUMENTS_H
#define DDOQ_PYTHON_ARGUMENTS_H

#include "python/arrays.h"

int check_arguments(const char *name, Py_ssize_t given, Py_ssize_t wanted);
/* An int of at least 1. */
int read_count(PyObject *object, const char *name, size_t *value);
/* Of the core alone. */
int read_isa(PyObject *object, const struct ddoq_isa **isa);

#endif
