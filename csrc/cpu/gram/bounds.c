/* The final assignment after a polish, which has multiplied every sample with every point already. When samples enter
 * (+) and leave (-) a cell, its mean c becomes c + sum of +-w (x - c) / W, with the new mass W: their distances, which
 * are known, bound the way that the point goes. A point that was at least so far from a sample, and has gone at most so
 * far since, is not nearer than the difference. As its way back and forth is longer than its distance from where it
 * was, that is measured, too, now and then: from an anchor. A sample that is nearer than those bounds to its own point,
 * by its distance in double, needs no other distance, or a few; the rest is assigned as usual. Labels and distances are
 * the same. */
#include <math.h>
#include <string.h>

#include "cpu/assign.h"
#include "cpu/gram/bounds.h"

#define ANCHOR_BLOCKS 8
#define LEAST_POINTS 32 /* with fewer the products of the final assignment are cheap */
/* Before its row is read, a sample's own point is taken to have come nearer by so much. */
#define NEARER 0.98
/* At most one distance is taken for so many points, and so many at all: each takes the time of some eight products. */
#define PRODUCTS 12
#define MOST_DISTANCES 8
#define FEW_LEFT 48

static bool pays(const struct ddoq_task *task)
{
    return task->fit.k >= LEAST_POINTS;
}

/* Of squared distances, relative to the squared norms of sample and point, at most: twice a product of both is no more
 * than the sum of these, and the sample's is a product as well; with the direct distances that they are compared with.
 * More than enough for the roundings of the points, relative to the norms of the mean and of the farthest sample. */
static double roundings(const struct ddoq_task *task)
{
    return 2 * ddoq_product_roundings(task->x.kernels, task->x.d) + 8 * ddoq_distance_roundings(task->x.d);
}

/* The row of now: the last one. */
static double *now(const struct ddoq_task *task, double *ways)
{
    return ways + ddoq_polish_blocks(task->x.n) * task->fit.k;
}

/* The points' distances to their anchors, as they are. */
static void measure(struct ddoq_task *task)
{
    size_t d = task->x.d, bytes = d * task->x.kernels->item;
    double *away = now(task, task->away);
    for (size_t j = 0; j < task->fit.k; j++)
        away[j] = task->fit.count[j] > 0
                      ? sqrt(task->x.kernels->dist2(d, task->centred + j * bytes, task->anchor + j * bytes))
                      : INFINITY;
}

void ddoq_reset_bounds(struct ddoq_task *task, double square)
{
    task->rounding = roundings(task) * sqrt(square);
}

void ddoq_begin_bounds(struct ddoq_task *task)
{
    size_t k = task->fit.k;
    if (!pays(task))
        return;
    memcpy(task->anchor, task->centred, k * task->x.d * task->x.kernels->item);
    memset(now(task, task->reach), 0, k * sizeof *task->reach);
    memset(now(task, task->away), 0, k * sizeof *task->away);
}

void ddoq_keep_bounds(struct ddoq_task *task, size_t i, const double *product, double norm)
{
    const struct ddoq_fit *fit = &task->fit;
    size_t k = fit->k, block = i / DDOQ_POLISH_ROWS;
    double *bound = task->bound + i * k, share = roundings(task), radius = share * sqrt(norm);
    if (!pays(task))
        return;
    if (i % DDOQ_POLISH_ROWS == 0) {
        memcpy(task->reach + block * k, now(task, task->reach), k * sizeof *task->reach);
        memcpy(task->away + block * k, now(task, task->away), k * sizeof *task->away);
    }
    for (size_t j = 0; j < k; j++) {
        double squares = norm + fit->offset[j], value = squares - 2 * product[j] - share * squares;
        bound[j] = fit->count[j] > 0 ? (value > 0 ? value : 0) : -INFINITY;
    }
    task->rounding = radius > task->rounding ? radius : task->rounding;
}

void ddoq_foresee_move(struct ddoq_task *task, size_t i, size_t j, double w, double norm)
{
    struct ddoq_fit *fit = &task->fit;
    double bound = pays(task) ? task->bound[i * fit->k + j] : -INFINITY, size = fabs(w), way = 0;
    double share = roundings(task);
    if (bound >= 0) /* or else there is no point yet, of which there are no bounds either */
        way = size * sqrt(bound + 2 * share * (norm + fit->offset[j]));
    way += 4 * DBL_EPSILON * (fit->mass[j] + size) * task->rounding / share; /* roundings of the cell's sum */
    fit->squares[j] = fmax(fit->squares[j], 0) + way;
}

bool ddoq_point_moves(struct ddoq_task *task, size_t j)
{
    double way = task->fit.squares[j] / task->fit.mass[j];
    if (task->fit.squares[j] < 0)
        return false;
    if (pays(task)) {
        now(task, task->reach)[j] += way;
        now(task, task->away)[j] += way;
    }
    return true;
}

void ddoq_end_block(struct ddoq_task *task, size_t block)
{
    if (pays(task) && block % ANCHOR_BLOCKS == ANCHOR_BLOCKS - 1)
        measure(task);
}

/* The points other than its own that may be within radius of sample i: how many of them, and the first ones, up to
 * most, in list; counts no further than most + 1. way (k): what points have come since, at most. */
static size_t list_near(const struct ddoq_task *task, size_t i, double radius, const double *way, size_t most,
                        size_t *list)
{
    size_t k = task->fit.k, own = (size_t)task->kept_cell[i], found = 0;
    const double *bound = task->bound + i * k;
    radius += task->rounding;
    for (size_t j = 0; j < k && found <= most; j++) {
        if (j == own || (radius + way[j]) * (radius + way[j]) < bound[j])
            continue;
        if (found < most)
            list[found] = j;
        found++;
    }
    return found;
}

/* Label and distance of sample i, if the bounds leave few points. */
static bool assign_to_few(struct ddoq_task *task, size_t i, const char *points, const double *way)
{
    struct ddoq_fit *fit = &task->fit;
    size_t d = task->x.d, bytes = d * fit->kernels->item, own = (size_t)task->kept_cell[i], label = own;
    size_t list[MOST_DISTANCES], most = ddoq_smaller(fit->k / PRODUCTS, MOST_DISTANCES);
    if (list_near(task, i, NEARER * sqrt(task->bound[i * fit->k + own]), way, most, list) > most)
        return false;
    const char *row = ddoq_features(&task->x, i, 0, d, task->widened);
    double least = fit->kernels->dist2(d, row, points + own * bytes);
    size_t found = list_near(task, i, sqrt(least), way, most, list);
    for (size_t q = 0; q < found && found <= most; q++) {
        double value = fit->kernels->dist2(d, row, points + list[q] * bytes);
        if (value < least || (value == least && list[q] < label)) {
            least = value;
            label = list[q];
        }
    }
    fit->dist2[i] = least;
    task->kept_label[i] = (int64_t)label;
    return found <= most;
}

/* The same for all samples; returns how many others there are, which are listed in target, and their rows in order. */
static size_t assign_most(struct ddoq_task *task, const char *points)
{
    struct ddoq_fit *fit = &task->fit;
    size_t k = fit->k, left = 0;
    const double *reach = now(task, task->reach), *away = now(task, task->away);
    double *way = fit->scale;
    for (size_t i = 0; i < task->x.n && !ddoq_stopped(fit->crew); i++) {
        size_t then = i / DDOQ_POLISH_ROWS * k;
        for (size_t j = 0; j < k && i % DDOQ_POLISH_ROWS == 0; j++)
            way[j] = fmin(reach[j] - task->reach[then + j], task->away[then + j] + away[j]);
        bool pays_on = left <= FEW_LEFT + i / 2; /* or else the bounds tell little of these data */
        if (pays_on && assign_to_few(task, i, points, way))
            continue;
        fit->target[left] = (int64_t)i;
        fit->order[left++] = task->x.index[i];
    }
    return left;
}

enum ddoq_status ddoq_assign_by_bounds(struct ddoq_task *task, const char *points)
{
    struct ddoq_fit *fit = &task->fit;
    struct ddoq_rows rest = task->x;
    if (!pays(task))
        return ddoq_assign_rows(&task->x, points, fit->k, task->kept_label, fit->dist2, fit->crew);
    measure(task);
    rest.n = assign_most(task, points);
    rest.index = fit->order;
    if (ddoq_stopped(fit->crew))
        return DDOQ_INTERRUPTED;
    enum ddoq_status status = ddoq_assign_rows(&rest, points, fit->k, fit->label, fit->closest, fit->crew);
    for (size_t r = 0; r < rest.n && status == DDOQ_OK; r++) {
        task->kept_label[fit->target[r]] = fit->label[r];
        fit->dist2[fit->target[r]] = fit->closest[r];
    }
    return status;
}
