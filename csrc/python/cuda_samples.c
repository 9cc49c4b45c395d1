/* DLPack, as far as it is read here: dlpack.h of its versions 0 and 1, whose layout is fixed. */
#include "python/cuda_samples.h"

#include <stdbool.h>

enum { DL_CUDA = 2, DL_CUDA_MANAGED = 13, DL_FLOAT = 2, DL_BFLOAT = 4 };

struct dl_tensor {
    void *data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides; /* strides in items; NULL: C-contiguous */
    uint64_t byte_offset;
};

struct dl_managed {
    struct dl_tensor tensor;
};

struct dl_versioned {
    uint32_t major, minor;
    void *manager_ctx;
    void (*deleter)(struct dl_versioned *self);
    uint64_t flags;
    struct dl_tensor tensor;
};

static const struct dl_tensor *tensor_of(PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, "dltensor"))
        return &((struct dl_managed *)PyCapsule_GetPointer(capsule, "dltensor"))->tensor;
    if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        const struct dl_versioned *versioned = PyCapsule_GetPointer(capsule, "dltensor_versioned");
        if (versioned->major == 1)
            return &versioned->tensor;
    }
    return NULL;
}

static int read_type(const struct dl_tensor *tensor, struct array *array)
{
    array->type = NPY_FLOAT32;
    array->real = DDOQ_FLOAT32;
    if (tensor->lanes != 1)
        return -1;
    if (tensor->code == DL_BFLOAT && tensor->bits == 16)
        array->real = DDOQ_BFLOAT16;
    else if (tensor->code == DL_FLOAT && tensor->bits == 16)
        array->real = DDOQ_FLOAT16;
    else if (tensor->code != DL_FLOAT || tensor->bits != 32)
        return -1;
    return 0;
}

static int read_capsule(PyObject *capsule, const char *name, struct placed *placed)
{
    const struct dl_tensor *tensor = tensor_of(capsule);
    struct array *array = &placed->array;
    *placed = (struct placed){.array = {.name = name}};
    if (!tensor || (tensor->device_type != DL_CUDA && tensor->device_type != DL_CUDA_MANAGED)) {
        PyErr_Format(PyExc_TypeError, "%s must be a NumPy array or a DLPack capsule of a CUDA device", name);
        return -1;
    }
    if (read_type(tensor, array)) {
        PyErr_Format(PyExc_TypeError, "%s must have dtype float32, float16 or bfloat16 on the device", name);
        return -1;
    }
    if (tensor->ndim != 2) {
        PyErr_Format(PyExc_ValueError, "%s must have 2 dimension(s), not %d", name, (int)tensor->ndim);
        return -1;
    }
    size_t rows = (size_t)tensor->shape[0], cols = (size_t)tensor->shape[1], item = tensor->bits / 8u;
    bool is_contiguous = !tensor->strides || ((cols <= 1 || tensor->strides[1] == 1) &&
                                              (rows <= 1 || tensor->strides[0] == tensor->shape[1]));
    array->data = (char *)tensor->data + tensor->byte_offset;
    if (!is_contiguous || (uintptr_t)array->data % item != 0) {
        PyErr_Format(PyExc_ValueError, "%s must be C-contiguous and aligned", name);
        return -1;
    }
    array->shape[0] = rows;
    array->shape[1] = cols;
    array->bytes = rows * cols * item;
    placed->device = tensor->device_id;
    return 0;
}

int ddoq_read_placed_samples(PyObject *object, struct placed *placed)
{
    if (PyCapsule_CheckExact(object))
        return read_capsule(object, "X", placed);
    placed->device = -1;
    if (ddoq_read_samples(object, &placed->array))
        return -1;
    if (placed->array.real != DDOQ_FLOAT64)
        return 0;
    PyErr_SetString(PyExc_TypeError, "X must not have dtype float64");
    return -1;
}

int ddoq_read_placed_points(PyObject *object, struct placed *placed)
{
    if (!PyCapsule_CheckExact(object)) {
        placed->device = -1;
        return ddoq_read_array(object, "points", NPY_FLOAT32, 2, 1, &placed->array);
    }
    if (read_capsule(object, "points", placed))
        return -1;
    placed->array.output = 1;
    if (placed->array.real == DDOQ_FLOAT32)
        return 0;
    PyErr_SetString(PyExc_TypeError, "points must have dtype float32");
    return -1;
}
