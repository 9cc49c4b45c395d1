/* A row spread over the threads that work on it, HELD entries a thread, and what they do together: read, write, reduce.
 *
 * The threads of a row are one warp, of which WARPS share a block, or the warps of a whole block. A warp has WARP HELD
 * neighbouring entries, which its lanes take in turn, V at a time: V = 4 where rows begin at such addresses, 16 bytes
 * of float and 8 of the halves, whole sectors with either, and the same places for any pair of types. All of a thread's
 * loads are under way before the first is used: 32 entries a lane are 2 to 4 KB a warp, so some ten warps a
 * multiprocessor keep the memory busy. Bits are read first and widened later, by types that are looked up at run time,
 * the same for all threads: 12 kernels instead of 108. */
#ifndef DDOQ_CUDA_LOSS_ROWS_CUH
#define DDOQ_CUDA_LOSS_ROWS_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "ddoq.h"

constexpr int WARP = 32, HELD = 32, WARPS = 8;

/* A half, in the lower 16 bits, as float. */
__device__ __forceinline__ float widen(unsigned bits, enum ddoq_type type)
{
    return type == DDOQ_BFLOAT16 ? __uint_as_float(bits << 16) : __half2float(__ushort_as_half((unsigned short)bits));
}

__device__ __forceinline__ float read_one(const void *x, enum ddoq_type type, size_t i)
{
    return type == DDOQ_FLOAT32 ? static_cast<const float *>(x)[i]
                                : widen(static_cast<const unsigned short *>(x)[i], type);
}

__device__ __forceinline__ void write_one(void *x, enum ddoq_type type, size_t i, float value)
{
    if (type == DDOQ_FLOAT32)
        static_cast<float *>(x)[i] = value;
    else
        static_cast<__nv_bfloat16 *>(x)[i] = __float2bfloat16_rn(value);
}

/* A thread's entries of a row: the first of them, and how many the row has from there on, 0 or less past its end. */
struct share {
    int first, left;
};

/* Of the part of a row of n that begins at an entry. */
template <int V> __device__ __forceinline__ struct share take(int begin, int n)
{
    int first = begin + (int)threadIdx.x / WARP * (WARP * HELD) + (int)threadIdx.x % WARP * V;
    return {first, n - first};
}

/* Where an entry is: its thread's number, counted through all parts of the row, and its place there. */
template <int V> __device__ __forceinline__ int thread_of(int entry)
{
    return entry / (WARP * HELD) * WARP + entry % (WARP * V) / V;
}

template <int V> __device__ __forceinline__ int place_of(int entry)
{
    return entry % (WARP * HELD) / (WARP * V) * V + entry % V;
}

/* Calls f(share) for all parts of a row of n. */
template <int V, typename F> __device__ __forceinline__ void each_page(int n, F f)
{
    for (int begin = 0; begin < n; begin += HELD * blockDim.x)
        f(take<V>(begin, n));
}

/* Calls f(place, distance from the thread's first entry) for all places, past the end of the row too. */
template <int V, typename F> __device__ __forceinline__ void each_place(F f)
{
#pragma unroll
    for (int place = 0; place < HELD; place++)
        f(place, place / V * V * WARP + place % V);
}

/* The bits of x from offset on, in each chunk from the left; pad, in the type of x, past the end of the row. */
template <int V>
__device__ __forceinline__ void fetch(const void *x, enum ddoq_type type, size_t offset, int left, unsigned pad,
                                      unsigned *bits)
{
    const unsigned *wide = static_cast<const unsigned *>(x) + offset;
    const unsigned short *half = static_cast<const unsigned short *>(x) + offset;
#pragma unroll
    for (int place = 0; place < HELD; place++)
        bits[place] = pad;
    if (type == DDOQ_FLOAT32) {
#pragma unroll
        for (int place = 0; place < HELD; place += V)
            if (place * WARP < left) {
                if (V == 1)
                    bits[place] = wide[place * WARP];
                else
                    *reinterpret_cast<uint4 *>(bits + place) = *reinterpret_cast<const uint4 *>(wide + place * WARP);
            }
    } else {
#pragma unroll
        for (int place = 0; place < HELD; place += V)
            if (place * WARP < left) {
                if (V == 1)
                    bits[place] = half[place * WARP];
                else
                    *reinterpret_cast<uint2 *>(bits + place) = *reinterpret_cast<const uint2 *>(half + place * WARP);
            }
    }
}

template <int V> __device__ __forceinline__ unsigned half_of(const unsigned *bits, int place)
{
    return V == 1 ? bits[place] : bits[place / 4 * 4 + place % 4 / 2] >> place % 2 * 16 & 0xffff;
}

/* What fetch read, as float. */
template <int V> __device__ __forceinline__ void unpack(const unsigned *bits, enum ddoq_type type, float *x)
{
    if (type == DDOQ_FLOAT32) {
#pragma unroll
        for (int place = 0; place < HELD; place++)
            x[place] = __uint_as_float(bits[place]);
    } else if (type == DDOQ_BFLOAT16) {
#pragma unroll
        for (int place = 0; place < HELD; place++)
            x[place] = widen(half_of<V>(bits, place), DDOQ_BFLOAT16);
    } else {
#pragma unroll
        for (int place = 0; place < HELD; place++)
            x[place] = widen(half_of<V>(bits, place), DDOQ_FLOAT16);
    }
}

/* Writes x from offset on, as float32 or bfloat16. */
template <int V>
__device__ __forceinline__ void write(void *out, enum ddoq_type type, size_t offset, int left, const float *x)
{
    float *wide = static_cast<float *>(out) + offset;
    __nv_bfloat16 *half = static_cast<__nv_bfloat16 *>(out) + offset;
#pragma unroll
    for (int place = 0; place < HELD; place += V) {
        if (place * WARP >= left)
            continue;
        const float *y = x + place;
        if (V == 1) {
            write_one(out, type, offset + place * WARP, *y);
        } else if (type == DDOQ_FLOAT32) {
            *reinterpret_cast<float4 *>(wide + place * WARP) = float4{y[0], y[1], y[2], y[3]};
        } else {
            __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(y[0], y[1]), __floats2bfloat162_rn(y[2], y[3])};
            *reinterpret_cast<uint2 *>(half + place * WARP) = *reinterpret_cast<uint2 *>(pairs);
        }
    }
}

/* The threads of a row meet: what one wrote before, all see after. */
__device__ __forceinline__ void meet(void)
{
    if (blockDim.x == WARP)
        __syncwarp();
    else
        __syncthreads();
}

/* Every thread gets all threads' x reduced by op, each x on its own: a butterfly in the warps, then the warps in their
 * order. Two calls in a row must not share their exchange. */
template <int N, typename Op> __device__ __forceinline__ void reduce(float (&x)[N], float (*exchange)[N], Op op)
{
#pragma unroll
    for (int far = WARP / 2; far > 0; far /= 2)
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] = op(x[i], __shfl_xor_sync(0xffffffff, x[i], far));
    if (blockDim.x == WARP)
        return;
    if (threadIdx.x % WARP == 0)
#pragma unroll
        for (int i = 0; i < N; i++)
            exchange[threadIdx.x / WARP][i] = x[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] = exchange[0][i];
#pragma unroll 1
    for (int warp = 1; warp < blockDim.x / WARP; warp++)
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] = op(x[i], exchange[warp][i]);
}

#endif
