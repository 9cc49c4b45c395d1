/* After the fit of a sketch: single-point moves (hartigan.c) of all samples in all features. A pass visits blocks of
 * rows in order. Every sample of a block goes where the distortion rises least, given the points before the block,
 * and one outside the sketch enters so; then the points of the cells that changed follow. Passes end when few samples
 * move: the moves of the first ones gain most. */
#include "cpu/gram/polish.h"

#include <math.h>
#include <string.h>

#include "cpu/gram/bounds.h"
#include "cpu/sums.h"

#define BLOCK_ROWS DDOQ_POLISH_ROWS
#define MAX_PASSES 2 /* the first ones gain most */
#define FEW_MOVES 16 /* one in so many samples */

/* Makes the point of cell j from its sum, less the shift. */
static void set_point(struct ddoq_class *class, size_t j)
{
    size_t d = class->x.d;
    if (class->fit.count[j] > 0)
        class->fit.offset[j] =
            class->x.kernels->vector.centre(d, class->moves.sums + j * d, class->fit.mass[j], class->shift,
                                            class->moves.points + j * d * class->x.kernels->item);
}

/* Sample i enters cell j (w > 0) or leaves it. */
static void move(struct ddoq_class *class, size_t i, const void *row, size_t j, double w, double norm)
{
    ddoq_foresee_move(class, i, j, w, norm);
    class->x.kernels->vector.axpy(class->x.d, w, row, class->moves.sums + j * class->x.d);
    class->fit.mass[j] += w;
    class->fit.count[j] += w > 0 ? 1 : -1;
}

/* Makes the sums and points of the cells from the samples in the sketch. */
static enum ddoq_status start_points(struct ddoq_class *class)
{
    struct ddoq_fit *fit = &class->fit;
    size_t d = class->x.d, k = fit->k;
    double total = 0, square = 0;
    ddoq_sort_by_cell(class->x.n, class->kept_cell, k, fit->order, fit->begin);
    memset(class->sum, 0, d * sizeof *class->sum);
    for (size_t j = 0; j < k; j++) {
        const int64_t *own = fit->order + fit->begin[j];
        double *sums = class->moves.sums + j * d;
        fit->count[j] = fit->begin[j + 1] - fit->begin[j];
        fit->mass[j] = 0;
        for (int64_t i = 0; i < fit->count[j]; i++)
            fit->mass[j] += class->w[own[i]];
        enum ddoq_status status =
            ddoq_sum_rows(&class->x, class->w, own, (size_t)fit->count[j], class->widened, sums, fit->crew);
        if (status != DDOQ_OK)
            return status;
        total += fit->mass[j];
        for (size_t p = 0; p < d; p++)
            class->sum[p] += sums[p];
    }
    for (size_t p = 0; p < d; p++)
        square += class->sum[p] / total * (class->sum[p] / total);
    ddoq_reset_bounds(class, square);
    fit->kernels->vector.narrow(d, class->sum, total, class->shift);
    for (size_t j = 0; j < k; j++)
        set_point(class, j);
    return DDOQ_OK;
}

/* Returns the cell where the sample costs least: its own unless another one is lower by more than rounding. */
static int64_t cheapest(const struct ddoq_class *class, size_t i, const double *product, double norm)
{
    const struct ddoq_fit *fit = &class->fit;
    int64_t own = class->kept_cell[i], found = own;
    double w = class->w[i], limit = INFINITY;
    if (own >= 0) {
        double rest = fit->mass[own] - w;
        if (fit->count[own] < 2 || !(rest > 0))
            return own;
        limit = fit->mass[own] / rest * (norm - 2 * product[own] + fit->offset[own]) * (1 - DDOQ_LEAST_GAIN);
    }
    for (size_t j = 0; j < fit->k; j++) {
        if ((int64_t)j == own)
            continue;
        double cost =
            fit->count[j] == 0 ? 0 : fit->mass[j] / (fit->mass[j] + w) * (norm - 2 * product[j] + fit->offset[j]);
        if (cost < limit) {
            limit = cost;
            found = (int64_t)j;
        }
    }
    return found;
}

/* Moves the rows begin..begin+n; *moved = how many left their cells. */
static enum ddoq_status polish_block(struct ddoq_class *class, size_t begin, size_t n, size_t *moved)
{
    const struct ddoq_kernels *kernels = class->x.kernels;
    struct ddoq_fit *fit = &class->fit;
    const struct ddoq_rows rows = ddoq_part(&class->x, begin, n);
    size_t k = fit->k, item = kernels->item;
    char squares[BLOCK_ROWS * sizeof(double)] __attribute__((aligned(DDOQ_CACHE_LINE)));
    int64_t target[BLOCK_ROWS];
    double norm[BLOCK_ROWS], *products = fit->scale; /* which no move reads */
    *moved = 0;
    enum ddoq_status status =
        ddoq_multiply_points(&rows, class->shift, class->moves.points, k, class->moves.product, squares, fit->crew);
    if (status != DDOQ_OK)
        return status;
    kernels->vector.widen(n, squares, 1, norm);
    for (size_t r = 0; r < n; r++) {
        kernels->vector.widen(k, class->moves.product + r * item, BLOCK_ROWS, products);
        target[r] = cheapest(class, begin + r, products, norm[r]);
        ddoq_keep_bounds(class, begin + r, products, norm[r]);
    }
    for (size_t j = 0; j < k; j++)
        class->moves.pull[j] = -1;
    for (size_t r = 0; r < n; r++) {
        int64_t *cell = &class->kept_cell[begin + r];
        if (target[r] == *cell || (*cell >= 0 && fit->count[*cell] < 2))
            continue;
        const char *row = ddoq_features(&rows, r, 0, rows.d, class->widened);
        if (*cell >= 0) {
            move(class, begin + r, row, (size_t)*cell, -class->w[begin + r], norm[r]);
            ++*moved;
        }
        move(class, begin + r, row, (size_t)target[r], class->w[begin + r], norm[r]);
        *cell = target[r];
    }
    for (size_t j = 0; j < k; j++)
        if (ddoq_point_moves(class, j))
            set_point(class, j);
    ddoq_end_block(class, begin / BLOCK_ROWS);
    return DDOQ_OK;
}

enum ddoq_status ddoq_polish(struct ddoq_class *class)
{
    size_t n = class->x.n, moved = n;
    enum ddoq_status status = start_points(class);
    for (int pass = 0; pass < MAX_PASSES && moved > n / FEW_MOVES && status == DDOQ_OK; pass++) {
        moved = 0;
        ddoq_begin_bounds(class);
        for (size_t begin = 0; begin < n && status == DDOQ_OK; begin += BLOCK_ROWS) {
            size_t left;
            status = polish_block(class, begin, ddoq_smaller(BLOCK_ROWS, n - begin), &left);
            moved += left;
        }
    }
    return status;
}
