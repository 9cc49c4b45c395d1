/* The arithmetic of one row of the loss: what an entry adds to the row's sums, and what these say. All is to base 2,
 * from the row's largest logit on. */
#ifndef DDOQ_CUDA_LOSS_TERMS_CUH
#define DDOQ_CUDA_LOSS_TERMS_CUH

#include "cuda/loss_args.h"

namespace
{
constexpr float LN2 = 0.693147180559945309f;
constexpr float SUM_TOLERANCE = (float)DDOQ_SUM_TOLERANCE;

/* A call, as the kernels read it. */
struct job {
    struct ddoq_cuda_loss_args a;
    enum ddoq_type gradient_type;
    int n, k, tasks;        /* classes; classes in a row of top-k; sums of rows */
    size_t task_rows;       /* rows in a sum */
    float scale, scale2;    /* 1 / temperature; the same over ln 2 */
    float share;            /* 1 / n_rows */
    float eps, named, rest; /* label smoothing, and what it makes of a class index: of the class, of all others */
};

/* What a row is reduced to, by kind of target: the sums of the exponentials, of the loss's terms, of the target, and of
 * the logits that are not in top-k. */
enum { SUM, CROSS, MASS, REST };
template <enum ddoq_target KIND> constexpr int SUMS = KIND == DDOQ_INDEX ? 2 : KIND == DDOQ_TOPK ? 4 : 3;
template <enum ddoq_target KIND> constexpr bool DENSE = KIND == DDOQ_PROBS || KIND == DDOQ_LOGITS;

__device__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ float log2_fast(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ float not_a_number(void)
{
    return __int_as_float(0x7fffffff);
}

/* Adds p log2 p - p log2 q to a sum, NaN for p below 0. A class of probability 0, or below float's normal range, adds
 * nothing, whatever its logits. */
__device__ __forceinline__ void add_divergence(float p, float log2_q, float &sum)
{
    if (fabsf(p) >= 0x1p-126f)
        sum += p * (log2_fast(p) - log2_q);
}

/* A row's weight and class index as they are in memory: asked for before the row, looked at after it. */
struct asked {
    double wide;
    float narrow;
    int64_t index;
};

template <enum ddoq_target KIND> __device__ __forceinline__ struct asked ask(const struct job &j, size_t row)
{
    struct asked asked = {};
    if (j.a.weight_type == DDOQ_FLOAT64)
        asked.wide = static_cast<const double *>(j.a.weight)[row];
    else
        asked.narrow = static_cast<const float *>(j.a.weight)[row];
    if (KIND == DDOQ_INDEX)
        asked.index = j.a.indices[row];
    return asked;
}

/* The weight, NaN where it breaks the rule. */
__device__ __forceinline__ float weight_of(const struct job &j, const struct asked &asked)
{
    float weight = j.a.weight_type == DDOQ_FLOAT64 ? (float)asked.wide : asked.narrow;
    return weight >= 0 && weight < INFINITY ? weight : not_a_number();
}

/* Logit x to base 2, from the largest on: x scale2 - most scale2, rounded once after the subtraction. All that follows
 * is relative to most scale2 as it is rounded, so that the size of the logits adds no error. */
__device__ __forceinline__ float to_base2(const struct job &j, float x, float most2)
{
    return fmaf(x, j.scale2, -most2);
}

/* Logit s and target t become their exponentials, which the sums take in. is_rest: not past the row's end nor in top-k.
 */
template <enum ddoq_target KIND>
__device__ __forceinline__ void accumulate(const struct job &j, const float *most2, bool is_rest, float &s, float &t,
                                           float *sums)
{
    const float z = to_base2(j, s, most2[0]);
    s = exp2_fast(z);
    sums[SUM] += s;
    if (KIND == DDOQ_TOPK && is_rest) {
        sums[REST] += z;
    } else if (KIND == DDOQ_PROBS) {
        sums[MASS] += t;
        add_divergence(t, z, sums[CROSS]);
    } else if (KIND == DDOQ_LOGITS) {
        const float z_target = to_base2(j, t, most2[1]);
        t = exp2_fast(z_target);
        sums[MASS] += t;
        if (t != 0)
            sums[CROSS] += t * (z_target - z);
    }
}

/* Loss and gradient of a row: an entry of the gradient is s student - t target, where t is the target, or its
 * exponential, or for indices and top-k `rest` in all classes that they do not name. */
struct result {
    float loss, student, target, rest;
};

template <enum ddoq_target KIND>
__device__ __forceinline__ struct result settle(const struct job &j, const float *sums, float factor, float z_named)
{
    const float log2_sum = log2f(sums[SUM]), n = (float)j.n;
    if (KIND == DDOQ_INDEX) {
        float loss = log2_sum - z_named;
        if (j.eps > 0)
            loss = (1 - j.eps) * loss + j.eps * (log2_sum - sums[CROSS] / n);
        return {LN2 * loss, factor / sums[SUM], factor, j.rest};
    }
    float mass = sums[MASS], loss = sums[CROSS], rest = 0;
    factor *= j.scale;
    if (KIND == DDOQ_LOGITS)
        return {LN2 * (loss / mass - log2f(mass) + log2_sum), factor / sums[SUM], factor / mass, 0};
    const bool whole = KIND == DDOQ_PROBS || j.k == j.n;
    if (!(mass <= 1 + SUM_TOLERANCE) || (whole && mass < 1 - SUM_TOLERANCE) || isnan(loss))
        factor = loss = not_a_number();
    if (!whole && mass < 1) {
        rest = (1 - mass) / (n - (float)j.k);
        loss += (1 - mass) * log2f(rest) - rest * sums[REST];
        mass = 1;
    }
    return {LN2 * (loss + mass * log2_sum), factor * mass / sums[SUM], factor, rest};
}
} // namespace

#endif
