/* As much of the CUDA runtime as ddoq calls, on the CPU: all work is done at once, device memory is
 * memory. $EMULATOR_MEMORY: bytes of the device (1 GiB). $EMULATOR_REFUSE: from so many bytes on an allocation fails.
 * $EMULATOR_WAIT: milliseconds that work takes in the eyes of who asks for its end. */
#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <chrono>
#include <map>
#include <mutex>

#include "emulator.h"

namespace
{
std::map<void *, size_t> allocated;
std::mutex lock;
size_t used;
thread_local int device;
thread_local std::chrono::steady_clock::time_point recorded; /* the last event */
thread_local cudaError_t last = cudaSuccess;

size_t setting(const char *name, size_t otherwise)
{
    const char *value = getenv(name);
    return value ? (size_t)strtoull(value, nullptr, 10) : otherwise;
}

cudaError_t fail(cudaError_t code)
{
    last = code;
    return code;
}
} // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 2;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int)
{
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "emulated");
    properties->totalGlobalMem = setting("EMULATOR_MEMORY", (size_t)1 << 30);
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t code)
{
    return code == cudaErrorMemoryAllocation ? "out of memory" : "invalid argument";
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t code = last;
    last = cudaSuccess;
    return code;
}

cudaError_t cudaGetDevice(int *which)
{
    *which = device;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int which)
{
    if (which < 0 || which > 1)
        return fail(cudaErrorInvalidDevice);
    device = which;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr, int)
{
    *value = 2; /* multiprocessors */
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *, int, size_t)
{
    *blocks = 1;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    std::lock_guard<std::mutex> guard(lock);
    *total = setting("EMULATOR_MEMORY", (size_t)1 << 30);
    *free_bytes = *total > used ? *total - used : 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    std::lock_guard<std::mutex> guard(lock);
    if (bytes >= setting("EMULATOR_REFUSE", SIZE_MAX) || bytes + used > setting("EMULATOR_MEMORY", (size_t)1 << 30))
        return fail(cudaErrorMemoryAllocation);
    *memory = aligned_alloc(256, (bytes + 511) / 256 * 256);
    memset(*memory, 0xff, bytes); /* NaN, and -1: what is read before it is written shows */
    allocated[*memory] = bytes;
    used += bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    std::lock_guard<std::mutex> guard(lock);
    if (!memory)
        return cudaSuccess;
    if (!allocated.count(memory))
        abort();
    used -= allocated[memory];
    allocated.erase(memory);
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    *memory = malloc(bytes ? bytes : 1);
    return *memory ? cudaSuccess : fail(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void *memory)
{
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind, cudaStream_t)
{
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t)
{
    memset(to, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = (cudaStream_t)malloc(1);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    free(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = (cudaEvent_t)malloc(1);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    free(event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t)
{
    recorded = std::chrono::steady_clock::now();
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t)
{
    auto passed = std::chrono::steady_clock::now() - recorded;
    bool done = passed >= std::chrono::milliseconds(setting("EMULATOR_WAIT", 0));
    return done ? cudaSuccess : cudaErrorNotReady;
}

/* Bytes of the device that are allocated now. */
size_t emulator_used(void)
{
    return used;
}

cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return cudaSuccess;
}
}
