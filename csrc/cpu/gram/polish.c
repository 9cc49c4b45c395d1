/* After the fit of a sketch: single-point moves (hartigan.c) of all samples in all features. A pass visits blocks of
 * rows in order. Every sample of a block goes where the distortion rises least, given the points before the block,
 * and one outside the sketch enters so; then the points of the cells that changed follow. Passes end when few samples
 * move: the moves of the first ones gain most. */
#include <math.h>
#include <string.h>

#include "cpu/assign.h"
#include "cpu/gram/bounds.h"

#define BLOCK_ROWS DDOQ_POLISH_ROWS
#define MAX_PASSES 2
#define FEW_MOVES 16 /* one in so many samples */

/* The point of cell j from its sum, less the shift. */
static void set_point(struct ddoq_task *task, size_t j)
{
    size_t d = task->x.d;
    if (task->fit.count[j] > 0)
        task->fit.offset[j] = task->x.kernels->centre(d, task->sums + j * d, task->fit.mass[j], task->shift,
                                                      task->centred + j * d * task->x.kernels->item);
}

/* Sample i enters cell j (w > 0) or leaves it. */
static void move(struct ddoq_task *task, size_t i, const void *row, size_t j, double w, double norm)
{
    ddoq_foresee_move(task, i, j, w, norm);
    task->x.kernels->axpy(task->x.d, w, row, task->sums + j * task->x.d);
    task->fit.mass[j] += w;
    task->fit.count[j] += w > 0 ? 1 : -1;
}

/* Sums and points of the cells of the samples in the sketch. */
static enum ddoq_status start_points(struct ddoq_task *task)
{
    struct ddoq_fit *fit = &task->fit;
    size_t d = task->x.d, k = fit->k;
    double total = 0, square = 0;
    ddoq_sort_by_cell(task->x.n, task->kept_cell, k, fit->order, fit->begin);
    memset(task->sum, 0, d * sizeof *task->sum);
    for (size_t j = 0; j < k; j++) {
        const int64_t *own = fit->order + fit->begin[j];
        double *sums = task->sums + j * d;
        fit->count[j] = fit->begin[j + 1] - fit->begin[j];
        fit->mass[j] = 0;
        for (int64_t i = 0; i < fit->count[j]; i++)
            fit->mass[j] += task->w[own[i]];
        enum ddoq_status status =
            ddoq_sum_rows(&task->x, task->w, own, (size_t)fit->count[j], task->widened, sums, fit->crew);
        if (status != DDOQ_OK)
            return status;
        total += fit->mass[j];
        for (size_t p = 0; p < d; p++)
            task->sum[p] += sums[p];
    }
    for (size_t p = 0; p < d; p++)
        square += task->sum[p] / total * (task->sum[p] / total);
    ddoq_reset_bounds(task, square);
    fit->kernels->narrow(d, task->sum, total, task->shift);
    for (size_t j = 0; j < k; j++)
        set_point(task, j);
    return DDOQ_OK;
}

/* Where the sample costs least: its own cell unless another one is lower by more than rounding. */
static int64_t cheapest(const struct ddoq_task *task, size_t i, const double *product, double norm)
{
    const struct ddoq_fit *fit = &task->fit;
    int64_t own = task->kept_cell[i], found = own;
    double w = task->w[i], limit = INFINITY;
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

/* Moves of the rows begin..begin+n; *moved = how many left their cells. */
static enum ddoq_status polish_block(struct ddoq_task *task, size_t begin, size_t n, size_t *moved)
{
    const struct ddoq_kernels *kernels = task->x.kernels;
    struct ddoq_fit *fit = &task->fit;
    const struct ddoq_rows rows = ddoq_part(&task->x, begin, n);
    size_t k = fit->k, item = kernels->item;
    char squares[BLOCK_ROWS * sizeof(double)] __attribute__((aligned(DDOQ_CACHE_LINE)));
    int64_t target[BLOCK_ROWS];
    double norm[BLOCK_ROWS];
    *moved = 0;
    enum ddoq_status status =
        ddoq_multiply_points(&rows, task->shift, task->centred, k, task->product, squares, fit->crew);
    if (status != DDOQ_OK)
        return status;
    kernels->widen(n, squares, 1, norm);
    for (size_t r = 0; r < n; r++) {
        kernels->widen(k, task->product + r * item, BLOCK_ROWS, fit->scale);
        target[r] = cheapest(task, begin + r, fit->scale, norm[r]);
        ddoq_keep_bounds(task, begin + r, fit->scale, norm[r]);
    }
    for (size_t j = 0; j < k; j++)
        fit->squares[j] = -1; /* the cell stays as it is */
    for (size_t r = 0; r < n; r++) {
        int64_t *cell = &task->kept_cell[begin + r];
        if (target[r] == *cell || (*cell >= 0 && fit->count[*cell] < 2))
            continue;
        const char *row = ddoq_features(&rows, r, 0, rows.d, task->widened);
        if (*cell >= 0) {
            move(task, begin + r, row, (size_t)*cell, -task->w[begin + r], norm[r]);
            ++*moved;
        }
        move(task, begin + r, row, (size_t)target[r], task->w[begin + r], norm[r]);
        *cell = target[r];
    }
    for (size_t j = 0; j < k; j++)
        if (ddoq_point_moves(task, j))
            set_point(task, j);
    ddoq_end_block(task, begin / BLOCK_ROWS);
    return DDOQ_OK;
}

enum ddoq_status ddoq_polish(struct ddoq_task *task)
{
    size_t n = task->x.n, moved = n;
    enum ddoq_status status = start_points(task);
    for (int pass = 0; pass < MAX_PASSES && moved > n / FEW_MOVES && status == DDOQ_OK; pass++) {
        moved = 0;
        ddoq_begin_bounds(task);
        for (size_t begin = 0; begin < n && status == DDOQ_OK; begin += BLOCK_ROWS) {
            size_t left;
            status = polish_block(task, begin, ddoq_smaller(BLOCK_ROWS, n - begin), &left);
            moved += left;
        }
    }
    return status;
}
