/* Passes over the samples: copies for the product, and points and distortion from the data themselves, in double, as in
 * cpu/gram/result.c. A block has one class and DDOQ_CUDA_FEATURES features, a thread one feature, so that every sum
 * over samples is in the order of the samples. Each reads the samples once from memory, and at most once more from L2.
 */
#include "cuda/block.cuh"
#include "cuda/rows.h"

#define GATHER_BLOCKS 32 /* of a class */

struct Float16 {
    uint16_t bits;
};

struct BFloat16 {
    uint16_t bits;
};

__device__ static inline float widen(float x)
{
    return x;
}

__device__ static inline float widen(Float16 x)
{
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
}

__device__ static inline float widen(BFloat16 x)
{
    return __uint_as_float((unsigned)x.bits << 16);
}

template <typename T> __device__ static inline const T *row_of(const Class &c, int i, size_t d)
{
    return (const T *)c.rows + (c.index ? (size_t)c.index[i] : (size_t)i) * d;
}

template <typename Unit> __global__ static void gather(const Class *classes, size_t units)
{
    const Class c = classes[blockIdx.x / GATHER_BLOCKS];
    for (int i = blockIdx.x % GATHER_BLOCKS; i < c.n && c.panel; i += GATHER_BLOCKS) {
        const Unit *from = row_of<Unit>(c, i, units);
        Unit *to = (Unit *)c.panel + i * units;
        for (size_t p = threadIdx.x; p < units; p += THREADS)
            to[p] = from[p];
    }
}

template <typename T> __global__ static void centre(const Class *classes, size_t d, unsigned chunks)
{
    const Class c = classes[blockIdx.x / chunks];
    size_t p = (size_t)(blockIdx.x % chunks) * DDOQ_CUDA_FEATURES + threadIdx.x;
    float *panel = (float *)c.panel;
    double sum = 0, mass = 0;
    if (p >= d || !panel)
        return;
#pragma unroll 8
    for (int i = 0; i < c.n; i++) {
        sum += (double)widen(row_of<T>(c, i, d)[p]) * c.w[i];
        mass += c.w[i];
    }
    float mean = (float)(sum / mass);
#pragma unroll 8
    for (int i = 0; i < c.n; i++)
        panel[i * d + p] = widen(row_of<T>(c, i, d)[p]) - mean;
}

/* A warp has a sample and eight points at a time. */
template <typename T> __global__ static void assign(const Class *classes, size_t d, unsigned groups)
{
    enum { POINTS = 8 };
    const Class c = classes[blockIdx.x / groups];
    int i = blockIdx.x % groups * WARPS + warp_of(), label = 0;
    double least = CUDART_INF;
    if (i >= c.n)
        return;
    const T *row = row_of<T>(c, i, d);
    for (int first = 0; first < c.k; first += POINTS) {
        double sum[POINTS] = {0};
        int count = min(POINTS, c.k - first);
        for (size_t p = lane_of(); p < d; p += LANES) {
            double x = widen(row[p]);
#pragma unroll
            for (int j = 0; j < POINTS; j++) {
                if (j < count) {
                    double difference = x - c.start_points[(first + j) * d + p];
                    sum[j] += difference * difference;
                }
            }
        }
#pragma unroll
        for (int j = 0; j < POINTS; j++) {
            double dist2 = warp_sum(sum[j]);
            if (j < count && dist2 < least) {
                least = dist2;
                label = first + j;
            }
        }
    }
    if (lane_of() == 0) {
        c.label[i] = label;
        c.dist2[i] = least;
    }
}

/* A thread's points are its own: it reads back what it wrote itself. */
template <typename T> __global__ static void points(const Class *classes, size_t d, unsigned chunks)
{
    __shared__ double sums[WARPS];
    const Class c = classes[blockIdx.x / chunks];
    unsigned chunk = blockIdx.x % chunks;
    size_t p = (size_t)chunk * DDOQ_CUDA_FEATURES + threadIdx.x;
    double distortion = 0;
    if (c.outcome->problem != DDOQ_CUDA_FINE)
        return;
    if (p < d) {
        for (int j = 0; j < c.k; j++) {
            const int32_t *list = c.list + c.begin[j];
            int length = c.length[j] / 2;
            double sum = 0, mass = 0;
#pragma unroll 8
            for (int e = 0; e < length; e++) {
                sum += (double)widen(row_of<T>(c, list[e], d)[p]) * c.w[list[e]];
                mass += c.w[list[e]];
            }
            c.points[j * d + p] = (float)(sum / mass);
        }
#pragma unroll 8
        for (int i = 0; i < c.n; i++) {
            double difference = (double)widen(row_of<T>(c, i, d)[p]) - c.points[c.kept_label[i] * d + p];
            distortion += c.w[i] * (difference * difference);
        }
    }
    distortion = block_sum(sums, distortion);
    if (threadIdx.x == 0)
        c.partial[chunk] = distortion;
}

cudaError_t ddoq_cuda_gather(const struct ddoq_cuda_class *classes, size_t n_classes, const void *x, size_t bytes,
                             cudaStream_t stream)
{
    unsigned blocks = (unsigned)(n_classes * GATHER_BLOCKS);
    if (bytes % sizeof(uint4) == 0 && (uintptr_t)x % sizeof(uint4) == 0)
        gather<uint4><<<blocks, THREADS, 0, stream>>>(classes, bytes / sizeof(uint4));
    else
        gather<uint16_t><<<blocks, THREADS, 0, stream>>>(classes, bytes / sizeof(uint16_t));
    return cudaGetLastError();
}

/* Launches the kernel of the samples' type. */
#define LAUNCH(kernel, blocks, ...)                                                                                    \
    do {                                                                                                               \
        if (type == DDOQ_FLOAT32)                                                                                      \
            kernel<float><<<(unsigned)(blocks), THREADS, 0, stream>>>(__VA_ARGS__);                                    \
        else if (type == DDOQ_FLOAT16)                                                                                 \
            kernel<Float16><<<(unsigned)(blocks), THREADS, 0, stream>>>(__VA_ARGS__);                                  \
        else                                                                                                           \
            kernel<BFloat16><<<(unsigned)(blocks), THREADS, 0, stream>>>(__VA_ARGS__);                                 \
    } while (0)

cudaError_t ddoq_cuda_centre(const struct ddoq_cuda_class *classes, size_t n_classes, size_t d, enum ddoq_type type,
                             cudaStream_t stream)
{
    size_t chunks = ddoq_cuda_chunks(d);
    LAUNCH(centre, n_classes * chunks, classes, d, (unsigned)chunks);
    return cudaGetLastError();
}

cudaError_t ddoq_cuda_assign(const struct ddoq_cuda_class *classes, size_t n_classes, size_t rows, size_t d,
                             enum ddoq_type type, cudaStream_t stream)
{
    size_t groups = (rows + WARPS - 1) / WARPS;
    LAUNCH(assign, n_classes * groups, classes, d, (unsigned)groups);
    return cudaGetLastError();
}

cudaError_t ddoq_cuda_points(const struct ddoq_cuda_class *classes, size_t n_classes, size_t d, enum ddoq_type type,
                             cudaStream_t stream)
{
    size_t chunks = ddoq_cuda_chunks(d);
    LAUNCH(points, n_classes * chunks, classes, d, (unsigned)chunks);
    return cudaGetLastError();
}
