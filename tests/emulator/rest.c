/* What the module's table names and the emulator leaves out. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *ddoq_cuda_module_weighted_loss(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    (void)module, (void)args, (void)n_args;
    PyErr_SetString(PyExc_NotImplementedError, "the emulator has no loss");
    return NULL;
}
