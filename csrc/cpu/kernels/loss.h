/* Kernels of the loss for one element type: included by kernels/isa.h after kernels/real.h, with its REAL and FN, once
 * exp and log of a vector (FN(exp_vector), FN(log_vector)) exist. Rows are read in blocks of VIRTUAL_LANES entries and
 * sums run over the virtual lanes, which are emptied into a double every LOSS_CHUNK entries: the error does not grow
 * with the number of classes. Each loop's body is a function of the number of entries left, so that whole blocks are
 * compiled without the branches of the last one. */

typedef struct {
    FN(vreal) v[VIRTUAL_LANES * sizeof(REAL) / VECTOR_BYTES];
} FN(block);

enum { FN(BLOCK_VECTORS) = VIRTUAL_LANES * sizeof(REAL) / VECTOR_BYTES };

#define BODY static inline __attribute__((always_inline))

/* x[0..16), pad from left on. */
BODY FN(block) FN(load_block)(const REAL *x, size_t left, REAL pad)
{
    FN(block) block;
    if (left < VIRTUAL_LANES) {
        REAL padded[VIRTUAL_LANES];
        for (size_t lane = 0; lane < VIRTUAL_LANES; lane++)
            padded[lane] = lane < left ? x[lane] : pad;
        memcpy(&block, padded, sizeof block);
    } else {
        for (size_t v = 0; v < FN(BLOCK_VECTORS); v++)
            block.v[v] = ((const FN(vreal_unaligned) *)x)[v];
    }
    return block;
}

BODY void FN(store_block)(REAL *x, size_t left, FN(block) block)
{
    if (left < VIRTUAL_LANES) {
        memcpy(x, &block, left * sizeof *x);
    } else {
        for (size_t v = 0; v < FN(BLOCK_VECTORS); v++)
            ((FN(vreal_unaligned) *)x)[v] = block.v[v];
    }
}

BODY double FN(sum_block)(FN(block) block)
{
    REAL lane[VIRTUAL_LANES];
    memcpy(lane, &block, sizeof lane);
#pragma GCC unroll 4
    for (size_t half = VIRTUAL_LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (size_t i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return (double)lane[0];
}

BODY FN(block) FN(larger_block)(FN(block) a, FN(block) b)
{
    for (size_t v = 0; v < FN(BLOCK_VECTORS); v++)
        a.v[v] = FN(larger)(b.v[v], a.v[v]);
    return a;
}

/* x, or least where it is lower; NaN stays NaN. */
BODY FN(vreal) FN(at_least)(REAL least, FN(vreal) x)
{
    return FN(larger)((FN(vreal)){0} + least, x);
}

/* Four chains of comparisons, since each comparison waits for the one before it in its chain. */
static double FN(largest)(size_t n, const void *x_)
{
    enum { CHAINS = 4, STEP = CHAINS * VIRTUAL_LANES };
    const REAL *x = x_;
    FN(block) most[CHAINS];
    for (size_t chain = 0; chain < CHAINS; chain++)
        for (size_t v = 0; v < FN(BLOCK_VECTORS); v++)
            most[chain].v[v] = (FN(vreal)){0} - (REAL)INFINITY;
    size_t i = 0;
    for (; i + STEP <= n; i += STEP)
        for (size_t chain = 0; chain < CHAINS; chain++)
            most[chain] =
                FN(larger_block)(most[chain], FN(load_block)(x + i + chain * VIRTUAL_LANES, VIRTUAL_LANES, 0));
    for (; i + VIRTUAL_LANES <= n; i += VIRTUAL_LANES)
        most[0] = FN(larger_block)(most[0], FN(load_block)(x + i, VIRTUAL_LANES, 0));
    if (i < n && n > VIRTUAL_LANES) /* the last block has some entries for a second time */
        most[1] = FN(larger_block)(most[1], FN(load_block)(x + n - VIRTUAL_LANES, VIRTUAL_LANES, 0));
    else if (i < n)
        most[1] = FN(larger_block)(most[1], FN(load_block)(x, n, -(REAL)INFINITY));
    FN(block) all = FN(larger_block)(FN(larger_block)(most[0], most[1]), FN(larger_block)(most[2], most[3]));
    REAL lane[VIRTUAL_LANES];
    memcpy(lane, &all, sizeof lane);
#pragma GCC unroll 4
    for (size_t half = VIRTUAL_LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (size_t j = 0; j < half; j++)
            lane[j] = lane[j + half] > lane[j] ? lane[j + half] : lane[j];
    return (double)lane[0];
}

/* Adds to the total what lies past the first `known` entries. What is one row on in both matrices comes to the cache
 * meanwhile, since next to the exponentials loading costs nothing. */
BODY void FN(exp_block)(const REAL *x, size_t left, size_t known, REAL shift, REAL unit, REAL *out, size_t n,
                        FN(block) * total)
{
    FN(block) block = FN(load_block)(x, left, -(REAL)INFINITY);
    const REAL least = FN(exp_least)(unit);
    __builtin_prefetch(x + n);
    __builtin_prefetch(out + n, 1);
    for (size_t v = 0; v < FN(BLOCK_VECTORS); v++)
        block.v[v] = FN(exp_vector)(FN(at_least)(least, block.v[v] - shift), unit);
    FN(store_block)(out, left, block);
    if (known > 0) {
        static const REAL unknown[2 * VIRTUAL_LANES] = {
            [VIRTUAL_LANES] = 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
        FN(block) mask = FN(load_block)(unknown + VIRTUAL_LANES - known, VIRTUAL_LANES, 0);
        for (size_t v = 0; v < FN(BLOCK_VECTORS); v++)
            block.v[v] = FN(unless_zero)(mask.v[v], block.v[v]);
    }
    for (size_t v = 0; v < FN(BLOCK_VECTORS); v++)
        total->v[v] += block.v[v];
}

static double FN(exponentials)(size_t n, const void *x_, double shift, double scale, void *out_)
{
    const REAL *x = x_, unit = (REAL)(scale * FN(EXP_UNIT));
    REAL *out = out_;
    double sum = 0;
    for (size_t i = 0, end; i < n; i = end) {
        FN(block) total = {{{0}}};
        end = n - i < LOSS_CHUNK ? n : i + LOSS_CHUNK;
        for (; i + VIRTUAL_LANES <= end; i += VIRTUAL_LANES)
            FN(exp_block)(x + i, VIRTUAL_LANES, 0, (REAL)shift, unit, out + i, n, &total);
        size_t last = end - VIRTUAL_LANES; /* the last block has some entries for a second time */
        if (i < end && end >= VIRTUAL_LANES)
            FN(exp_block)(x + last, VIRTUAL_LANES, i - last, (REAL)shift, unit, out + last, n, &total);
        else if (i < end)
            FN(exp_block)(x + i, end - i, 0, (REAL)shift, unit, out + i, n, &total);
        sum += FN(sum_block)(total);
    }
    return sum;
}

static double FN(total)(size_t n, const void *x_, double shift)
{
    const REAL *x = x_;
    double sum = 0;
    for (size_t i = 0, end; i < n; i = end) {
        FN(block) total = {{{0}}};
        end = n - i < LOSS_CHUNK ? n : i + LOSS_CHUNK;
        for (; i < end; i += VIRTUAL_LANES) {
            FN(block) block = FN(load_block)(x + i, end - i, (REAL)shift);
            for (size_t v = 0; v < FN(BLOCK_VECTORS); v++)
                total.v[v] += block.v[v] - (REAL)shift;
        }
        sum += FN(sum_block)(total);
    }
    return sum;
}

/* One block of the teacher's logits: their exponentials, the sum of these and of their products with the differences
 * of the shifted logits. Classes of probability 0 add 0, whatever their logits. */
BODY void FN(teacher_block)(const REAL *s, REAL s_shift, const REAL *t, REAL t_shift, size_t left, REAL unit, REAL *out,
                            FN(block) * total, FN(block) * cross)
{
    FN(block) student = FN(load_block)(s, left, 0), target = FN(load_block)(t, left, -(REAL)INFINITY);
    const REAL least = FN(exp_least)(unit);
    for (size_t v = 0; v < FN(BLOCK_VECTORS); v++) {
        FN(vreal) d = FN(at_least)(least, target.v[v] - t_shift), e = FN(exp_vector)(d, unit);
        target.v[v] = e;
        total->v[v] += e;
        cross->v[v] += FN(unless_zero)(e, e * (d - (student.v[v] - s_shift)));
    }
    FN(store_block)(out, left, target);
}

static struct ddoq_cross FN(cross_logits)(size_t n, const void *s_, double s_shift, const void *t_, double t_shift,
                                          double scale, void *out_)
{
    const REAL *s = s_, *t = t_;
    REAL *out = out_, ss = (REAL)s_shift, ts = (REAL)t_shift, unit = (REAL)(scale * FN(EXP_UNIT));
    struct ddoq_cross result = {0};
    for (size_t i = 0, end; i < n; i = end) {
        FN(block) total = {{{0}}}, cross = {{{0}}};
        end = n - i < LOSS_CHUNK ? n : i + LOSS_CHUNK;
        for (; i + VIRTUAL_LANES <= end; i += VIRTUAL_LANES)
            FN(teacher_block)(s + i, ss, t + i, ts, VIRTUAL_LANES, unit, out + i, &total, &cross);
        if (i < end)
            FN(teacher_block)(s + i, ss, t + i, ts, end - i, unit, out + i, &total, &cross);
        result.sum += FN(sum_block)(total);
        result.cross += scale * FN(sum_block)(cross);
    }
    return result;
}

BODY void FN(probs_block)(const REAL *s, REAL shift, const REAL *t, size_t left, REAL unit, FN(block) * total,
                          FN(block) * cross, FN(block) * least)
{
    FN(block) student = FN(load_block)(s, left, 0), target = FN(load_block)(t, left, 0);
    for (size_t v = 0; v < FN(BLOCK_VECTORS); v++) {
        FN(vreal) p = target.v[v], term = p * (FN(log_vector)(p) - (student.v[v] - shift) * unit);
        total->v[v] += p;
        cross->v[v] += FN(unless_zero)(p, term);
        least->v[v] = -FN(larger)(-p, -least->v[v]);
    }
}

static struct ddoq_cross FN(cross_probs)(size_t n, const void *s_, double shift, double scale, const void *t_)
{
    const REAL *s = s_, *t = t_, unit = (REAL)(scale * FN(EXP_UNIT));
    struct ddoq_cross result = {0};
    FN(block) least = {{{0}}};
    for (size_t i = 0, end; i < n; i = end) {
        FN(block) total = {{{0}}}, cross = {{{0}}};
        end = n - i < LOSS_CHUNK ? n : i + LOSS_CHUNK;
        for (; i + VIRTUAL_LANES <= end; i += VIRTUAL_LANES)
            FN(probs_block)(s + i, (REAL)shift, t + i, VIRTUAL_LANES, unit, &total, &cross, &least);
        if (i < end)
            FN(probs_block)(s + i, (REAL)shift, t + i, end - i, unit, &total, &cross, &least);
        result.sum += FN(sum_block)(total);
        result.cross += FN(sum_block)(cross) / FN(EXP_UNIT);
    }
    result.is_negative = FN(sum_block)(least) < 0;
    return result;
}

/* Every value is checked before its place is known to be in range, and a place that is taken twice is found by the
 * mark that its first value leaves. */
static int FN(spread)(size_t n, size_t k, const void *values_, const int64_t *index, double tolerance, void *out_)
{
    const REAL *values = values_;
    REAL *out = out_;
    double sum = 0;
    for (size_t j = 0; j < k; j++) {
        if (index[j] < 0 || (uint64_t)index[j] >= n || !(values[j] >= 0))
            return -1;
        sum += (double)values[j];
    }
    if (!(sum <= 1 + tolerance))
        return -1;
    REAL rest = k < n && sum < 1 ? (REAL)((1 - sum) / (double)(n - k)) : 0;
    for (size_t i = 0; i < n; i++)
        out[i] = rest;
    for (size_t j = 0; j < k; j++) {
        if (out[index[j]] < 0)
            return -1;
        out[index[j]] = -1;
    }
    for (size_t j = 0; j < k; j++)
        out[index[j]] = values[j];
    return 0;
}

static void FN(scale_add)(size_t n, double a, double b, void *x_)
{
    REAL *x = x_, scale = (REAL)a, add = (REAL)b;
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] * scale + add;
}

static void FN(difference)(size_t n, double a, double b, const void *restrict f_, void *restrict x_)
{
    const REAL *f = f_;
    REAL *x = x_;
    for (size_t i = 0; i < n; i++)
        x[i] = (REAL)a * (x[i] - f[i] * (REAL)b); /* no choice of which product to round */
}

#undef BODY
