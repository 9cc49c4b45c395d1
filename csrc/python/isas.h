/* Instruction sets by their names. */
#ifndef DDOQ_PYTHON_ISAS_H
#define DDOQ_PYTHON_ISAS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "ddoq.h"

/* One that this machine runs, by its name; 0, or -1 with an exception set. */
int ddoq_read_isa(PyObject *object, const struct ddoq_isa **isa);

/* isas(): the names of all that this machine runs, worst to best. */
PyObject *ddoq_core_isas(PyObject *module, PyObject *unused);

#endif
