/* The quantiser's functions of the module. */
#ifndef DDOQ_PYTHON_QUANTIZE_BINDING_H
#define DDOQ_PYTHON_QUANTIZE_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *ddoq_core_quantize_classes(PyObject *module, PyObject *const *args, Py_ssize_t n_args);
PyObject *ddoq_core_form_bytes(PyObject *module, PyObject *const *args, Py_ssize_t n_args);
PyObject *ddoq_core_seed_trials(PyObject *module, PyObject *const *args, Py_ssize_t n_args);

#endif
