/* exp and log of a vector, and rows of bfloat16: included once by kernels/isa.h after kernels/real.h. float:
 * polynomials of least relative error, below 2e-7; double: the C library's, lane by lane, since float64 serves checks
 * and not speed. Both take and give multiples of their own: EXP_UNIT_f32 is log2(e), so that float works with powers
 * and logarithms of 2. */

#if defined(__x86_64__)
#    include <immintrin.h>
#endif

#define EXP_UNIT_f32 1.44269504088896341
#define EXP_UNIT_f64 1.0

typedef int32_t vi32 __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t vu32 __attribute__((vector_size(VECTOR_BYTES)));

static inline vreal_f32 select_f32(vi32 mask, vreal_f32 yes, vreal_f32 no)
{
    return (vreal_f32)((mask & (vi32)yes) | (~mask & (vi32)no));
}

/* a > b ? a : b, thus b where one is NaN. And x where e is not 0, or else 0. GCC makes several instructions of a choice
 * by bits. */
#if VECTOR_BYTES == 64
static inline vreal_f32 larger_f32(vreal_f32 a, vreal_f32 b)
{
    return (vreal_f32)_mm512_max_ps((__m512)a, (__m512)b);
}

static inline vreal_f32 unless_zero_f32(vreal_f32 e, vreal_f32 x)
{
    __mmask16 mask = _mm512_cmp_ps_mask((__m512)e, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    return (vreal_f32)_mm512_maskz_mov_ps(mask, (__m512)x);
}
#else
static inline vreal_f32 larger_f32(vreal_f32 a, vreal_f32 b)
{
#    if VECTOR_BYTES == 32
    return (vreal_f32)_mm256_max_ps((__m256)a, (__m256)b);
#    else
    return select_f32(a > b, a, b);
#    endif
}

static inline vreal_f32 unless_zero_f32(vreal_f32 e, vreal_f32 x)
{
    return (vreal_f32)((vi32)(e != 0) & (vi32)x);
}
#endif

static inline vreal_f64 larger_f64(vreal_f64 a, vreal_f64 b)
{
    return select_f64(a > b, a, b);
}

static inline vreal_f64 unless_zero_f64(vreal_f64 e, vreal_f64 x)
{
    return (vreal_f64)((vi64)(e != 0) & (vi64)x);
}

/* The argument from which on exp_vector is 0. */
static inline float exp_least_f32(float unit)
{
    return -127 / unit;
}

static inline double exp_least_f64(double unit)
{
    return -INFINITY / unit;
}

/* 2^(unit x) for x from exp_least(unit) up to 0, where unit is the scale of x times EXP_UNIT. NaN stays NaN.
 * 2^(n + r), |r| <= 1/2, of which 2^r is the polynomial of least relative error (9e-8) that is 1 at 0. */
static inline vreal_f32 exp_vector_f32(vreal_f32 x, float unit)
{
    const float to_integer = 0x1.8p23f + 127; /* the last bits of a sum with it are n + 127, the exponent of 2^n */
    vreal_f32 shifted = x * unit + to_integer;
    vreal_f32 power = (vreal_f32)((vi32)shifted << 23);
    vreal_f32 r = x * unit - (shifted - to_integer);
    vreal_f32 p = r * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
    p = p * r + 0x1.c6b752p-5f;
    p = p * r + 0x1.ebf9bcp-3f;
    p = p * r + 0x1.62e42ap-1f;
    p = p * r + 1.0f;
    return p * power;
}

/* log2(x) for normal x > 0: n + log2(1 + f). */
static inline vreal_f32 log_vector_f32(vreal_f32 x)
{
    vi32 exponent = ((vi32)x - 0x3f3504f3) >> 23; /* the mantissa is in [sqrt(1/2), sqrt(2)) */
    vreal_f32 f = (vreal_f32)((vi32)x - (exponent << 23)) - 1.0f, n = __builtin_convertvector(exponent, vreal_f32);
    vreal_f32 p = f * 0x1.01b68ap-3f - 0x1.a87ce4p-3f;
    p = p * f + 0x1.b9c926p-3f;
    p = p * f - 0x1.e95beep-3f;
    p = p * f + 0x1.26d384p-2f;
    p = p * f - 0x1.715c4ep-2f;
    p = p * f + 0x1.ec73d6p-2f;
    p = p * f - 0x1.71547p-1f;
    p = p * f + 0x1.715476p+0f;
    return p * f + n;
}

static inline vreal_f64 exp_vector_f64(vreal_f64 x, double unit)
{
    for (size_t i = 0; i < LANES_F64; i++)
        x[i] = exp(x[i] * unit);
    return x;
}

static inline vreal_f64 log_vector_f64(vreal_f64 x)
{
    for (size_t i = 0; i < LANES_F64; i++)
        x[i] = log(x[i]);
    return x;
}

/* By integers: not every machine has the instruction, and a thread may flush floats below the least normal one. */
static void from_float16(size_t n, const uint16_t *x, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t magnitude = x[i] & 0x7fff, bits, small_bits;
        float small = (float)(int32_t)magnitude * 0x1p-24f; /* below the least normal half */
        memcpy(&small_bits, &small, sizeof small_bits);
        bits = (magnitude << 13) + ((uint32_t)(magnitude < 0x7c00 ? 127 - 15 : 2 * (127 - 15)) << 23);
        bits = (magnitude < 0x400 ? small_bits : bits) | (uint32_t)(x[i] & 0x8000) << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
}

static void from_bfloat16(size_t n, const uint16_t *x, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)x[i] << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
}

/* A block of 16 reals as bfloat16: rounded to nearest, ties to even; NaN stays NaN. */
static inline void store_halves(uint16_t *out, const float *x, float a, float b, const float *f)
{
    enum { LANES = VECTOR_BYTES / sizeof(float), VECTORS = VIRTUAL_LANES / LANES };
    vu32 high[VECTORS];
    for (size_t v = 0; v < VECTORS; v++) {
        vreal_f32 value = *(const vreal_unaligned_f32 *)(x + v * LANES);
        value = f ? (value - *(const vreal_unaligned_f32 *)(f + v * LANES) * b) * a : value * a - b;
        vu32 bits = (vu32)value, rounded = bits + 0x7fff + (bits >> 16 & 1);
#if VECTOR_BYTES == 64
        __mmask16 is_nan = _mm512_cmp_ps_mask((__m512)value, (__m512)value, _CMP_UNORD_Q);
        rounded = (vu32)_mm512_mask_mov_epi32((__m512i)rounded, is_nan, _mm512_set1_epi32(-1));
#else
        rounded |= (vu32)(value != value);
#endif
        high[v] = rounded >> 16;
    }
#if VECTOR_BYTES == 64
    _mm256_storeu_si256((__m256i *)out, _mm512_cvtepi32_epi16((__m512i)high[0]));
#elif VECTOR_BYTES == 32
    __m256i packed = _mm256_packus_epi32((__m256i)high[0], (__m256i)high[1]);
    _mm256_storeu_si256((__m256i *)out, _mm256_permute4x64_epi64(packed, 0xd8));
#else
    for (size_t i = 0; i < VIRTUAL_LANES; i++)
        out[i] = (uint16_t)high[i / LANES][i % LANES];
#endif
}

/* out = a (x - b f); without f, a x - b */
static inline __attribute__((always_inline)) void round_halves(size_t n, float a, float b, const float *f,
                                                               const float *x, uint16_t *out)
{
    if (n < VIRTUAL_LANES) {
        float padded[2][VIRTUAL_LANES] = {{0}};
        uint16_t rounded[VIRTUAL_LANES];
        memcpy(padded[0], x, n * sizeof *x);
        if (f)
            memcpy(padded[1], f, n * sizeof *f);
        store_halves(rounded, padded[0], a, b, f ? padded[1] : NULL);
        memcpy(out, rounded, n * sizeof *out);
        return;
    }
    for (size_t i = 0; i + VIRTUAL_LANES <= n; i += VIRTUAL_LANES)
        store_halves(out + i, x + i, a, b, f ? f + i : NULL);
    size_t last = n - VIRTUAL_LANES; /* some of it for a second time */
    store_halves(out + last, x + last, a, b, f ? f + last : NULL);
}

static void scale_add_half(size_t n, double a, double b, const float *x, uint16_t *out)
{
    round_halves(n, (float)a, -(float)b, NULL, x, out);
}

static void difference_half(size_t n, double a, double b, const float *f, const float *x, uint16_t *out)
{
    round_halves(n, (float)a, (float)b, f, x, out);
}
