/* The weighted loss and its gradient by the logits, in one launch and one pass over the memory: a row is read into
 * registers (loss_rows.cuh), reduced there and overwritten by its gradient. A warp has a row of up to 1,024 classes, a
 * block of up to 8 warps one of up to 8,192; longer rows are read three times, from the second on out of the L2 cache.
 *
 * All is float32, relative to the row's largest logit, with exponentials and logarithms to base 2, which the hardware
 * has (errors of about 2^-22); the rows' losses are added in float64. What a thread adds, it adds in the order of its
 * entries; see `reduce` for the rest of a row, `finish` for the rows: no atomic addition, the same bits every time.
 *
 * Registers are what a multiprocessor runs out of: at most 80 a thread (three blocks of 256) where a row is the logits
 * alone, 128 (two) where it is two, each thread holding 32 or 64 numbers. */
#include "cuda/loss.h"
#include "cuda/loss_rows.cuh"

namespace
{
constexpr float LN2 = 0.693147180559945309f;
constexpr float SUM_TOLERANCE = (float)DDOQ_SUM_TOLERANCE;

struct job {
    struct ddoq_cuda_loss_args a;
    enum ddoq_type gradient_type;
    int n, k, tasks;        /* classes; classes in a row of top-k; sums of rows */
    size_t task_rows;       /* rows in a sum */
    float scale, scale2;    /* 1 / temperature; the same over ln 2 */
    float share;            /* 1 / n_rows */
    float eps, named, rest; /* label smoothing, and what it makes of a class index: of the class, of all others */
};

/* What a row is reduced to, by kind of target. */
enum { SUM, CROSS, MASS, REST }; /* of exponentials; of the loss's terms; of the target; of logits not in top-k */
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

/* ---- the classes that a row of top-k names: a thread's entries are the bits of one word of shared memory ---- */

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

/* ---- one row ---- */

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

/* Minus infinity in both halves of a word, or as a float. */
__device__ unsigned lowest(enum ddoq_type type)
{
    return type == DDOQ_FLOAT32 ? 0xff800000 : type == DDOQ_BFLOAT16 ? 0xff80ff80 : 0xfc00fc00;
}

/* A thread's share of logits, and of targets that are as dense: both are under way before either is used. */
template <enum ddoq_target KIND, int V>
__device__ __forceinline__ void read_share(const struct job &j, size_t offset, int left, float *s, float *t)
{
    unsigned bits[HELD];
    fetch<V>(j.a.logits, j.a.type, offset, left, lowest(j.a.type), bits);
    if constexpr (DENSE<KIND>) {
        unsigned target_bits[HELD];
        fetch<V>(j.a.soft, j.a.target_type, offset, left, KIND == DDOQ_LOGITS ? lowest(j.a.target_type) : 0,
                 target_bits);
        unpack<V>(target_bits, j.a.target_type, t);
    }
    unpack<V>(bits, j.a.type, s);
}

/* The weighted loss of row i; its gradient is written. marks: of the threads of this row. */
template <enum ddoq_target KIND, int V, bool PAGED>
__device__ __forceinline__ float one_row(const struct job &j, size_t i, unsigned *marks)
{
    constexpr int LARGEST = KIND == DDOQ_LOGITS ? 2 : 1;
    constexpr auto target_at = [](int place) { return DENSE<KIND> ? place : 0; };
    __shared__ float exchange_most[WARPS][LARGEST], exchange_sums[WARPS][SUMS<KIND>];
    float s[HELD], t[DENSE<KIND> ? HELD : 1] = {}, most[LARGEST], sums[SUMS<KIND>] = {};
    most[0] = most[LARGEST - 1] = -INFINITY;
    const size_t offset = i * j.a.n_classes;
    const struct top top = {i * j.k, marks};
    const struct asked asked = ask<KIND>(j, i);

    auto read = [&](struct share share) { read_share<KIND, V>(j, offset + share.first, share.left, s, t); };
    auto find_largest = [&] {
        each_place<V>([&](int place, int) {
            most[0] = fmaxf(most[0], s[place]);
            if (KIND == DDOQ_LOGITS)
                most[LARGEST - 1] = fmaxf(most[LARGEST - 1], t[target_at(place)]);
        });
    };
    auto absorb = [&](struct share share, float *into) {
        if (KIND == DDOQ_INDEX && j.eps > 0)
            each_place<V>([&](int place, int far) {
                if (far < share.left)
                    into[CROSS] += to_base2(j, s[place], most[0]);
            });
        const unsigned mine = KIND == DDOQ_TOPK && share.left > 0 ? marks[thread_of<V>(share.first)] : 0;
        each_place<V>([&](int place, int far) {
            const bool is_rest = far < share.left && !(mine >> place & 1);
            accumulate<KIND>(j, most, is_rest, s[place], t[target_at(place)], into);
        });
    };
    auto write_gradient = [&](struct share share, const struct result &result) {
        each_place<V>([&](int place, int) {
            const float target = DENSE<KIND> ? t[target_at(place)] : result.rest;
            s[place] = s[place] * result.student - target * result.target;
        });
        write<V>(j.a.gradient, j.gradient_type, offset + share.first, share.left, s);
    };
    /* The logit of a class that indices name, to base 2, and its entry of the gradient. */
    auto logit_of = [&](int y) { return to_base2(j, read_one(j.a.logits, j.a.type, offset + y), most[0]); };
    auto write_named = [&](int y, float z, float target, const struct result &result) {
        write_one(j.a.gradient, j.gradient_type, offset + y, exp2_fast(z) * result.student - target * result.target);
    };
    const struct share only = take<V>(0, j.n);

    if (!PAGED)
        read(only), find_largest();
    else
        each_page<V>(j.n, [&](struct share share) { read(share), find_largest(); });
    if (KIND == DDOQ_TOPK)
        sums[MASS] = mark_top<V>(j, top);
    reduce(most, exchange_most, [](float a, float b) { return fmaxf(a, b); });
    for (float &x : most)
        x *= j.scale2;

    if (!PAGED)
        absorb(only, sums);
    else
        each_page<V>(j.n, [&](struct share share) { read(share), absorb(share, sums); });
    float weight = weight_of(j, asked), z_named = not_a_number();
    const int named = asked.index >= 0 && asked.index < j.n ? (int)asked.index : -1;
    if (KIND == DDOQ_INDEX && named >= 0)
        z_named = logit_of(named);
    else if (KIND == DDOQ_INDEX)
        weight = not_a_number();
    else if (KIND == DDOQ_TOPK)
        each_top(j, top, [&](int y, float value) {
            if (y >= 0)
                add_divergence(value, logit_of(y), sums[CROSS]);
        });
    reduce(sums, exchange_sums, [](float a, float b) { return a + b; });

    const struct result result = settle<KIND>(j, sums, weight * j.share, z_named);
    if (!PAGED)
        write_gradient(only, result);
    else
        each_page<V>(j.n, [&](struct share share) {
            float unused[SUMS<KIND>] = {};
            read(share), absorb(share, unused);
            write_gradient(share, result);
        });
    if (!DENSE<KIND>)
        meet(); /* these places have been written by others, who have also read their marks */
    if (KIND == DDOQ_INDEX && named >= 0 && threadIdx.x == 0)
        write_named(named, z_named, j.named, result);
    if (KIND == DDOQ_TOPK)
        each_top(j, top, [&](int y, float value) {
            if (y >= 0)
                write_named(y, logit_of(y), value, result);
        });
    return weight * result.loss;
}

/* ---- all rows ---- */

/* The last block to be done adds the tasks' sums: thread by thread in steps of the block, then the threads. */
__device__ void finish(const struct job &j, unsigned *n_done, const double *parts)
{
    __shared__ bool is_last;
    __shared__ double exchange[WARPS];
    const int threads = blockDim.x * blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
    __syncthreads();
    if (thread == 0) {
        __threadfence();
        is_last = atomicInc(n_done, gridDim.x - 1) == gridDim.x - 1; /* begins at 0 again after the last */
    }
    __syncthreads();
    if (!is_last)
        return;
    __threadfence();
    double sum = 0;
    for (int task = thread; task < j.tasks; task += 16 * threads) {
        double part[16];
#pragma unroll
        for (int i = 0; i < 16; i++)
            part[i] = task + i * threads < j.tasks ? __ldcg(parts + task + i * threads) : 0;
#pragma unroll
        for (int i = 0; i < 16; i++)
            sum += part[i];
    }
#pragma unroll
    for (int far = WARP / 2; far > 0; far /= 2)
        sum += __shfl_xor_sync(0xffffffff, sum, far);
    if (thread % WARP == 0)
        exchange[thread / WARP] = sum;
    __syncthreads();
    if (thread > 0)
        return;
    for (int warp = 1; warp < threads / WARP; warp++)
        sum += exchange[warp];
    *j.a.loss = (float)(sum / (double)j.a.n_rows);
}

template <enum ddoq_target KIND, int V, bool PAGED>
__global__ void __launch_bounds__(WARP *WARPS, DENSE<KIND> ? 2 : 3) loss_rows(const __grid_constant__ struct job j)
{
    extern __shared__ unsigned marks[];
    double *parts = static_cast<double *>(j.a.workspace) + 1;
    for (int task = blockIdx.x * blockDim.y + threadIdx.y; task < j.tasks; task += gridDim.x * blockDim.y) {
        const size_t begin = task * j.task_rows, end = min(begin + j.task_rows, j.a.n_rows);
        double sum = 0;
        for (size_t i = begin; i < end; i++)
            sum += one_row<KIND, V, PAGED>(j, i, marks + threadIdx.y * mark_words(j.n));
        if (threadIdx.x == 0)
            parts[task] = sum;
    }
    finish(j, static_cast<unsigned *>(j.a.workspace), parts);
}

using loss_kernel = void (*)(struct job);

template <enum ddoq_target KIND> loss_kernel kernel_of(bool in_chunks, bool paged)
{
    return paged ? loss_rows<KIND, 1, true> : in_chunks ? loss_rows<KIND, 4, false> : loss_rows<KIND, 1, false>;
}

loss_kernel choose_kernel(enum ddoq_target target, bool in_chunks, bool paged)
{
    switch (target) {
    case DDOQ_INDEX:
        return kernel_of<DDOQ_INDEX>(in_chunks, paged);
    case DDOQ_PROBS:
        return kernel_of<DDOQ_PROBS>(in_chunks, paged);
    case DDOQ_LOGITS:
        return kernel_of<DDOQ_LOGITS>(in_chunks, paged);
    default:
        return kernel_of<DDOQ_TOPK>(in_chunks, paged);
    }
}

/* Whether every row begins at an address of four entries. */
bool fits_chunks(const void *x, enum ddoq_type type, size_t n)
{
    return n % 4 == 0 && reinterpret_cast<uintptr_t>(x) % (type == DDOQ_FLOAT32 ? 16 : 8) == 0;
}
struct job describe(const struct ddoq_cuda_loss_args *args)
{
    const double eps = args->label_smoothing, n = (double)args->n_classes;
    struct job job = {};
    job.a = *args;
    job.gradient_type = args->type == DDOQ_BFLOAT16 ? DDOQ_BFLOAT16 : DDOQ_FLOAT32;
    job.n = (int)args->n_classes;
    job.k = (int)args->k;
    job.task_rows = (args->n_rows - 1) / DDOQ_CUDA_LOSS_PARTS + 1;
    job.tasks = (int)((args->n_rows - 1) / job.task_rows + 1);
    job.scale = (float)(1 / args->temperature);
    job.scale2 = (float)(1.4426950408889634 / args->temperature);
    job.share = (float)(1 / (double)args->n_rows);
    job.eps = (float)eps;
    job.rest = (float)(eps / n);
    job.named = (float)(1 - eps + eps / n);
    return job;
}
} // namespace

extern "C" int ddoq_cuda_weighted_loss(const struct ddoq_cuda_loss_args *args, int device, cudaStream_t stream,
                                       struct ddoq_cuda_error *error)
{
    const size_t n = args->n_classes, held = (size_t)WARP * HELD;
    const unsigned warps = n > held * WARPS ? WARPS : (unsigned)((n - 1) / held + 1), rows = warps > 1 ? 1 : WARPS;
    const bool dense = args->target == DDOQ_PROBS || args->target == DDOQ_LOGITS;
    const bool in_chunks = fits_chunks(args->logits, args->type, n) && fits_chunks(args->gradient, args->type, n) &&
                           (!dense || fits_chunks(args->soft, args->target_type, n));
    const loss_kernel kernel = choose_kernel(args->target, in_chunks, n > held * WARPS);
    const size_t shared = args->target == DDOQ_TOPK ? rows * mark_words((int)n) * sizeof(unsigned) : 0;
    const struct job job = describe(args);

    /* As many blocks as run at once: which of them does a task has no part in its sum. */
    int before = device, processors = 0, resident = 0;
    unsigned blocks = (job.tasks - 1) / rows + 1;
    DDOQ_CUDA_TRY(cudaGetDevice(&before));
    DDOQ_CUDA_TRY(cudaSetDevice(device));
    DDOQ_CUDA_TRY(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
    DDOQ_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, reinterpret_cast<const void *>(kernel),
                                                                WARP * warps * rows, shared));
    blocks = min(blocks, (unsigned)max(1, processors * resident));
    kernel<<<blocks, dim3(WARP * warps, rows), shared, stream>>>(job);
    DDOQ_CUDA_TRY(cudaGetLastError());
cleanup:
    if (before != device)
        cudaSetDevice(before);
    return error->status == DDOQ_CUDA_OK ? 0 : -1;
}
