/* Assignment of samples to given points: products of blocks of rows with all points give |c|^2 - 2 <x, c>, both less
 * the points' mean, and from it the nearest point. Among points so near that rounding might have exchanged them, and
 * where the product does not pay, distances are taken directly in double: labels and distances are those of direct
 * distances, so that exact ties are ties. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/assign.h"
#include "cpu/memory.h"

#define BLOCK_ROWS 192 /* of a task: four products of DDOQ_PRODUCT_ROWS */
/* With fewer features or points the product does not pay; with fewer rows preparing the points takes longer. */
#define LEAST_FEATURES 32
#define LEAST_POINTS 4
#define LEAST_ROWS 8

struct assignment {
    struct ddoq_rows x;
    const char *points;
    size_t k;
    int64_t *labels;
    double *dist2;
    char *shift;   /* (d) real: mean of the points */
    char *centred; /* (k, d) real: the points less the shift; NULL: all distances direct */
    double *norms; /* (k) |c - shift|^2 */
    /* How much greater |c|^2 - 2 <x, c> is, at most, of a point that is not farther than the one of the least: tiny +
     * slack r + direct r^2, where r >= |x - shift| and r >= the distance to either point. */
    double slack, direct, tiny;
};

/* Squared distance of x (d) to the nearest point; *label is the lowest index that reaches it. product: of x, one in
 * DDOQ_PRODUCT_ROWS, which rule points out where they are above the limit; or NULL. */
static double nearest_point(const struct assignment *m, const void *x, const char *product, double limit,
                            int64_t *label)
{
    const struct ddoq_kernels *kernels = m->x.kernels;
    double least = NAN;
    *label = -1;
    for (size_t j = 0; j < m->k; j++) {
        double value = -INFINITY;
        if (product) {
            kernels->vector.widen(1, product + j * DDOQ_PRODUCT_ROWS * kernels->item, 1, &value);
            value = m->norms[j] - 2 * value;
        }
        if (value > limit)
            continue;
        value = kernels->vector.dist2(m->x.d, x, m->points + j * m->x.d * kernels->item);
        if (value < least || *label < 0) {
            least = value;
            *label = (int64_t)j;
        }
    }
    return least;
}

/* A panel of rows is packed and stays in L1, or in L2 where it is wide, while all points go by. These are read where
 * they lie: a few change from one call of a polish to the next, and every number of them serves a whole panel. */
enum ddoq_status ddoq_multiply_points(const struct ddoq_rows *x, const char *shift, const char *points, size_t k,
                                      char *product, char *squares, struct ddoq_crew *crew)
{
    const struct ddoq_kernels *kernels = x->kernels;
    size_t width = kernels->tile_cols, height = kernels->tile_rows, item = kernels->item, d = x->d;
    char panel[DDOQ_MAX_PANEL_WIDTH * DDOQ_DEPTH * sizeof(float)] __attribute__((aligned(DDOQ_CACHE_LINE)));
    for (size_t first = 0; first < d; first += DDOQ_DEPTH) {
        size_t depth = ddoq_smaller(DDOQ_DEPTH, d - first);
        for (size_t i = 0; i < x->n; i += width) {
            const struct ddoq_rows rows = ddoq_part(x, i, ddoq_smaller(width, x->n - i));
            if (ddoq_stopped(crew))
                return DDOQ_INTERRUPTED;
            ddoq_pack(&rows, shift, first, depth, panel);
            if (squares)
                kernels->product.squares(depth, panel, squares + i * item, first > 0);
            /* what is packed next is fetched from memory meanwhile, a few rows for each tile */
            size_t next = i + width < x->n ? i + width : 0, next_first = next > 0 ? first : first + DDOQ_DEPTH;
            size_t next_end = next_first < d ? ddoq_smaller(next + width, x->n) : 0;
            size_t next_bytes = next_end > 0 ? ddoq_smaller(DDOQ_DEPTH, d - next_first) * ddoq_item(x) : 0;
            for (size_t j = 0, r = 0; j < k; j += height) {
                for (; next + r < next_end && r * k < width * (j + height); r++)
                    ddoq_fetch(ddoq_row(x, next + r) + next_first * ddoq_item(x), next_bytes);
                kernels->product.tile_in_place(depth, points + (j * d + first) * item, d, panel,
                                               product + (j * DDOQ_PRODUCT_ROWS + i) * item, DDOQ_PRODUCT_ROWS,
                                               ddoq_smaller(height, k - j), first > 0);
            }
        }
    }
    return DDOQ_OK;
}

/* Writes labels and distances of the rows in x, of which the first is row begin of all. */
static enum ddoq_status assign_by_product(const struct assignment *m, const struct ddoq_rows *x, size_t begin,
                                          char *product, void *widened, struct ddoq_crew *crew)
{
    const struct ddoq_kernels *kernels = x->kernels;
    size_t d = x->d;
    int64_t *labels = m->labels + begin;
    double least[DDOQ_PRODUCT_ROWS], second[DDOQ_PRODUCT_ROWS];
    enum ddoq_status status = ddoq_multiply_points(x, m->shift, m->centred, m->k, product, NULL, crew);
    if (status != DDOQ_OK)
        return status;
    kernels->search.two_nearest(x->n, m->k, product, DDOQ_PRODUCT_ROWS, m->norms, labels, least, second);
    for (size_t i = 0; i < x->n; i++) {
        size_t j = (size_t)labels[i];
        const char *row = ddoq_features(x, i, 0, d, widened);
        double dist2 = kernels->vector.dist2(d, row, m->points + j * d * kernels->item);
        double radius = sqrt(dist2) + sqrt(m->norms[j]), near = m->tiny + radius * (m->slack + radius * m->direct);
        if (!(second[i] - least[i] > near)) {
            if (ddoq_stopped(crew))
                return DDOQ_INTERRUPTED;
            dist2 = nearest_point(m, row, product + i * kernels->item, least[i] + near, &labels[i]);
        }
        m->dist2[begin + i] = dist2;
    }
    return DDOQ_OK;
}

static enum ddoq_status assign_block(void *context, size_t block, struct ddoq_crew *crew)
{
    const struct assignment *m = context;
    size_t begin = block * BLOCK_ROWS;
    const struct ddoq_rows x = ddoq_part(&m->x, begin, ddoq_smaller(BLOCK_ROWS, m->x.n - begin));
    float *widened = x.widen ? ddoq_allocate(x.d, 1, sizeof *widened) : NULL;
    char *product = m->centred ? ddoq_allocate(m->k, DDOQ_PRODUCT_ROWS, x.kernels->item) : NULL;
    enum ddoq_status status = (x.widen && !widened) || (m->centred && !product) ? DDOQ_NO_MEMORY : DDOQ_OK;
    for (size_t i = 0; i < x.n && status == DDOQ_OK && product; i += DDOQ_PRODUCT_ROWS) {
        const struct ddoq_rows part = ddoq_part(&x, i, ddoq_smaller(DDOQ_PRODUCT_ROWS, x.n - i));
        status = assign_by_product(m, &part, begin + i, product, widened, crew);
    }
    for (size_t i = 0; i < x.n && status == DDOQ_OK && !product; i++) {
        const char *row = ddoq_features(&x, i, 0, x.d, widened);
        m->dist2[begin + i] = nearest_point(m, row, NULL, 0, &m->labels[begin + i]);
        if (ddoq_stopped(crew))
            status = DDOQ_INTERRUPTED;
    }
    free(product);
    free(widened);
    return status;
}

/* Makes the shift, the norms and the centred points, where the product pays. */
static enum ddoq_status prepare(struct assignment *m)
{
    const struct ddoq_kernels *kernels = m->x.kernels;
    size_t d = m->x.d, bytes = d * kernels->item;
    if (d < LEAST_FEATURES || m->k < LEAST_POINTS || m->x.n < LEAST_ROWS)
        return DDOQ_OK;
    double *sum = ddoq_allocate(d, 1, sizeof *sum), farthest = 0;
    m->shift = ddoq_allocate(d, 1, kernels->item);
    m->norms = ddoq_allocate(m->k, 1, sizeof *m->norms);
    m->centred = ddoq_allocate(m->k, d, kernels->item);
    bool enough = sum && m->shift && m->norms && m->centred;
    if (enough) {
        memset(sum, 0, d * sizeof *sum);
        for (size_t j = 0; j < m->k; j++)
            kernels->vector.axpy(d, 1, m->points + j * bytes, sum);
        kernels->vector.narrow(d, sum, (double)m->k, m->shift);
        for (size_t j = 0; j < m->k; j++) {
            m->norms[j] = kernels->vector.dist2(d, m->points + j * bytes, m->shift);
            kernels->vector.subtract(d, m->points + j * bytes, m->shift, m->centred + j * bytes);
            farthest = fmax(farthest, m->norms[j]);
        }
        /* Twice the products of two points, and their norms, at most r and 2 r, with their distances. */
        m->slack = 4 * ddoq_product_roundings(kernels, d) * sqrt(farthest);
        m->direct = 8 * ddoq_distance_roundings(d);
        m->tiny = 8 * (double)d * (kernels->item == sizeof(float) ? (double)FLT_TRUE_MIN : DBL_TRUE_MIN);
    }
    free(sum);
    return enough ? DDOQ_OK : DDOQ_NO_MEMORY;
}

static void release(struct assignment *m)
{
    free(m->centred);
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
