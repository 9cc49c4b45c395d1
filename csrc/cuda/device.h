/* What every CUDA operation shares: how a call fails, and what the machine has. No state; any thread, any device. */
#ifndef DDOQ_CUDA_DEVICE_H
#define DDOQ_CUDA_DEVICE_H

#include <cuda_runtime_api.h>
#include <library_types.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum ddoq_cuda_status {
    DDOQ_CUDA_OK,
    DDOQ_CUDA_NO_MEMORY,   /* of the device or the host */
    DDOQ_CUDA_NO_LIBRARY,  /* cuBLAS cannot be loaded */
    DDOQ_CUDA_INTERRUPTED, /* the poll function asked to stop */
    DDOQ_CUDA_FAILED,
};

/* Of the first call that failed: what, in words. */
struct ddoq_cuda_error {
    enum ddoq_cuda_status status;
    char text[512];
};

/* Records a failed call of the runtime; 0 where it did not fail. */
int ddoq_cuda_check(struct ddoq_cuda_error *error, cudaError_t code, const char *call, const char *file, int line);

/* In a function with a struct ddoq_cuda_error *error and a label cleanup. */
#define DDOQ_CUDA_TRY(call)                                                                                            \
    do {                                                                                                               \
        if (ddoq_cuda_check(error, (call), #call, __FILE__, __LINE__))                                                 \
            goto cleanup;                                                                                              \
    } while (0)

/* Whether CUDA can be used: the runtime's answer, the CUDA version of the driver (0: there is none) and of this build,
 * as 1000 major + 10 minor, and the number of devices. Makes no context. */
struct ddoq_cuda_system {
    const char *problem; /* NULL where there is none */
    int driver, runtime, n_devices;
};

struct ddoq_cuda_system ddoq_cuda_look(void);

struct ddoq_cuda_device {
    char name[256];
    int major, minor;
    size_t memory;
};

/* 0, or -1 where the device cannot be asked. */
int ddoq_cuda_describe(int device, struct ddoq_cuda_device *description);

#ifdef __cplusplus
}
#endif

#endif
