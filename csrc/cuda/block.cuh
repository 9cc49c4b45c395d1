/* Sums over a block in an order that depends on nothing but the number of summands: each thread its share in turn, the
 * lanes of a warp by halves, the warps in turn. No atomics on floating point. tests/cuda_model.py has the same. */
#ifndef DDOQ_CUDA_BLOCK_CUH
#define DDOQ_CUDA_BLOCK_CUH

#include <math_constants.h>

#include "classes.h"
#include "cuda/class.h"

#define LANES 32
#define WARPS 8 /* four blocks of so many fill the registers of a multiprocessor, at 64 a thread */
#define THREADS (WARPS * LANES)
#define ALL_LANES 0xffffffffu
#define TRIALS 8 /* candidates of the seeding that are looked at together */

typedef struct ddoq_cuda_class Class;

/* Of one block, in shared memory. */
struct Shared {
    Class c;
    double sum[TRIALS][WARPS];
    double inclusive[THREADS]; /* sums of the masses up to and with each thread's share */
    double cost[WARPS][LANES];
    int32_t choice[WARPS][LANES];
    double norm[TRIALS];
    int32_t candidate[TRIALS];
    int32_t mover, from, to;
    int32_t chosen; /* a sample, or n */
    int32_t n_iter;
};

__device__ inline int lane_of()
{
    return threadIdx.x % LANES;
}

__device__ inline int warp_of()
{
    return threadIdx.x / LANES;
}

/* Sum of the lanes, the same bits in each. */
__device__ inline double warp_sum(double value)
{
    for (int step = LANES / 2; step > 0; step /= 2)
        value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}

/* Sum of the threads' values, the same bits in each; sums is shared. Ends with the threads in step. */
__device__ inline double block_sum(double (&sums)[WARPS], double value)
{
    value = warp_sum(value);
    if (lane_of() == 0)
        sums[warp_of()] = value;
    __syncthreads();
    double sum = 0;
    for (int warp = 0; warp < WARPS; warp++)
        sum += sums[warp];
    __syncthreads();
    return sum;
}

#endif
