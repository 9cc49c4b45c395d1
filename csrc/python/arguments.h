/* Small positional arguments of the modules' functions. All return 0, or -1 with an exception set. */
#ifndef DDOQ_PYTHON_ARGUMENTS_H
#define DDOQ_PYTHON_ARGUMENTS_H

#include "python/arrays.h"

/* The kinds of targets by enum ddoq_target, and NULL. */
extern const char *const ddoq_target_names[];

int ddoq_check_arguments(const char *name, Py_ssize_t given, Py_ssize_t wanted);
/* An int of at least 1. */
int ddoq_read_count(PyObject *object, const char *name, size_t *value);
/* A finite float of at least least, which is 0, or else the lowest positive number. */
int ddoq_read_real(PyObject *object, const char *name, double least, double *value);

#endif
