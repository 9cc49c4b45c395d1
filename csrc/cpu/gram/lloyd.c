/* Lloyd's iterations in Gram form, to the fixed point of the labels. An iteration compares k * n numbers and adds 2 n
 * for every sample that changed its cell. Empty cells take the farthest samples (cells.h). */
#include "cpu/gram/lloyd.h"

#include <math.h>
#include <string.h>

#include "cpu/cells.h"
#include "cpu/sums.h"

static void add_sample(struct ddoq_fit *fit, size_t i, int64_t cell, double w)
{
    fit->kernels->vector.axpy(fit->n, w, ddoq_gram_row(fit, i), fit->sums + (size_t)cell * fit->n);
}

void ddoq_update_points(struct ddoq_fit *fit)
{
    memset(fit->squares, 0, fit->k * sizeof *fit->squares);
    for (size_t i = 0; i < fit->n; i++) {
        size_t j = (size_t)fit->cell[i];
        fit->squares[j] += fit->w[i] * fit->sums[j * fit->n + i];
    }
    for (size_t j = 0; j < fit->k; j++) {
        bool empty = fit->count[j] == 0;
        fit->scale[j] = empty ? 0 : -2 / fit->mass[j];
        fit->offset[j] = empty ? INFINITY : fit->squares[j] / fit->mass[j] / fit->mass[j];
    }
}

static void assign(struct ddoq_fit *fit)
{
    fit->kernels->search.nearest(fit->n, fit->k, fit->sums, fit->scale, fit->offset, fit->label, fit->dist2);
    for (size_t i = 0; i < fit->n; i++)
        fit->dist2[i] += fit->diagonal[i];
}

/* Gives every empty cell of the partition a sample of its own. Overwrites dist2 of those samples. */
static enum ddoq_status fill_empty_cells(struct ddoq_fit *fit, int64_t *cell)
{
    for (size_t j = 0; j < fit->k; j++) {
        if (fit->count[j] > 0)
            continue;
        if (ddoq_stopped(fit->crew))
            return DDOQ_INTERRUPTED;
        size_t i = ddoq_farthest(fit->n, fit->dist2, cell, fit->count);
        if (i == fit->n)
            break;
        fit->count[cell[i]]--;
        fit->count[j] = 1;
        fit->dist2[i] = 0;
        cell[i] = (int64_t)j;
    }
    return DDOQ_OK;
}

/* Makes the sums of the partition target afresh. */
static enum ddoq_status sum_cells(struct ddoq_fit *fit, const int64_t *target)
{
    const struct ddoq_rows gram = {.kernels = fit->kernels, .data = fit->gram, .n = fit->n, .d = fit->n};
    ddoq_sort_by_cell(fit->n, target, fit->k, fit->order, fit->begin);
    for (size_t j = 0; j < fit->k; j++) {
        size_t count = (size_t)(fit->begin[j + 1] - fit->begin[j]);
        enum ddoq_status status =
            ddoq_sum_rows(&gram, fit->w, fit->order + fit->begin[j], count, NULL, fit->sums + j * fit->n, fit->crew);
        if (status != DDOQ_OK)
            return status;
    }
    memcpy(fit->cell, target, fit->n * sizeof *fit->cell);
    return DDOQ_OK;
}

/* Makes them by differences from those of cell. */
static enum ddoq_status move_samples(struct ddoq_fit *fit, const int64_t *target)
{
    for (size_t i = 0; i < fit->n; i++) {
        if (fit->cell[i] == target[i])
            continue;
        if (ddoq_stopped(fit->crew))
            return DDOQ_INTERRUPTED;
        add_sample(fit, i, fit->cell[i], -fit->w[i]);
        add_sample(fit, i, target[i], fit->w[i]);
        fit->cell[i] = target[i];
    }
    return DDOQ_OK;
}

/* Makes the sums those of the partition target (n), and cell = target. first: there are no sums yet. */
static enum ddoq_status take_partition(struct ddoq_fit *fit, const int64_t *target, bool first)
{
    size_t moved = 0;
    for (size_t i = 0; i < fit->n && !first; i++)
        moved += fit->cell[i] != target[i];
    /* afresh: fewer additions than two for every sample that moved, and four rows at a time */
    bool afresh = first || moved > fit->n / 4;
    enum ddoq_status status = afresh ? sum_cells(fit, target) : move_samples(fit, target);
    memset(fit->mass, 0, fit->k * sizeof *fit->mass);
    for (size_t i = 0; i < fit->n; i++)
        fit->mass[target[i]] += fit->w[i];
    for (size_t j = 0; j < fit->k; j++)
        if (fit->count[j] == 0)
            memset(fit->sums + j * fit->n, 0, fit->n * sizeof *fit->sums);
    return status;
}

/* The points become the means of label's cells, empty cells filled. */
static enum ddoq_status update(struct ddoq_fit *fit, bool first)
{
    memcpy(fit->target, fit->label, fit->n * sizeof *fit->target);
    ddoq_count_cells(fit->n, fit->target, fit->k, fit->count);
    enum ddoq_status status = fill_empty_cells(fit, fit->target);
    if (status == DDOQ_OK)
        status = take_partition(fit, fit->target, first);
    if (status == DDOQ_OK)
        ddoq_update_points(fit);
    return status;
}

enum ddoq_status ddoq_lloyd(struct ddoq_fit *fit, size_t max_iter)
{
    for (fit->n_iter = 1;; fit->n_iter++) {
        bool first = fit->n_iter == 1;
        if (!first && memcmp(fit->label, fit->cell, fit->n * sizeof *fit->label) == 0)
            return DDOQ_OK;
        enum ddoq_status status = update(fit, first);
        if (status != DDOQ_OK)
            return status;
        assign(fit);
        if ((size_t)fit->n_iter == max_iter)
            return DDOQ_OK;
    }
}

enum ddoq_status ddoq_adopt_labels(struct ddoq_fit *fit)
{
    ddoq_count_cells(fit->n, fit->label, fit->k, fit->count);
    enum ddoq_status status = take_partition(fit, fit->label, false);
    if (status == DDOQ_OK)
        ddoq_update_points(fit);
    return status;
}
