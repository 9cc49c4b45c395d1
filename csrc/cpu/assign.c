/* Assignment of samples to given points. The points are packed into panels once; for every block of rows a product of
 * panels gives |c|^2 - 2 <x, c>, both less the points' mean, and from it the nearest point. Where the second nearest is
 * so near that rounding might have exchanged them, and where the product does not pay, distances are taken directly in
 * double: labels and distances are those of direct distances, so that exact ties are ties. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/assign.h"
#include "cpu/memory.h"

#define BLOCK_ROWS                                                                                                     \
    192 /* a multiple of every panel's width: as many rows' products with 1,000 points fill an L2 cache */
/* With few points the rows stay as they are: packing them costs more than the better product gains. A part of them
 * and DDOQ_DOT_DEPTH features of the points fit into L2. */
#define FEW_POINTS 64
#define PART_ROWS 16
#define LEAST_FEATURES 32
#define LEAST_POINTS 4
#define LEAST_ROWS 8 /* or else preparing the points takes longer */
/* Roundings of a product, relative to |x| |c|: chains of DDOQ_DEPTH grow as a random walk; with a margin of 4. */
#define ROUNDINGS 64

struct assignment {
    struct ddoq_rows x;
    const char *points;
    size_t k;
    int64_t *labels;
    double *dist2;
    char *shift;   /* (d) real: mean of the points */
    char *panels;  /* the points in panels, a block of DDOQ_DEPTH features after the other, or (k, d) less the shift
                    * where they are few; NULL: all distances direct */
    double *norms; /* (k) |c - shift|^2 */
    double slack;  /* of the least over the second, relative to |x - shift| */
};

/* Squared distance of x (d) to the nearest of points (k, d); *label is the lowest index that reaches it. */
static double nearest_point(const struct ddoq_kernels *kernels, size_t d, const void *x, const void *points, size_t k,
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
    const struct ddoq_kernels *kernels = x->kernels;
    size_t width = kernels->tile_cols, item = kernels->item, stride = ddoq_padded(kernels, m->k);
    for (size_t first = 0; first < x->d; first += DDOQ_DEPTH) {
        size_t depth = ddoq_smaller(DDOQ_DEPTH, x->d - first);
        const char *panels = m->panels + first * stride * item;
        ddoq_pack(x, m->shift, first, depth, packed);
        for (size_t j = 0; j < m->k; j += width) {
            if (ddoq_stopped(crew))
                return DDOQ_INTERRUPTED;
            ddoq_multiply_panel(kernels, packed, x->n, panels + j * depth * item, ddoq_smaller(width, m->k - j), depth,
                                product + j * item, stride, first > 0);
        }
    }
    return DDOQ_OK;
}

static bool is_few(const struct assignment *m)
{
    return m->k <= FEW_POINTS;
}

/* The same with few points, from the rows as they are stored, or widened (x->n, d). */
static enum ddoq_status multiply_rows(const struct assignment *m, const struct ddoq_rows *x, void *widened,
                                      char *product, struct ddoq_crew *crew)
{
    const struct ddoq_kernels *kernels = x->kernels;
    size_t d = x->d, item = kernels->item;
    const void *rows[PART_ROWS], *features[PART_ROWS];
    double squares[PART_ROWS];
    for (size_t r = 0; r < x->n; r++)
        rows[r] = ddoq_features(x, r, 0, d, (char *)widened + (widened ? r * d * item : 0));
    for (size_t first = 0; first < d; first += DDOQ_DOT_DEPTH) {
        for (size_t r = 0; r < x->n; r++)
            features[r] = (const char *)rows[r] + first * item;
        kernels->products(ddoq_smaller(DDOQ_DOT_DEPTH, d - first), x->n, features, m->shift + first * item, m->k,
                          m->panels + first * item, d, product, squares, first > 0);
    }
    return ddoq_stopped(crew) ? DDOQ_INTERRUPTED : DDOQ_OK;
}

/* Labels and distances of the rows in x, of which the first is row begin of all. */
static enum ddoq_status assign_by_product(const struct assignment *m, const struct ddoq_rows *x, size_t begin,
                                          void *widened, struct ddoq_crew *crew)
{
    const struct ddoq_kernels *kernels = x->kernels;
    size_t d = x->d, stride = is_few(m) ? m->k : ddoq_padded(kernels, m->k);
    char *packed = is_few(m) ? NULL : ddoq_allocate(BLOCK_ROWS, ddoq_smaller(DDOQ_DEPTH, d), kernels->item);
    char *product = ddoq_allocate(x->n, stride, kernels->item);
    enum ddoq_status status = (packed || is_few(m)) && product ? DDOQ_OK : DDOQ_NO_MEMORY;
    if (status == DDOQ_OK)
        status = is_few(m) ? multiply_rows(m, x, widened, product, crew) : multiply(m, x, packed, product, crew);
    for (size_t i = 0; i < x->n && status == DDOQ_OK; i++) {
        double two[2];
        const char *row = ddoq_features(x, i, 0, d, widened);
        size_t j = kernels->two_least(m->k, product + i * stride * kernels->item, m->norms, two);
        double dist2 = kernels->dist2(d, row, m->points + j * d * kernels->item);
        double radius = sqrt(dist2) + sqrt(m->norms[j]); /* at least |x - shift| */
        if (two[1] - two[0] > m->slack * radius) {
            m->labels[begin + i] = (int64_t)j;
            m->dist2[begin + i] = dist2;
        } else if (ddoq_stopped(crew)) {
            status = DDOQ_INTERRUPTED;
        } else {
            m->dist2[begin + i] = nearest_point(kernels, d, row, m->points, m->k, &m->labels[begin + i]);
        }
    }
    free(product);
    free(packed);
    return status;
}

static enum ddoq_status assign_block(void *context, size_t block, struct ddoq_crew *crew)
{
    const struct assignment *m = context;
    size_t begin = block * BLOCK_ROWS;
    const struct ddoq_rows x = ddoq_part(&m->x, begin, ddoq_smaller(BLOCK_ROWS, m->x.n - begin));
    float *widened = x.widen ? ddoq_allocate(PART_ROWS, x.d, sizeof *widened) : NULL;
    enum ddoq_status status = x.widen && !widened ? DDOQ_NO_MEMORY : DDOQ_OK;
    size_t step = is_few(m) ? PART_ROWS : BLOCK_ROWS;
    for (size_t i = 0; i < x.n && status == DDOQ_OK && m->panels; i += step) {
        const struct ddoq_rows part = ddoq_part(&x, i, ddoq_smaller(step, x.n - i));
        status = assign_by_product(m, &part, begin + i, widened, crew);
    }
    for (size_t i = 0; i < x.n && status == DDOQ_OK && !m->panels; i++) {
        const char *row = ddoq_features(&x, i, 0, x.d, widened);
        m->dist2[begin + i] = nearest_point(x.kernels, x.d, row, m->points, m->k, &m->labels[begin + i]);
        if (ddoq_stopped(crew))
            status = DDOQ_INTERRUPTED;
    }
    free(widened);
    return status;
}

/* Shift, panels and norms of the points, where the product pays. */
static enum ddoq_status prepare(struct assignment *m)
{
    const struct ddoq_kernels *kernels = m->x.kernels;
    size_t d = m->x.d, bytes = d * kernels->item, stride = ddoq_padded(kernels, m->k);
    if (d < LEAST_FEATURES || m->k < LEAST_POINTS || m->x.n < LEAST_ROWS)
        return DDOQ_OK;
    double *sum = ddoq_allocate(d, 1, sizeof *sum), farthest = 0;
    m->shift = ddoq_allocate(d, 1, kernels->item);
    m->norms = ddoq_allocate(m->k, 1, sizeof *m->norms);
    m->panels = ddoq_allocate(stride, d, kernels->item);
    bool enough = sum && m->shift && m->norms && m->panels;
    if (enough) {
        const struct ddoq_rows points = {.kernels = kernels, .data = m->points, .n = m->k, .d = d};
        memset(sum, 0, d * sizeof *sum);
        for (size_t j = 0; j < m->k; j++)
            kernels->axpy(d, 1, m->points + j * bytes, sum);
        kernels->narrow(d, sum, (double)m->k, m->shift);
        for (size_t first = 0; first < d && !is_few(m); first += DDOQ_DEPTH)
            ddoq_pack(&points, m->shift, first, ddoq_smaller(DDOQ_DEPTH, d - first),
                      m->panels + first * stride * kernels->item);
        for (size_t j = 0; j < m->k; j++) {
            m->norms[j] = kernels->dist2(d, m->points + j * bytes, m->shift);
            if (is_few(m)) {
                kernels->widen(d, m->points + j * bytes, 1, sum);
                kernels->centre(d, sum, 1, m->shift, m->panels + j * bytes);
            }
            farthest = fmax(farthest, m->norms[j]);
        }
        m->slack = ROUNDINGS * (kernels->item == sizeof(float) ? FLT_EPSILON : DBL_EPSILON) * sqrt(farthest);
    }
    free(sum);
    return enough ? DDOQ_OK : DDOQ_NO_MEMORY;
}

static void release(struct assignment *m)
{
    free(m->panels);
    free(m->norms);
    free(m->shift);
}

static size_t blocks(size_t n)
{
    return n / BLOCK_ROWS + (n % BLOCK_ROWS != 0);
}

enum ddoq_status ddoq_assign_rows(const struct ddoq_rows *x, const void *points, size_t k, int64_t *labels,
                                  double *dist2, struct ddoq_crew *crew)
{
    struct assignment m = {.x = *x, .points = points, .k = k, .labels = labels, .dist2 = dist2};
    enum ddoq_status status = prepare(&m);
    for (size_t block = 0; block < blocks(x->n) && status == DDOQ_OK; block++)
        status = assign_block(&m, block, crew);
    release(&m);
    return status;
}

enum ddoq_status ddoq_assign_run(const struct ddoq_run *run, const struct ddoq_rows *x, const void *points, size_t k,
                                 int64_t *labels, double *dist2)
{
    struct assignment m = {.x = *x,
                           .points = points,
                           .k = x->d > 0 ? k : 1, /* without features all are equally near */
                           .labels = labels,
                           .dist2 = dist2};
    size_t failed;
    enum ddoq_status status = prepare(&m);
    if (status == DDOQ_OK)
        status = ddoq_run_tasks(blocks(x->n), run, assign_block, &m, &failed);
    release(&m);
    return status;
}

enum ddoq_status ddoq_assign(const struct ddoq_run *run, enum ddoq_type type, const void *X, size_t n,
                             const void *points, size_t k, size_t d, int64_t *labels, double *dist2)
{
    const struct ddoq_rows x = ddoq_rows_of(run->isa, type, X, n, d);
    return ddoq_assign_run(run, &x, points, k, labels, dist2);
}
