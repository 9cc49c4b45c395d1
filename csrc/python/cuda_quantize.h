/* The quantiser on a GPU as a function of the module. */
#ifndef DDOQ_PYTHON_CUDA_QUANTIZE_H
#define DDOQ_PYTHON_CUDA_QUANTIZE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *ddoq_cuda_quantize_classes(PyObject *module, PyObject *const *args, Py_ssize_t n_args);

#endif
