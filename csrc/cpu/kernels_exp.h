/* exp and log of a vector, and rows of bfloat16: included once by kernels_isa.h after kernels_real.h. float:
 * polynomials, that of log from Cephes' logf (S. Moshier), relative error below 2e-7; double: the C library's, lane by
 * lane, since float64 serves checks and not speed. */

typedef int32_t vi32 __attribute__((vector_size(VECTOR_BYTES)));

static inline vreal_f32 select_f32(vi32 mask, vreal_f32 yes, vreal_f32 no)
{
    return (vreal_f32)((mask & (vi32)yes) | (~mask & (vi32)no));
}

/* For x <= 0; results below the least normal number are 0. NaN stays NaN. 2^(n + r), |r| <= 1/2, of which 2^r is the
 * polynomial of least relative error (9e-8) that is 1 at 0. */
static inline vreal_f32 exp_vector_f32(vreal_f32 x)
{
    const float log2_e = 1.44269504088896341f;
    const float to_integer = 0x1.8p23f + 127; /* the last bits of a sum with it are n + 127, the exponent of 2^n */
    vreal_f32 shifted = x * log2_e + to_integer;
    vreal_f32 power = (vreal_f32)((vi32)shifted << 23);
    vreal_f32 r = x * log2_e - (shifted - to_integer);
    vreal_f32 p = r * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
    p = p * r + 0x1.c6b752p-5f;
    p = p * r + 0x1.ebf9bcp-3f;
    p = p * r + 0x1.62e42ap-1f;
    p = p * r + 1.0f;
    return select_f32((vi32)(x < -87.3f), (vreal_f32){0}, p * power);
}

/* For normal x > 0. */
static inline vreal_f32 log_vector_f32(vreal_f32 x)
{
    vi32 exponent = ((vi32)x - 0x3f3504f3) >> 23; /* the mantissa is in [sqrt(1/2), sqrt(2)) */
    vreal_f32 f = (vreal_f32)((vi32)x - (exponent << 23)) - 1.0f, n = __builtin_convertvector(exponent, vreal_f32);
    vreal_f32 p = f * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    return f + (p * f * f * f - n * 2.12194440e-4f - f * f * 0.5f) + n * 0.693359375f;
}

static inline vreal_f64 exp_vector_f64(vreal_f64 x)
{
    for (size_t i = 0; i < LANES_F64; i++)
        x[i] = exp(x[i]);
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

/* Rounded to nearest, ties to even; NaN stays NaN. */
static void to_bfloat16(size_t n, const float *x, uint16_t *out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        out[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
    }
}
