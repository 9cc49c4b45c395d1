/* The classes that a row of top-k names: a thread's entries are the bits of one word of shared memory. */
#ifndef DDOQ_CUDA_LOSS_TOP_CUH
#define DDOQ_CUDA_LOSS_TOP_CUH

#include "cuda/loss_rows.cuh"
#include "cuda/loss_terms.cuh"

namespace
{
struct top {
    size_t first; /* of the row's values and classes */
    unsigned *marks;
};

/* Calls f(class, value) for the thread's share of the row's k; class -1: outside the range. */
template <typename F> __device__ __forceinline__ void each_top(const struct job &j, const struct top &top, F f)
{
    for (int i = threadIdx.x; i < j.k; i += blockDim.x) {
        int64_t y = j.a.indices[top.first + i];
        f(y >= 0 && y < j.n ? (int)y : -1, read_one(j.a.soft, j.a.target_type, top.first + i));
    }
}

/* Words of marks for a row of n classes. */
__host__ __device__ int mark_words(int n)
{
    return ((n - 1) / (WARP * HELD) + 1) * WARP;
}

/* Whether the class had its mark before. */
template <int V> __device__ __forceinline__ bool set_mark(unsigned *marks, int y)
{
    const unsigned mark = 1u << place_of<V>(y);
    return atomicOr(&marks[thread_of<V>(y)], mark) & mark;
}

/* Marks the row's classes; the sum of the thread's values, NaN where one of them breaks a rule. */
template <int V> __device__ __forceinline__ float mark_top(const struct job &j, const struct top &top)
{
    float mass = 0;
    for (int i = threadIdx.x; i < mark_words(j.n); i += blockDim.x)
        top.marks[i] = 0;
    meet();
    each_top(j, top, [&](int y, float value) {
        if (y < 0 || !(value >= 0) || set_mark<V>(top.marks, y))
            value = not_a_number();
        mass += value;
    });
    meet();
    return mass;
}
} // namespace

#endif
