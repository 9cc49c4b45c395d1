/* Binding of the weighted loss on a CUDA device. */
#ifndef DDOQ_PYTHON_CUDA_LOSS_BINDING_H
#define DDOQ_PYTHON_CUDA_LOSS_BINDING_H

#include "python/arguments.h"

PyObject *ddoq_cuda_module_weighted_loss(PyObject *module, PyObject *const *args, Py_ssize_t n_args);

#endif
