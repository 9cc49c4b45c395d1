/* Body of an isa_*.c file, which defines ISA_NAME, VECTOR_BYTES and TILE_ROWS: kernels over doubles, then
 * kernels/real.h for float and double. No include guard needed: each isa_*.c includes it once. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "cpu/kernels/table.h"

#if defined(__AVX2__)
#    include <immintrin.h>
#endif

#define LANES_F64 (VECTOR_BYTES / 8)
#define VIRTUAL_LANES 16 /* a multiple of the lanes of every vector, so that sums have the same order in all */
#define TILE_VECTORS 3   /* beside TILE_ROWS * 3 accumulators there are registers for a row of B and a broadcast */
#define ACCUMULATORS (VIRTUAL_LANES / LANES_F64)
/* Rounded once where the instruction set can, as vectors are: of the last elements of a sum of products GCC rounds the
 * products, too, on some instruction sets and not on others. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#    define MULTIPLY_ADD(a, b, c) _Generic(c, float: __builtin_fmaf(a, b, c), double: __builtin_fma(a, b, c))
#else
#    define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

typedef double vf64 __attribute__((vector_size(VECTOR_BYTES)));
typedef int64_t vi64 __attribute__((vector_size(VECTOR_BYTES)));
typedef double vf64_unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
typedef int64_t vi64_unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));

static inline vf64 load_f64(const double *x)
{
    return *(const vf64_unaligned *)x;
}

static inline void store_f64(double *x, vf64 value)
{
    *(vf64_unaligned *)x = value;
}

static inline vf64 select_f64(vi64 mask, vf64 yes, vf64 no)
{
    return (vf64)((mask & (vi64)yes) | (~mask & (vi64)no));
}

/* Sum of the virtual lanes in their order. */
static inline double sum_lanes(const vf64 lanes[ACCUMULATORS])
{
    double value[VIRTUAL_LANES], sum = 0;
    memcpy(value, lanes, sizeof value);
    for (size_t i = 0; i < VIRTUAL_LANES; i++)
        sum += value[i];
    return sum;
}

static void nearest(size_t n, size_t k, const double *sums, const double *scale, const double *offset, int64_t *label,
                    double *best)
{
    size_t i = 0;
    for (; i + VIRTUAL_LANES <= n; i += VIRTUAL_LANES) {
        vf64 least[ACCUMULATORS];
        vi64 index[ACCUMULATORS];
        for (size_t v = 0; v < ACCUMULATORS; v++) {
            least[v] = (vf64){0} + INFINITY;
            index[v] = (vi64){0};
        }
        for (size_t j = 0; j < k; j++) {
            const double *row = sums + j * n + i;
            for (size_t v = 0; v < ACCUMULATORS; v++) {
                vf64 value = load_f64(row + v * LANES_F64) * scale[j] + offset[j];
                vi64 less = (vi64)(value < least[v]);
                least[v] = select_f64(less, value, least[v]);
                index[v] = (less & (int64_t)j) | (~less & index[v]);
            }
        }
        for (size_t v = 0; v < ACCUMULATORS; v++) {
            store_f64(best + i + v * LANES_F64, least[v]);
            *(vi64_unaligned *)(label + i + v * LANES_F64) = index[v];
        }
    }
    for (; i < n; i++) {
        best[i] = INFINITY;
        label[i] = 0;
        for (size_t j = 0; j < k; j++) {
            double value = sums[j * n + i] * scale[j] + offset[j];
            if (value < best[i]) {
                best[i] = value;
                label[i] = (int64_t)j;
            }
        }
    }
}

/* Least and second least of norm[j] - 2 product[j]; returns the first index of the least. */
static size_t two_least(size_t k, const double *product, const double *norm, double two[2])
{
    vf64 least = (vf64){0} + INFINITY, second = least;
    vi64 index = {0}, at;
    for (size_t v = 0; v < LANES_F64; v++)
        at[v] = (int64_t)v;
    size_t j = 0;
    for (; j + LANES_F64 <= k; j += LANES_F64, at += LANES_F64) {
        vf64 value = load_f64(norm + j) - load_f64(product + j) * 2.0;
        vi64 less = (vi64)(value < least);
        vf64 other = select_f64(less, least, value);
        second = select_f64((vi64)(other < second), other, second);
        least = select_f64(less, value, least);
        index = (less & at) | (~less & index);
    }
    size_t found = 0;
    two[0] = two[1] = INFINITY;
    for (size_t v = 0; v < LANES_F64; v++) {
        bool less = least[v] < two[0] || (least[v] == two[0] && (size_t)index[v] < found);
        two[1] = fmin(fmin(two[1], second[v]), less ? two[0] : least[v]);
        found = less ? (size_t)index[v] : found;
        two[0] = less ? least[v] : two[0];
    }
    for (; j < k; j++) {
        double value = norm[j] - product[j] * 2.0;
        bool less = value < two[0];
        two[1] = fmin(two[1], less ? two[0] : value);
        found = less ? j : found;
        two[0] = less ? value : two[0];
    }
    return found;
}

static uint64_t half_magnitude(size_t n, const void *x_)
{
    const uint16_t *x = x_;
    uint16_t most = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t magnitude = x[i] & 0x7fff;
        most = magnitude > most ? magnitude : most;
    }
    return most;
}

/* Transposes in place a square of as many rows as a row holds reals: 16 bytes, so that every instruction set has it. */
typedef float quad_f32 __attribute__((vector_size(16), may_alias));
typedef double quad_f64 __attribute__((vector_size(16), may_alias));

static inline void transpose_f32(quad_f32 x[4])
{
    quad_f32 low01 = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5);
    quad_f32 high01 = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7);
    quad_f32 low23 = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
    quad_f32 high23 = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
    x[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
    x[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
    x[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
    x[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
}

static inline void transpose_f64(quad_f64 x[2])
{
    quad_f64 low = __builtin_shufflevector(x[0], x[1], 0, 2);
    x[1] = __builtin_shufflevector(x[0], x[1], 1, 3);
    x[0] = low;
}

/* The lesser of two (the second where neither is), and yes where mask is set: gcc finds neither instruction in bits. */
#if defined(__AVX512F__)
#    define minimum_f32(a, b) (vreal_f32) _mm512_min_ps((__m512)(a), (__m512)(b))
#    define minimum_f64(a, b) (vreal_f64) _mm512_min_pd((__m512d)(a), (__m512d)(b))
#elif defined(__AVX2__)
#    define minimum_f32(a, b) (vreal_f32) _mm256_min_ps((__m256)(a), (__m256)(b))
#    define minimum_f64(a, b) (vreal_f64) _mm256_min_pd((__m256d)(a), (__m256d)(b))
#endif
#if defined(__AVX2__) && !defined(__AVX512F__)
#    define CHOOSE(mask, yes, no) _mm256_blendv_epi8((__m256i)(no), (__m256i)(yes), (__m256i)(mask))
#else
#    define CHOOSE(mask, yes, no) (((mask) & (yes)) | (~(mask) & (no)))
#endif

#define REAL float
#define INTEGER int32_t
#define BITS uint32_t
#define FN(verb) verb##_f32
#include "cpu/kernels/real.h"
#include "cpu/kernels/stream.h"
#undef REAL
#undef INTEGER
#undef BITS
#undef FN
#define REAL double
#define INTEGER int64_t
#define BITS uint64_t
#define FN(verb) verb##_f64
#include "cpu/kernels/real.h"
#include "cpu/kernels/stream.h"
#undef REAL
#undef INTEGER
#undef BITS
#undef FN

#define LOSS_CHUNK 1024 /* entries that are summed in float before a double takes them: 64 a lane */
#include "cpu/kernels/exp.h"
#define REAL float
#define FN(verb) verb##_f32
#include "cpu/kernels/loss.h"
#undef REAL
#undef FN
#define REAL double
#define FN(verb) verb##_f64
#include "cpu/kernels/loss.h"
#undef REAL
#undef FN

#define KERNELS(real, suffix)                                                                                          \
    {                                                                                                                  \
        .item = sizeof(real),                                                                                          \
        .tile_rows = TILE_ROWS,                                                                                        \
        .tile_cols = TILE_VECTORS * VECTOR_BYTES / sizeof(real),                                                       \
        .lanes = VECTOR_BYTES / sizeof(real),                                                                          \
        .vector =                                                                                                      \
            {                                                                                                          \
                .axpy = axpy_##suffix,                                                                                 \
                .transfer = transfer_##suffix,                                                                         \
                .add_rows = add_rows_##suffix,                                                                         \
                .widen = widen_##suffix,                                                                               \
                .narrow = narrow_##suffix,                                                                             \
                .centre = centre_##suffix,                                                                             \
                .dist2 = dist2_##suffix,                                                                               \
                .subtract = subtract_##suffix,                                                                         \
                .magnitude = magnitude_##suffix,                                                                       \
            },                                                                                                         \
        .product =                                                                                                     \
            {                                                                                                          \
                .pack = pack_##suffix,                                                                                 \
                .tile = tile_##suffix,                                                                                 \
                .tile_in_place = tile_in_place_##suffix,                                                               \
                .squares = squares_##suffix,                                                                           \
                .fold = fold_##suffix,                                                                                 \
                .mirror = mirror_##suffix,                                                                             \
            },                                                                                                         \
        .search =                                                                                                      \
            {                                                                                                          \
                .nearest = nearest,                                                                                    \
                .two_least = two_least,                                                                                \
                .two_nearest = two_nearest_##suffix,                                                                   \
                .lower = lower_##suffix,                                                                               \
                .copy_labels = copy_labels_##suffix,                                                                   \
                .trial = trial_##suffix,                                                                               \
            },                                                                                                         \
    }
#define LOSS_KERNELS(real, suffix)                                                                                     \
    {                                                                                                                  \
        .item = sizeof(real),                                                                                          \
        .largest = largest_##suffix,                                                                                   \
        .total = total_##suffix,                                                                                       \
        .exponentials = exponentials_##suffix,                                                                         \
        .cross_logits = cross_logits_##suffix,                                                                         \
        .cross_probs = cross_probs_##suffix,                                                                           \
        .spread = spread_##suffix,                                                                                     \
        .scale_add = scale_add_##suffix,                                                                               \
        .difference = difference_##suffix,                                                                             \
    }
#define HALF_KERNELS                                                                                                   \
    {                                                                                                                  \
        .from_float16 = from_float16,                                                                                  \
        .from_bfloat16 = from_bfloat16,                                                                                \
        .magnitude = half_magnitude,                                                                                   \
        .scale_add = scale_add_half,                                                                                   \
        .difference = difference_half,                                                                                 \
    }
#define DEFINE_ISA_(isa)                                                                                               \
    const struct ddoq_isa ddoq_isa_##isa = {                                                                           \
        .name = #isa,                                                                                                  \
        .real = {KERNELS(float, f32), KERNELS(double, f64)},                                                           \
        .loss = {LOSS_KERNELS(float, f32), LOSS_KERNELS(double, f64)},                                                 \
        .half = HALF_KERNELS,                                                                                          \
    }
#define DEFINE_ISA(isa) DEFINE_ISA_(isa)
DEFINE_ISA(ISA_NAME);
