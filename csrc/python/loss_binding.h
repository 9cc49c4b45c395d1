/* The weighted loss as a function of the module. */
#ifndef DDOQ_PYTHON_LOSS_BINDING_H
#define DDOQ_PYTHON_LOSS_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *ddoq_core_weighted_loss(PyObject *module, PyObject *const *args, Py_ssize_t n_args);

#endif
