/* The weighted loss and its gradient by the logits, in one launch and one pass over the memory: a row is read into
 * registers (loss_rows.cuh), reduced there (loss_terms.cuh) and overwritten by its gradient. A warp has a row of up to
 * 1,024 classes, a block of up to 8 warps one of up to 8,192; longer rows are read three times, from the second on out
 * of the L2 cache.
 *
 * All is float32, relative to the row's largest logit, with exponentials and logarithms to base 2, which the hardware
 * has (errors of about 2^-22); the rows' losses are added in float64. What a thread adds, it adds in the order of its
 * entries; see `reduce` for the rest of a row, `finish` for the rows: no atomic addition, the same bits every time.
 *
 * Registers are what a multiprocessor runs out of: at most 80 a thread (three blocks of 256) where a row is the logits
 * alone, 128 (two) where it is two, each thread holding 32 or 64 numbers. */
#include "cuda/loss.h"
#include "cuda/loss_rows.cuh"
#include "cuda/loss_terms.cuh"
#include "cuda/loss_top.cuh"

namespace
{
/* ---- one row ---- */

/* Minus infinity in both halves of a word, or as a float. */
__device__ unsigned lowest(enum ddoq_type type)
{
    return type == DDOQ_FLOAT32 ? 0xff800000 : type == DDOQ_BFLOAT16 ? 0xff80ff80 : 0xfc00fc00;
}

/* A thread's share of a row on its way from the logits to the gradient. */
template <enum ddoq_target KIND, int V> struct row {
    static constexpr int LARGEST = KIND == DDOQ_LOGITS ? 2 : 1;
    const struct job &j;
    const size_t offset; /* of the row's first entry */
    const struct top top;
    float s[HELD];                        /* logits; then their exponentials; then the gradient */
    float t[DENSE<KIND> ? HELD : 1] = {}; /* targets that are as dense; of logits then their exponentials */
    float most[LARGEST];                  /* the largest logit of the student, and of a teacher */
    float sums[SUMS<KIND>] = {};

    __device__ __forceinline__ row(const struct job &j, size_t i, unsigned *marks)
        : j(j), offset(i * j.a.n_classes), top{i * j.k, marks}
    {
        most[0] = most[LARGEST - 1] = -INFINITY;
    }

    static __device__ constexpr int target_at(int place)
    {
        return DENSE<KIND> ? place : 0;
    }

    /* Both logits and targets are under way before either is used. */
    __device__ __forceinline__ void read(struct share share)
    {
        unsigned bits[HELD];
        fetch<V>(j.a.logits, j.a.type, offset + share.first, share.left, lowest(j.a.type), bits);
        if constexpr (DENSE<KIND>) {
            unsigned target_bits[HELD], pad = KIND == DDOQ_LOGITS ? lowest(j.a.target_type) : 0;
            fetch<V>(j.a.soft, j.a.target_type, offset + share.first, share.left, pad, target_bits);
            unpack<V>(target_bits, j.a.target_type, t);
        }
        unpack<V>(bits, j.a.type, s);
    }

    __device__ __forceinline__ void find_largest()
    {
        each_place<V>([&](int place, int) {
            most[0] = fmaxf(most[0], s[place]);
            if (KIND == DDOQ_LOGITS)
                most[LARGEST - 1] = fmaxf(most[LARGEST - 1], t[target_at(place)]);
        });
    }

    /* Logits become their exponentials, which the sums take in. */
    __device__ __forceinline__ void absorb(struct share share, float *into)
    {
        if (KIND == DDOQ_INDEX && j.eps > 0)
            each_place<V>([&](int place, int far) {
                if (far < share.left)
                    into[CROSS] += to_base2(j, s[place], most[0]);
            });
        const unsigned mine = KIND == DDOQ_TOPK && share.left > 0 ? top.marks[thread_of<V>(share.first)] : 0;
        each_place<V>([&](int place, int far) {
            const bool is_rest = far < share.left && !(mine >> place & 1);
            accumulate<KIND>(j, most, is_rest, s[place], t[target_at(place)], into);
        });
    }

    __device__ __forceinline__ void write_gradient(struct share share, const struct result &result)
    {
        each_place<V>([&](int place, int) {
            const float target = DENSE<KIND> ? t[target_at(place)] : result.rest;
            s[place] = s[place] * result.student - target * result.target;
        });
        write<V>(j.a.gradient, j.gradient_type, offset + share.first, share.left, s);
    }

    /* Returns the logit of a class that indices name, to base 2. */
    __device__ __forceinline__ float logit_of(int y)
    {
        return to_base2(j, read_one(j.a.logits, j.a.type, offset + y), most[0]);
    }

    /* Writes that class's entry of the gradient. */
    __device__ __forceinline__ void write_named(int y, float z, float target, const struct result &result)
    {
        write_one(j.a.gradient, j.gradient_type, offset + y, exp2_fast(z) * result.student - target * result.target);
    }
};

/* The weighted loss of row i; its gradient is written. marks: of the threads of this row. A row that is PAGED is read
 * once for its largest logit, once for its sums and once for its gradient; any other one stays in registers. */
template <enum ddoq_target KIND, int V, bool PAGED>
__device__ __forceinline__ float one_row(const struct job &j, size_t i, unsigned *marks)
{
    __shared__ float exchange_most[WARPS][row<KIND, V>::LARGEST], exchange_sums[WARPS][SUMS<KIND>];
    const struct asked asked = ask<KIND>(j, i);
    const struct share only = take<V>(0, j.n);
    struct row<KIND, V> row(j, i, marks);

    if (!PAGED)
        row.read(only), row.find_largest();
    else
        each_page<V>(j.n, [&](struct share share) { row.read(share), row.find_largest(); });
    if (KIND == DDOQ_TOPK)
        row.sums[MASS] = mark_top<V>(j, row.top);
    reduce(row.most, exchange_most, [](float a, float b) { return fmaxf(a, b); });
    for (float &x : row.most)
        x *= j.scale2;

    if (!PAGED)
        row.absorb(only, row.sums);
    else
        each_page<V>(j.n, [&](struct share share) { row.read(share), row.absorb(share, row.sums); });
    float weight = weight_of(j, asked), z_named = not_a_number();
    const int named = asked.index >= 0 && asked.index < j.n ? (int)asked.index : -1;
    if (KIND == DDOQ_INDEX && named >= 0)
        z_named = row.logit_of(named);
    else if (KIND == DDOQ_INDEX)
        weight = not_a_number();
    else if (KIND == DDOQ_TOPK)
        each_top(j, row.top, [&](int y, float value) {
            if (y >= 0)
                add_divergence(value, row.logit_of(y), row.sums[CROSS]);
        });
    reduce(row.sums, exchange_sums, [](float a, float b) { return a + b; });

    const struct result result = settle<KIND>(j, row.sums, weight * j.share, z_named);
    if (!PAGED)
        row.write_gradient(only, result);
    else
        each_page<V>(j.n, [&](struct share share) {
            float unused[SUMS<KIND>] = {};
            row.read(share), row.absorb(share, unused);
            row.write_gradient(share, result);
        });
    if (!DENSE<KIND>)
        meet(); /* these places have been written by others, who have also read their marks */
    if (KIND == DDOQ_INDEX && named >= 0 && threadIdx.x == 0)
        row.write_named(named, z_named, j.named, result);
    if (KIND == DDOQ_TOPK)
        each_top(j, row.top, [&](int y, float value) {
            if (y >= 0)
                row.write_named(y, row.logit_of(y), value, result);
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
