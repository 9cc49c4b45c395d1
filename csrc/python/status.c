/* What a status says in Python. */
#include "python/status.h"

PyObject *ddoq_result_of(enum ddoq_status status, const char *where)
{
    switch (status) {
    case DDOQ_OK:
        Py_RETURN_NONE;
    case DDOQ_NO_MEMORY:
        return PyErr_Format(PyExc_MemoryError, "not enough memory%s", where);
    case DDOQ_NOT_FINITE:
        return PyErr_Format(PyExc_ValueError, "X holds NaN, infinity or values whose squares overflow its dtype%s",
                            where);
    case DDOQ_INTERRUPTED:
    case DDOQ_BAD_ROW: /* of the loss, whose binding names it */
        break;
    }
    if (!PyErr_Occurred()) /* the child of a poll that forked */
        PyErr_SetString(PyExc_RuntimeError, "forked in the middle of the call, whose work goes on in the parent alone");
    return NULL;
}
