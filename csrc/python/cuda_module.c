/* Binding of the CUDA part: as that of the C core, positional arguments alone; ddoq._backend is its only importer. */
#include "python/arguments.h"
#include "python/cuda_loss_binding.h"
#include "python/cuda_quantize.h"

#include "cuda/class.h"
#include "cuda/cublas.h"
#include "cuda/loss.h"

/* ---- functions ---- */

static PyObject *device_tuple(int device)
{
    struct ddoq_cuda_device found;
    if (ddoq_cuda_describe(device, &found))
        return PyErr_Format(PyExc_RuntimeError, "CUDA device %d cannot be asked what it is", device);
    return Py_BuildValue("(siin)", found.name, found.major, found.minor, (Py_ssize_t)found.memory);
}

static PyObject *cuda_look(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    struct ddoq_cuda_system system = ddoq_cuda_look();
    PyObject *devices = PyTuple_New(system.n_devices);
    for (int i = 0; devices && i < system.n_devices; i++) {
        PyObject *device = device_tuple(i);
        if (!device || PyTuple_SetItem(devices, i, device))
            Py_CLEAR(devices);
    }
    if (!devices)
        return NULL;
    return Py_BuildValue("(ziiNs)", system.problem, system.driver, system.runtime, devices, DDOQ_CUDA_ARCHS);
}

enum { MAX_PATHS = 32 }; /* more than there are places to look in */

static PyObject *cuda_load_cublas(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    const char *paths[MAX_PATHS];
    struct ddoq_cuda_error error = {0};
    if (n_args > MAX_PATHS)
        return PyErr_Format(PyExc_TypeError, "load_cublas takes at most %d paths", (int)MAX_PATHS);
    for (Py_ssize_t i = 0; i < n_args; i++) {
        if (!PyUnicode_Check(args[i]))
            return PyErr_Format(PyExc_TypeError, "a path must be a str");
        paths[i] = PyUnicode_AsUTF8AndSize(args[i], NULL);
        if (!paths[i])
            return NULL;
    }
    PyThreadState *state = PyEval_SaveThread();
    int failed = ddoq_cublas_load(paths, (size_t)n_args, &error);
    PyEval_RestoreThread(state);
    return failed ? PyErr_Format(PyExc_ImportError, "cuBLAS cannot be loaded: %s", error.text) : Py_NewRef(Py_None);
}

/* ---- module ---- */

static PyMethodDef methods[] = {
    {"look", cuda_look, METH_NOARGS, PyDoc_STR("look(): what the runtime, the driver and the devices are.")},
    {"load_cublas", (PyCFunction)(void (*)(void))cuda_load_cublas, METH_FASTCALL,
     PyDoc_STR("load_cublas(*paths): load cuBLAS, unless that is done.")},
    {"quantize_classes", (PyCFunction)(void (*)(void))ddoq_cuda_quantize_classes, METH_FASTCALL,
     PyDoc_STR("quantize_classes(...): see _cuda.pyi.")},
    {"weighted_loss", (PyCFunction)(void (*)(void))ddoq_cuda_module_weighted_loss, METH_FASTCALL,
     PyDoc_STR("weighted_loss(...): puts the loss and its gradient by the logits into a stream.")},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "FINE", DDOQ_CUDA_FINE) ||
        PyModule_AddIntConstant(module, "TOO_ALIKE", DDOQ_CUDA_TOO_ALIKE) ||
        PyModule_AddIntConstant(module, "NOT_FINITE", DDOQ_CUDA_NOT_FINITE) ||
        PyModule_AddIntConstant(module, "LOSS_WORKSPACE", DDOQ_CUDA_LOSS_WORKSPACE) ||
        PyModule_AddIntConstant(module, "LOSS_CLASSES", DDOQ_CUDA_LOSS_CLASSES) ||
        PyModule_AddIntConstant(module, "LOSS_TOPK_CLASSES", DDOQ_CUDA_LOSS_TOPK_CLASSES))
        return -1;
    return ddoq_import_numpy();
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)execute},
#if !defined(Py_LIMITED_API) && defined(Py_mod_gil)
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ddoq._cuda",
    .m_doc = "Quantisation and loss on NVIDIA GPUs; ddoq._backend is its only importer.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__cuda(void)
{
    return PyModuleDef_Init(&definition);
}
