/* Kernels of the loss for one element type: included by kernels_isa.h after kernels_real.h, with its REAL and FN, once
 * exp and log of a vector (FN(exp_vector), FN(log_vector)) exist. Rows are read in blocks of VIRTUAL_LANES entries and
 * sums run over the virtual lanes, which are emptied into a double every LOSS_CHUNK entries: the error does not grow
 * with the number of classes. */

typedef struct {
    FN(vreal) v[VIRTUAL_LANES * sizeof(REAL) / VECTOR_BYTES];
} FN(block);

enum { FN(BLOCK_VECTORS) = VIRTUAL_LANES * sizeof(REAL) / VECTOR_BYTES };

/* x[i..i+16) of n, pad from n on. */
static inline FN(block) FN(load_block)(const REAL *x, size_t i, size_t n, REAL pad)
{
    FN(block) block;
    REAL padded[VIRTUAL_LANES];
    if (n - i < VIRTUAL_LANES) {
        for (size_t lane = 0; lane < VIRTUAL_LANES; lane++)
            padded[lane] = i + lane < n ? x[i + lane] : pad;
        memcpy(&block, padded, sizeof block);
    } else {
        for (size_t v = 0; v < FN(BLOCK_VECTORS); v++)
            block.v[v] = ((const FN(vreal_unaligned) *)(x + i))[v];
    }
    return block;
}

static inline void FN(store_block)(REAL *x, size_t i, size_t n, FN(block) block)
{
    if (n - i < VIRTUAL_LANES) {
        memcpy(x + i, &block, (n - i) * sizeof *x);
    } else {
        for (size_t v = 0; v < FN(BLOCK_VECTORS); v++)
            ((FN(vreal_unaligned) *)(x + i))[v] = block.v[v];
    }
}

static inline double FN(sum_block)(FN(block) block)
{
    REAL lane[VIRTUAL_LANES];
    memcpy(lane, &block, sizeof lane);
    for (size_t half = VIRTUAL_LANES / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return (double)lane[0];
}

/* The largest of sign * x; four chains of comparisons, since one waits for each. */
static inline __attribute__((always_inline)) double FN(extreme)(size_t n, const REAL *x, REAL sign)
{
    enum { CHAINS = 4 };
    FN(block) most[CHAINS];
    for (size_t chain = 0; chain < CHAINS; chain++)
        for (size_t v = 0; v < FN(BLOCK_VECTORS); v++)
            most[chain].v[v] = (FN(vreal)){0} - (REAL)INFINITY;
    for (size_t begin = 0; begin < n; begin += CHAINS * VIRTUAL_LANES) {
        for (size_t chain = 0, i = begin; chain < CHAINS && i < n; chain++, i += VIRTUAL_LANES) {
            FN(block) block = FN(load_block)(x, i, n, -sign * (REAL)INFINITY);
            for (size_t v = 0; v < FN(BLOCK_VECTORS); v++) {
                block.v[v] *= sign;
                most[chain].v[v] = FN(select)(block.v[v] > most[chain].v[v], block.v[v], most[chain].v[v]);
            }
        }
    }
    REAL lane[CHAINS * VIRTUAL_LANES], value = -(REAL)INFINITY;
    memcpy(lane, most, sizeof lane);
    for (size_t i = 0; i < CHAINS * VIRTUAL_LANES; i++)
        value = lane[i] > value ? lane[i] : value;
    return (double)value;
}

static double FN(largest)(size_t n, const void *x)
{
    return FN(extreme)(n, x, 1);
}

static double FN(smallest)(size_t n, const void *x)
{
    return -FN(extreme)(n, x, -1);
}

static double FN(exponentials)(size_t n, const void *x_, double shift, double scale, void *out_)
{
    const REAL *x = x_;
    REAL *out = out_;
    double sum = 0;
    for (size_t begin = 0; begin < n; begin += LOSS_CHUNK) {
        size_t end = n - begin < LOSS_CHUNK ? n : begin + LOSS_CHUNK;
        FN(block) total = {{{0}}};
        for (size_t i = begin; i < end; i += VIRTUAL_LANES) {
            FN(block) block = FN(load_block)(x, i, end, -(REAL)INFINITY);
            for (size_t v = 0; v < FN(BLOCK_VECTORS); v++) {
                block.v[v] = FN(exp_vector)((block.v[v] - (REAL)shift) * (REAL)scale);
                total.v[v] += block.v[v];
            }
            FN(store_block)(out, i, end, block);
        }
        sum += FN(sum_block)(total);
    }
    return sum;
}

static double FN(total)(size_t n, const void *x_, double shift)
{
    const REAL *x = x_;
    double sum = 0;
    for (size_t begin = 0; begin < n; begin += LOSS_CHUNK) {
        size_t end = n - begin < LOSS_CHUNK ? n : begin + LOSS_CHUNK;
        FN(block) total = {{{0}}};
        for (size_t i = begin; i < end; i += VIRTUAL_LANES) {
            FN(block) block = FN(load_block)(x, i, end, (REAL)shift);
            for (size_t v = 0; v < FN(BLOCK_VECTORS); v++)
                total.v[v] += block.v[v] - (REAL)shift;
        }
        sum += FN(sum_block)(total);
    }
    return sum;
}

/* With teacher: sum of f (scale (t - t_shift) - scale (s - s_shift)); without: t is f, and its logarithm stands in. */
static inline __attribute__((always_inline)) double FN(cross)(size_t n, const REAL *s, double s_shift, const REAL *t,
                                                              double t_shift, double scale, const REAL *f, int teacher)
{
    double sum = 0;
    for (size_t begin = 0; begin < n; begin += LOSS_CHUNK) {
        size_t end = n - begin < LOSS_CHUNK ? n : begin + LOSS_CHUNK;
        FN(block) total = {{{0}}};
        for (size_t i = begin; i < end; i += VIRTUAL_LANES) {
            FN(block) student = FN(load_block)(s, i, end, 0), weight = FN(load_block)(f, i, end, 0), target = weight;
            if (teacher)
                target = FN(load_block)(t, i, end, 0);
            for (size_t v = 0; v < FN(BLOCK_VECTORS); v++) {
                FN(vreal) log_t;
                if (teacher)
                    log_t = (target.v[v] - (REAL)t_shift) * (REAL)scale;
                else
                    log_t = FN(log_vector)(target.v[v]);
                FN(vreal) term = weight.v[v] * (log_t - (student.v[v] - (REAL)s_shift) * (REAL)scale);
                /* classes of probability 0 add 0, whatever their logits */
                total.v[v] += FN(select)(weight.v[v] != 0, term, (FN(vreal)){0});
            }
        }
        sum += FN(sum_block)(total);
    }
    return sum;
}

static double FN(cross_logits)(size_t n, const void *s, double s_shift, const void *t, double t_shift, double scale,
                               const void *f)
{
    return FN(cross)(n, s, s_shift, t, t_shift, scale, f, 1);
}

static double FN(cross_probs)(size_t n, const void *s, double s_shift, double scale, const void *f)
{
    return FN(cross)(n, s, s_shift, NULL, 0, scale, f, 0);
}

static void FN(scale_add)(size_t n, double a, double b, void *x_)
{
    REAL *x = x_, scale = (REAL)a, add = (REAL)b;
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] * scale + add;
}

static void FN(difference)(size_t n, double a, double b, const void *f_, void *x_)
{
    const REAL *f = f_;
    REAL *x = x_;
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] * (REAL)a - f[i] * (REAL)b;
}
