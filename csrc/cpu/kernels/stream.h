/* Kernels of the streaming form for one element type, with a sample in each lane: included by kernels/isa.h after
 * kernels/real.h. */

/* As wide as REAL, so that labels lie in the lanes of their samples. */
typedef INTEGER FN(vinteger) __attribute__((vector_size(VECTOR_BYTES), may_alias));

#if !defined(__AVX2__)
static inline FN(vreal) FN(minimum)(FN(vreal) a, FN(vreal) b)
{
    FN(vinteger) less = (FN(vinteger))(a < b);
    return (FN(vreal))CHOOSE(less, (FN(vinteger))a, (FN(vinteger))b);
}
#endif

static void FN(lower)(size_t rows, const void *product_, const void *half_, size_t first, void *best_, void *label_)
{
    enum { COLS = TILE_VECTORS * VECTOR_BYTES / sizeof(REAL) };
    const FN(vreal) *product = product_;
    const REAL *half = half_;
    FN(vreal) best[TILE_VECTORS], *best_out = best_;
    FN(vinteger) label[TILE_VECTORS], *label_out = label_;
    for (size_t v = 0; v < TILE_VECTORS; v++) {
        best[v] = (FN(vreal)){0} + (REAL)INFINITY;
        label[v] = (FN(vinteger)){0};
        if (first > 0) {
            best[v] = best_out[v];
            label[v] = label_out[v];
        }
    }
    for (size_t r = 0; r < rows; r++, product += TILE_VECTORS) {
        FN(vinteger) at = (FN(vinteger)){0} + (INTEGER)(first + r);
#pragma GCC unroll 16
        for (size_t v = 0; v < TILE_VECTORS; v++) {
            FN(vreal) value = half[r] - product[v];
            FN(vinteger) less = (FN(vinteger))(value < best[v]);
            best[v] = FN(minimum)(value, best[v]);
            label[v] = (FN(vinteger))CHOOSE(less, at, label[v]);
        }
    }
    for (size_t v = 0; v < TILE_VECTORS; v++) {
        best_out[v] = best[v];
        label_out[v] = label[v];
    }
}

static void FN(two_nearest)(size_t n, size_t k, const void *product_, size_t stride, const double *norm, int64_t *label,
                            double *least_out, double *second_out)
{
    const REAL *product = product_;
    size_t i = 0;
    for (; i + VIRTUAL_LANES <= n; i += VIRTUAL_LANES) {
        vf64 least[ACCUMULATORS], second[ACCUMULATORS];
        vi64 index[ACCUMULATORS];
        for (size_t v = 0; v < ACCUMULATORS; v++) {
            least[v] = second[v] = (vf64){0} + INFINITY;
            index[v] = (vi64){0};
        }
        for (size_t j = 0; j < k; j++) {
            for (size_t v = 0; v < ACCUMULATORS; v++) {
                vf64 value = norm[j] - FN(widened)(product + j * stride + i + v * LANES_F64) * 2.0;
                vi64 less = (vi64)(value < least[v]);
                vf64 other = select_f64(less, least[v], value);
                second[v] = select_f64((vi64)(other < second[v]), other, second[v]);
                least[v] = select_f64(less, value, least[v]);
                index[v] = (less & (int64_t)j) | (~less & index[v]);
            }
        }
        for (size_t v = 0; v < ACCUMULATORS; v++) {
            store_f64(least_out + i + v * LANES_F64, least[v]);
            store_f64(second_out + i + v * LANES_F64, second[v]);
            *(vi64_unaligned *)(label + i + v * LANES_F64) = index[v];
        }
    }
    for (; i < n; i++) {
        least_out[i] = second_out[i] = INFINITY;
        label[i] = 0;
        for (size_t j = 0; j < k; j++) {
            double value = norm[j] - (double)product[j * stride + i] * 2.0;
            bool less = value < least_out[i];
            second_out[i] = fmin(second_out[i], less ? least_out[i] : value);
            label[i] = less ? (int64_t)j : label[i];
            least_out[i] = less ? value : least_out[i];
        }
    }
}

static void FN(copy_labels)(size_t n, const void *label_, int64_t *out)
{
    const INTEGER *label = label_;
    for (size_t i = 0; i < n; i++)
        out[i] = label[i];
}

static void FN(squares)(size_t depth, const void *panel_, void *out_, int add)
{
    const FN(vreal) *panel = panel_;
    FN(vreal) sum[TILE_VECTORS] = {{0}}, *out = out_;
    for (size_t p = 0; p < depth; p++, panel += TILE_VECTORS)
#pragma GCC unroll 16
        for (size_t v = 0; v < TILE_VECTORS; v++)
            sum[v] += panel[v] * panel[v];
    for (size_t v = 0; v < TILE_VECTORS; v++) {
        if (add)
            sum[v] += out[v];
        out[v] = sum[v];
    }
}

/* Rows of a are read where they lie: it is they that change or are few, and b that is packed. The callers make the
 * height of the tile a constant. */
static inline __attribute__((always_inline)) void FN(tile_in_place_of)(size_t height, size_t depth, const REAL *a_,
                                                                       size_t a_stride, const FN(vreal) *restrict b,
                                                                       REAL *c_, size_t c_stride, size_t rows, int add)
{
    const REAL *a[TILE_ROWS];
    FN(vreal) sum[TILE_ROWS][TILE_VECTORS] = {{{0}}};
    for (size_t r = 0; r < height; r++)
        a[r] = a_ + (r < rows ? r : rows - 1) * a_stride;
    for (size_t p = 0; p < depth; p++, b += TILE_VECTORS) {
#pragma GCC unroll 16
        for (size_t r = 0; r < height; r++) {
#pragma GCC unroll 16
            for (size_t v = 0; v < TILE_VECTORS; v++)
                sum[r][v] += a[r][p] * b[v];
        }
    }
#pragma GCC unroll 16
    for (size_t r = 0; r < height; r++) {
        FN(vreal) *c = (FN(vreal) *)(c_ + r * c_stride);
        if (r >= rows)
            return;
#pragma GCC unroll 16
        for (size_t v = 0; v < TILE_VECTORS; v++) {
            if (add)
                sum[r][v] += c[v];
            c[v] = sum[r][v];
        }
    }
}

static void FN(tile_in_place)(size_t depth, const void *a, size_t a_stride, const void *b, void *c, size_t c_stride,
                              size_t rows, int add)
{
    if (rows > TILE_ROWS / 2)
        FN(tile_in_place_of)(TILE_ROWS, depth, a, a_stride, b, c, c_stride, rows, add);
    else if (rows > TILE_ROWS / 4)
        FN(tile_in_place_of)(TILE_ROWS / 2, depth, a, a_stride, b, c, c_stride, rows, add);
    else
        FN(tile_in_place_of)(TILE_ROWS / 4, depth, a, a_stride, b, c, c_stride, rows, add);
}

static void FN(subtract)(size_t n, const void *x_, const void *y_, void *out_)
{
    const REAL *x = x_, *y = y_;
    REAL *restrict out = out_;
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] - y[i];
}
