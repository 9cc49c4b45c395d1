/* Failures of CUDA calls in words, and what the machine has. */
#include "cuda/device.h"

#include <stdio.h>
#include <string.h>

int ddoq_cuda_check(struct ddoq_cuda_error *error, cudaError_t code, const char *call, const char *file, int line)
{
    if (code == cudaSuccess)
        return 0;
    cudaGetLastError(); /* an error that does not stay must not meet the next call */
    if (error->status == DDOQ_CUDA_OK) {
        const char *name = strrchr(file, '/');
        error->status = code == cudaErrorMemoryAllocation ? DDOQ_CUDA_NO_MEMORY : DDOQ_CUDA_FAILED;
        snprintf(error->text, sizeof error->text, "%s (%s:%d: %.200s)", cudaGetErrorString(code),
                 name ? name + 1 : file, line, call);
    }
    return -1;
}

struct ddoq_cuda_system ddoq_cuda_look(void)
{
    struct ddoq_cuda_system system = {0};
    cudaError_t code = cudaGetDeviceCount(&system.n_devices);
    if (code != cudaSuccess) {
        cudaGetLastError();
        system.problem = cudaGetErrorString(code);
        system.n_devices = 0;
    }
    if (cudaDriverGetVersion(&system.driver) != cudaSuccess)
        system.driver = 0;
    if (cudaRuntimeGetVersion(&system.runtime) != cudaSuccess)
        system.runtime = 0;
    return system;
}

int ddoq_cuda_describe(int device, struct ddoq_cuda_device *description)
{
    struct cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) {
        cudaGetLastError();
        return -1;
    }
    snprintf(description->name, sizeof description->name, "%s", properties.name);
    description->major = properties.major;
    description->minor = properties.minor;
    description->memory = properties.totalGlobalMem;
    return 0;
}
