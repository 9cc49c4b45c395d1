/* Lets a CUDA source run on the CPU: what it uses of the language, for one block at a time whose threads are fibers of
 * one thread. They switch at barriers and warp operations alone, in an order that the tests vary: a sum that depends
 * on it, or a barrier that is missing, shows in the bits. Included in front of a source by build.py. */
#ifndef DDOQ_EMULATOR_H
#define DDOQ_EMULATOR_H

#include <cuda_runtime_api.h>
#include <math.h>
#include <string.h>

#include <functional>

#undef __shared__
#define __shared__ static /* one block at a time */
#undef __launch_bounds__
#define __launch_bounds__(...)

struct Index {
    unsigned x, y;
};

namespace emulator
{
extern unsigned thread, block, threads, width, blocks; /* width: of a block, threads that have the same y */
extern double *dynamic_shared;                         /* a page that nobody may touch follows it */
void barrier_block();
void barrier_warp();
/* Runs the kernel of so many blocks; true for a launch that a device takes. */
bool launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &kernel);
/* Every lane's value, once all lanes of the warp have given theirs. */
const double *exchange(double value);
int vote(int value); /* number of threads of the block with a value other than 0 */

static inline float flushed(float x)
{
    return fabsf(x) < 0x1p-126f ? 0 : x;
}

static inline float widen_float16(unsigned short bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float value = exponent == 0 ? ldexpf((float)fraction, -24) : ldexpf((float)(fraction + 1024), exponent - 25);
    if (exponent == 31)
        value = fraction ? NAN : INFINITY;
    return bits >> 15 ? -value : value;
}
} // namespace emulator

#define threadIdx (Index{emulator::thread % emulator::width, emulator::thread / emulator::width})
#define blockIdx (Index{emulator::block, 0})
#define blockDim (Index{emulator::width, emulator::threads / emulator::width})
#define gridDim (Index{emulator::blocks, 1})

static inline void __syncthreads()
{
    emulator::barrier_block();
}

static inline void __syncwarp()
{
    emulator::barrier_warp();
}

static inline void __threadfence()
{
}

static inline int __syncthreads_or(int value)
{
    return emulator::vote(value) > 0;
}

static inline int __syncthreads_and(int value)
{
    return emulator::vote(!value) == 0;
}

static inline double __shfl_xor_sync(unsigned, double value, int step)
{
    return emulator::exchange(value)[(emulator::thread % 32) ^ (unsigned)step];
}

static inline double __shfl_up_sync(unsigned, double value, int step)
{
    unsigned lane = emulator::thread % 32;
    return emulator::exchange(value)[lane >= (unsigned)step ? lane - (unsigned)step : lane];
}

static inline unsigned __ballot_sync(unsigned, int value)
{
    const double *given = emulator::exchange(value ? 1 : 0);
    unsigned bits = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        bits |= (given[lane] != 0 ? 1u : 0u) << lane;
    return bits;
}

static inline int __popc(unsigned bits)
{
    return __builtin_popcount(bits);
}

static inline int __ffs(unsigned bits)
{
    return __builtin_ffs((int)bits);
}

static inline int atomicAdd(int *at, int value)
{
    int before = *at;
    *at += value;
    return before;
}

static inline unsigned atomicOr(unsigned *at, unsigned bits)
{
    unsigned before = *at;
    *at |= bits;
    return before;
}

static inline unsigned atomicInc(unsigned *at, unsigned last)
{
    unsigned before = *at;
    *at = before >= last ? 0 : before + 1;
    return before;
}

static inline double __ldcg(const double *at)
{
    return *at;
}

static inline int min(int a, int b)
{
    return a < b ? a : b;
}

static inline unsigned min(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static inline size_t min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline int max(int a, int b)
{
    return a > b ? a : b;
}

static inline float __int_as_float(int bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline double __longlong_as_double(long long bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float __uint_as_float(unsigned bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
