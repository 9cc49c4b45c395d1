#include "python/isas.h"

int ddoq_read_isa(PyObject *object, const struct ddoq_isa **isa)
{
    if (!PyUnicode_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "isa must be a str");
        return -1;
    }
    for (size_t i = 0; (*isa = ddoq_isa_at(i)); i++)
        if (PyUnicode_CompareWithASCIIString(object, ddoq_isa_name(*isa)) == 0)
            return 0;
    PyErr_Format(PyExc_ValueError, "isa %R is none of this machine's", object);
    return -1;
}

PyObject *ddoq_core_isas(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    size_t n = 0;
    while (ddoq_isa_at(n))
        n++;
    PyObject *names = PyTuple_New((Py_ssize_t)n);
    for (size_t i = 0; names && i < n; i++) {
        PyObject *name = PyUnicode_FromString(ddoq_isa_name(ddoq_isa_at(i)));
        if (!name || PyTuple_SetItem(names, (Py_ssize_t)i, name))
            Py_CLEAR(names);
    }
    return names;
}
