/* Assignment of samples to given points. The points are packed into panels once; for every block of rows a product of
 * panels gives |c|^2 - 2 <x, c>, both less the points' mean, and from it the nearest point. Where the second nearest is
 * so near that rounding might have exchanged them, and where the product does not pay, distances are taken directly in
 * double: labels and distances are those of direct distances, so that exact ties are ties. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "cpu/assign.h"
#include "cpu/memory.h"
#include "cpu/panels.h"
#include "cpu/parallel.h"

#define BLOCK_ROWS                                                                                                     \
    192 /* a multiple of every panel's width: as many rows' products with 1,000 points fill an L2 cache */
#define LEAST_FEATURES 32
#define LEAST_POINTS 4
/* Roundings of a product, relative to |x| |c|: chains of DDOQ_DEPTH grow as a random walk; with a margin of 4. */
#define ROUNDINGS 64

struct assignment {
    const struct ddoq_kernels *kernels;
    const char *X, *points;
    size_t n, k, d;
    int64_t *labels;
    double *dist2;
    char *shift;  /* (d) real: mean of the points */
    char *panels; /* the points in panels, a block of DDOQ_DEPTH features after the other; NULL: all distances direct */
    double *norms; /* (k) |c - shift|^2 */
    double slack;  /* of the least over the second, relative to |x - shift| */
};

double ddoq_nearest_point(const struct ddoq_kernels *kernels, size_t d, const void *x, const void *points, size_t k,
                          int64_t *label)
{
    double least = INFINITY;
    *label = 0;
    for (size_t j = 0; j < k; j++) {
        double value = kernels->dist2(d, x, (const char *)points + j * d * kernels->item);
        if (value < least || j == 0) {
            least = value;
            *label = (int64_t)j;
        }
    }
    return least;
}

/* product (x->n, padded k) = rows of x times the points, both less the shift. */
static enum ddoq_status multiply(const struct assignment *m, const struct ddoq_rows *x, char *packed, char *product,
                                 struct ddoq_crew *crew)
{
    size_t width = m->kernels->tile_cols, item = m->kernels->item, stride = ddoq_padded(m->kernels, m->k);
    for (size_t first = 0; first < m->d; first += DDOQ_DEPTH) {
        size_t depth = ddoq_smaller(DDOQ_DEPTH, m->d - first);
        const char *panels = m->panels + first * stride * item;
        ddoq_pack(x, m->shift, first, depth, packed);
        for (size_t j = 0; j < m->k; j += width) {
            if (ddoq_stopped(crew))
                return DDOQ_INTERRUPTED;
            ddoq_multiply_panel(m->kernels, packed, x->n, panels + j * depth * item, ddoq_smaller(width, m->k - j),
                                depth, product + j * item, stride, first > 0);
        }
    }
    return DDOQ_OK;
}

static enum ddoq_status assign_by_product(const struct assignment *m, size_t begin, size_t count,
                                          struct ddoq_crew *crew)
{
    const struct ddoq_kernels *kernels = m->kernels;
    size_t bytes = m->d * kernels->item, stride = ddoq_padded(kernels, m->k);
    const char *x = m->X + begin * bytes;
    char *packed = ddoq_allocate(BLOCK_ROWS, ddoq_smaller(DDOQ_DEPTH, m->d), kernels->item);
    char *product = ddoq_allocate(BLOCK_ROWS, stride, kernels->item);
    enum ddoq_status status = packed && product ? DDOQ_OK : DDOQ_NO_MEMORY;
    const struct ddoq_rows rows = {.kernels = kernels, .data = x, .n = count, .d = m->d};
    if (status == DDOQ_OK)
        status = multiply(m, &rows, packed, product, crew);
    for (size_t i = 0; i < count && status == DDOQ_OK; i++, x += bytes) {
        double two[2];
        size_t j = kernels->two_least(m->k, product + i * stride * kernels->item, m->norms, two);
        if (two[1] - two[0] > m->slack * sqrt(kernels->dist2(m->d, x, m->shift))) {
            m->labels[begin + i] = (int64_t)j;
            m->dist2[begin + i] = kernels->dist2(m->d, x, m->points + j * bytes);
        } else if (ddoq_stopped(crew)) {
            status = DDOQ_INTERRUPTED;
        } else {
            m->dist2[begin + i] = ddoq_nearest_point(kernels, m->d, x, m->points, m->k, &m->labels[begin + i]);
        }
    }
    free(product);
    free(packed);
    return status;
}

static enum ddoq_status assign_block(void *context, size_t block, struct ddoq_crew *crew)
{
    const struct assignment *m = context;
    size_t begin = block * BLOCK_ROWS, end = begin + ddoq_smaller(BLOCK_ROWS, m->n - begin);
    if (m->panels)
        return assign_by_product(m, begin, end - begin, crew);
    for (size_t i = begin; i < end; i++) {
        if (ddoq_stopped(crew))
            return DDOQ_INTERRUPTED;
        m->dist2[i] =
            ddoq_nearest_point(m->kernels, m->d, m->X + i * m->d * m->kernels->item, m->points, m->k, &m->labels[i]);
    }
    return DDOQ_OK;
}

/* Shift, panels and norms of the points; false when memory is short. */
static bool pack_points(struct assignment *m)
{
    const struct ddoq_kernels *kernels = m->kernels;
    size_t bytes = m->d * kernels->item, stride = ddoq_padded(kernels, m->k);
    double *sum = ddoq_allocate(m->d, 1, sizeof *sum), farthest = 0;
    m->shift = ddoq_allocate(m->d, 1, kernels->item);
    m->norms = ddoq_allocate(m->k, 1, sizeof *m->norms);
    m->panels = ddoq_allocate(stride, m->d, kernels->item);
    bool enough = sum && m->shift && m->norms && m->panels;
    if (enough) {
        for (size_t p = 0; p < m->d; p++)
            sum[p] = 0;
        for (size_t j = 0; j < m->k; j++)
            kernels->axpy(m->d, 1, m->points + j * bytes, sum);
        kernels->narrow(m->d, sum, (double)m->k, m->shift);
        const struct ddoq_rows points = {.kernels = kernels, .data = m->points, .n = m->k, .d = m->d};
        for (size_t first = 0; first < m->d; first += DDOQ_DEPTH)
            ddoq_pack(&points, m->shift, first, ddoq_smaller(DDOQ_DEPTH, m->d - first),
                      m->panels + first * stride * kernels->item);
        for (size_t j = 0; j < m->k; j++) {
            m->norms[j] = kernels->dist2(m->d, m->points + j * bytes, m->shift);
            farthest = fmax(farthest, m->norms[j]);
        }
        m->slack = ROUNDINGS * (kernels->item == sizeof(float) ? FLT_EPSILON : DBL_EPSILON) * sqrt(farthest);
    }
    free(sum);
    return enough;
}

enum ddoq_status ddoq_assign(const struct ddoq_run *run, enum ddoq_type type, const void *X, size_t n,
                             const void *points, size_t k, size_t d, int64_t *labels, double *dist2)
{
    struct assignment m = {.kernels = &run->isa->real[type],
                           .X = X,
                           .points = points,
                           .n = n,
                           .k = k,
                           .d = d,
                           .labels = labels,
                           .dist2 = dist2};
    enum ddoq_status status = DDOQ_NO_MEMORY;
    size_t failed;
    bool by_product = d >= LEAST_FEATURES && k >= LEAST_POINTS && n >= k;
    if (!by_product || pack_points(&m))
        status = ddoq_run_tasks(n / BLOCK_ROWS + (n % BLOCK_ROWS != 0), run, assign_block, &m, &failed);
    free(m.panels);
    free(m.norms);
    free(m.shift);
    return status;
}
