/* Kernels for one element type: included by kernels/isa.h with REAL = float and REAL = double. FN(verb) is the name of
 * this type's function. */

typedef REAL FN(vreal) __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef REAL FN(vreal_unaligned) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
/* As many reals as a vector holds doubles. */
typedef REAL FN(vpart_unaligned)
    __attribute__((vector_size(LANES_F64 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

typedef REAL FN(quad_unaligned) __attribute__((vector_size(16), aligned(sizeof(REAL)), may_alias));

static inline vf64 FN(widened)(const REAL *x)
{
    return __builtin_convertvector(*(const FN(vpart_unaligned) *)x, vf64);
}

static void FN(pack)(const void *const *rows, const void *shift_, size_t count, size_t width, size_t depth,
                     void *panel_)
{
    enum { SIDE = 16 / sizeof(REAL), LINE = DDOQ_CACHE_LINE / sizeof(REAL) };
    const REAL *shift = shift_;
    REAL *panel = panel_;
    size_t whole = count / SIDE * SIDE, first = 0;
    for (; first + LINE <= depth; first += LINE) { /* a line of every row, into a few lines of the panel */
        for (size_t r = 0; r < whole; r += SIDE) {
            for (size_t q = 0; q < SIDE; q++) /* more streams than the processor follows by itself */
                __builtin_prefetch((const REAL *)rows[r + q] + first + 2 * LINE);
#pragma GCC unroll 16
            for (size_t p = first; p < first + LINE; p += SIDE) {
                FN(quad) square[SIDE];
                FN(quad) centre = *(const FN(quad_unaligned) *)(shift + p);
                for (size_t q = 0; q < SIDE; q++)
                    square[q] = *(const FN(quad_unaligned) *)((const REAL *)rows[r + q] + p) - centre;
                FN(transpose)(square);
                for (size_t q = 0; q < SIDE; q++)
                    *(FN(quad_unaligned) *)(panel + (p + q) * width + r) = square[q];
            }
        }
    }
    for (size_t r = 0; r < width; r++)
        for (size_t p = r < whole ? first : 0; p < depth; p++)
            panel[p * width + r] = r < count ? ((const REAL *)rows[r])[p] - shift[p] : 0;
}

/* The product of one tile of the given number of vectors, which the callers make a constant. */
static inline __attribute__((always_inline)) void FN(tile_of)(size_t vectors, size_t depth, const REAL *restrict a,
                                                              const FN(vreal) *restrict b, REAL *restrict c,
                                                              size_t stride, size_t rows, size_t cols, int add)
{
    enum { LANES = VECTOR_BYTES / sizeof(REAL), COLS = TILE_VECTORS * LANES };
    _Static_assert(COLS % TILE_ROWS == 0 && COLS <= DDOQ_MAX_PANEL_WIDTH, "a tile's rows lie in one panel");
    FN(vreal) sum[TILE_ROWS][TILE_VECTORS] = {{{0}}};
    for (size_t r = 0; r < rows; r++) /* c lies in L3: ask for it now, it is needed at the end */
        for (size_t q = 0; q < cols; q += DDOQ_CACHE_LINE / sizeof(REAL))
            __builtin_prefetch(c + r * stride + q, 1);
    for (size_t p = 0; p < depth; p++, a += COLS, b += TILE_VECTORS) {
#pragma GCC unroll 16
        for (size_t r = 0; r < TILE_ROWS; r++) {
#pragma GCC unroll 16
            for (size_t v = 0; v < vectors; v++)
                sum[r][v] += a[r] * b[v];
        }
    }
    if (rows == TILE_ROWS && cols == vectors * LANES) {
#pragma GCC unroll 16
        for (size_t r = 0; r < TILE_ROWS; r++) {
#pragma GCC unroll 16
            for (size_t v = 0; v < vectors; v++) {
                FN(vreal_unaligned) *at = (FN(vreal_unaligned) *)(c + r * stride + v * LANES);
                if (add)
                    sum[r][v] += *at;
                *at = sum[r][v];
            }
        }
        return;
    }
    REAL edge[TILE_ROWS][COLS];
    memcpy(edge, sum, sizeof edge);
    for (size_t r = 0; r < rows; r++)
        for (size_t q = 0; q < cols; q++)
            c[r * stride + q] = add ? c[r * stride + q] + edge[r][q] : edge[r][q];
}

static void FN(tile)(size_t depth, const void *a, const void *b, void *c, size_t stride, size_t rows, size_t cols,
                     int add)
{
    enum { LANES = VECTOR_BYTES / sizeof(REAL) };
    if (cols > 2 * LANES)
        FN(tile_of)(3, depth, a, b, c, stride, rows, cols, add);
    else if (cols > LANES)
        FN(tile_of)(2, depth, a, b, c, stride, rows, cols, add);
    else
        FN(tile_of)(1, depth, a, b, c, stride, rows, cols, add);
}

static void FN(fold)(size_t d, size_t m, const void *x_, const void *shift_, const void *sign_, void *out_)
{
    enum { LANES = VECTOR_BYTES / sizeof(REAL) };
    const REAL *x = x_, *shift = shift_, *sign = sign_;
    REAL *out = out_;
    memset(out, 0, m * sizeof *out);
    for (size_t first = 0; first < d; first += m) {
        size_t width = d - first < m ? d - first : m, p = 0;
        for (; p + LANES <= width; p += LANES) {
            size_t at = first + p;
            FN(vreal_unaligned) *sum = (FN(vreal_unaligned) *)(out + p);
            *sum += (*(const FN(vreal_unaligned) *)(x + at) - *(const FN(vreal_unaligned) *)(shift + at)) *
                    *(const FN(vreal_unaligned) *)(sign + at);
        }
        for (; p < width; p++)
            out[p] += (x[first + p] - shift[first + p]) * sign[first + p];
    }
}

static void FN(mirror)(size_t n, size_t begin, size_t end, void *c_)
{
    /* One cache line of floats: each line is written while it is at hand. */
    enum { BLOCK = 16, SIDE = 16 / sizeof(REAL) };
    REAL *c = c_;
    for (size_t i0 = begin; i0 < end; i0 += BLOCK) {
        size_t i1 = i0 + BLOCK < end ? i0 + BLOCK : end;
        size_t j = 0;
        for (; i1 == i0 + BLOCK && j + SIDE <= i0; j += SIDE) {
            for (size_t i = i0; i < i0 + BLOCK; i += SIDE) {
                FN(quad) square[SIDE];
                for (size_t q = 0; q < SIDE; q++)
                    square[q] = *(const FN(quad_unaligned) *)(c + (i + q) * n + j);
                FN(transpose)(square);
                for (size_t q = 0; q < SIDE; q++)
                    *(FN(quad_unaligned) *)(c + (j + q) * n + i) = square[q];
            }
        }
        for (; j < i1; j++)
            for (size_t i = j < i0 ? i0 : j + 1; i < i1; i++)
                c[j * n + i] = c[i * n + j];
    }
}

/* Without the sign, bits rise with the magnitude, and NaN's are the greatest. */
static uint64_t FN(magnitude)(size_t n, const void *x_)
{
    typedef BITS __attribute__((may_alias)) bits;
    const bits *x = x_;
    BITS most = 0;
    for (size_t i = 0; i < n; i++) {
        BITS magnitude = x[i] & ~((BITS)1 << (8 * sizeof(BITS) - 1));
        most = magnitude > most ? magnitude : most;
    }
    return most;
}

static void FN(axpy)(size_t n, double w, const void *x_, double *restrict y)
{
    const REAL *restrict x = x_;
    size_t i = 0;
    for (; i + LANES_F64 <= n; i += LANES_F64)
        store_f64(y + i, load_f64(y + i) + FN(widened)(x + i) * w);
    for (; i < n; i++)
        y[i] = MULTIPLY_ADD((double)x[i], w, y[i]);
}

static void FN(transfer)(size_t n, double w, const void *x_, double *restrict from, double *restrict to)
{
    const REAL *restrict x = x_;
    size_t i = 0;
    for (; i + LANES_F64 <= n; i += LANES_F64) {
        vf64 wide = FN(widened)(x + i);
        store_f64(from + i, load_f64(from + i) + wide * -w);
        store_f64(to + i, load_f64(to + i) + wide * w);
    }
    for (; i < n; i++) {
        from[i] = MULTIPLY_ADD((double)x[i], -w, from[i]);
        to[i] = MULTIPLY_ADD((double)x[i], w, to[i]);
    }
}

/* Four rows at a time, so that y is read and written once for them; every element adds the rows in their order. */
static void FN(add_rows)(size_t n, size_t n_rows, const double *w, const void *const *rows, double *restrict y)
{
    size_t r = 0;
    for (; r + 4 <= n_rows; r += 4) {
        const REAL *restrict a = rows[r], *restrict b = rows[r + 1], *restrict c = rows[r + 2],
                             *restrict e = rows[r + 3];
        size_t i = 0;
        for (; i + LANES_F64 <= n; i += LANES_F64) {
            vf64 sum = load_f64(y + i) + FN(widened)(a + i) * w[r];
            sum += FN(widened)(b + i) * w[r + 1];
            sum += FN(widened)(c + i) * w[r + 2];
            store_f64(y + i, sum + FN(widened)(e + i) * w[r + 3]);
        }
        for (; i < n; i++)
            for (size_t q = r; q < r + 4; q++)
                y[i] = MULTIPLY_ADD((double)((const REAL *)rows[q])[i], w[q], y[i]);
    }
    for (; r < n_rows; r++)
        FN(axpy)(n, w[r], rows[r], y);
}

static void FN(widen)(size_t n, const void *x_, size_t stride, double *restrict out)
{
    const REAL *x = x_;
    for (size_t i = 0; i < n; i++)
        out[i] = (double)x[i * stride];
}

static void FN(narrow)(size_t n, const double *restrict x, double divisor, void *out_)
{
    REAL *restrict out = out_;
    for (size_t i = 0; i < n; i++)
        out[i] = (REAL)(x[i] / divisor);
}

static double FN(centre)(size_t d, const double *restrict x, double divisor, const void *shift_, void *out_)
{
    const REAL *restrict shift = shift_;
    REAL *restrict out = out_;
    const double factor = 1 / divisor;
    vf64 sum[ACCUMULATORS] = {{0}};
    size_t p = 0;
    for (; p + VIRTUAL_LANES <= d; p += VIRTUAL_LANES) {
        for (size_t v = 0; v < ACCUMULATORS; v++) {
            size_t at = p + v * LANES_F64;
            vf64 value = load_f64(x + at) * factor - FN(widened)(shift + at);
            *(FN(vpart_unaligned) *)(out + at) = __builtin_convertvector(value, FN(vpart_unaligned));
            sum[v] += value * value;
        }
    }
    double tail = 0;
    for (; p < d; p++) {
        double value = x[p] * factor - (double)shift[p];
        out[p] = (REAL)value;
        tail = MULTIPLY_ADD(value, value, tail);
    }
    return sum_lanes(sum) + tail;
}

/* The row after x, which mostly comes next, is fetched from memory meanwhile. */
static double FN(dist2)(size_t d, const void *x_, const void *y_)
{
    const REAL *x = x_, *y = y_;
    vf64 sum[ACCUMULATORS] = {{0}};
    size_t p = 0;
    for (; p + VIRTUAL_LANES <= d; p += VIRTUAL_LANES) {
        __builtin_prefetch(x + d + p);
        for (size_t v = 0; v < ACCUMULATORS; v++) {
            vf64 difference = FN(widened)(x + p + v * LANES_F64) - FN(widened)(y + p + v * LANES_F64);
            sum[v] += difference * difference;
        }
    }
    double tail = 0;
    for (; p < d; p++) {
        double difference = (double)x[p] - (double)y[p];
        tail = MULTIPLY_ADD(difference, difference, tail);
    }
    return sum_lanes(sum) + tail;
}

static double FN(trial)(size_t n, const void *gram_row, double norm, const double *diagonal, const double *closest,
                        const double *w, double *restrict out)
{
    const REAL *gram = gram_row;
    const vf64 zero = {0};
    vf64 sum[ACCUMULATORS] = {{0}};
    size_t i = 0;
    for (; i + VIRTUAL_LANES <= n; i += VIRTUAL_LANES) {
        for (size_t v = 0; v < ACCUMULATORS; v++) {
            size_t at = i + v * LANES_F64;
            vf64 value = (load_f64(diagonal + at) + norm) - FN(widened)(gram + at) * 2.0;
            vf64 bound = load_f64(closest + at);
            value = select_f64((vi64)(value < zero), zero, value);
            value = select_f64((vi64)(value < bound), value, bound);
            store_f64(out + at, value);
            sum[v] += value * load_f64(w + at);
        }
    }
    double tail = 0;
    for (; i < n; i++) {
        double value = (diagonal[i] + norm) - (double)gram[i] * 2.0;
        value = value < 0 ? 0 : value;
        out[i] = value < closest[i] ? value : closest[i];
        tail = MULTIPLY_ADD(out[i], w[i], tail);
    }
    return sum_lanes(sum) + tail;
}
