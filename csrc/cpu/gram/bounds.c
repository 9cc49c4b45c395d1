/* The final assignment after a polish, which has multiplied every sample with every point already. A point c_j that was
 * at least so far from sample i at the visit v of its block, and has gone at most way_j since, is not nearer now:
 *
 *     |x_i - c_j| >= sqrt(least_ij) - way_j,        way_j = min(reach_j - reach_j(v), away_j(v) + away_j)
 *
 * reach_j is the length of the point's way: when samples enter (+) and leave (-) its cell, whose mass becomes W, the
 * mean becomes c + sum of +-w (x - c) / W, so that its way grows by sum of w |x - c| / W at most, of distances that the
 * products have told. As the way back and forth is longer than the distance between its ends, away_j, the distance from
 * an anchor, is measured, too, now and then. For a sample at distance r of its own point, by its distance in double,
 * only the points with
 *
 *     (r + rounding + way_j)^2 >= least_ij
 *
 * may be nearer: none, mostly, or a few, whose distances are taken. The other samples are assigned as usual. Labels and
 * distances are the same. */
#include "cpu/gram/bounds.h"

#include <math.h>
#include <string.h>

#define ANCHOR_BLOCKS 8 /* a measurement reads all points, as a block of samples does */
#define LEAST_POINTS 32 /* with fewer the products of the final assignment are cheap */
/* Before its row is read, a sample's own point is taken to have come nearer by so much: that spares the reading where
 * many points are left anyhow. */
#define NEARER 0.98
/* At most one distance is taken for PRODUCTS points, and no more than MOST_DISTANCES: each takes the time of some eight
 * products. */
#define PRODUCTS 12
#define MOST_DISTANCES 8
#define FEW_LEFT 48 /* so many samples may be left before the bounds are taken to tell little: a block */

static bool pays(const struct ddoq_class *class)
{
    return class->fit.k >= LEAST_POINTS;
}

/* Of squared distances, relative to the squared norms of sample and point, at most: twice a product of both is no more
 * than the sum of these, and the sample's is a product as well; with the direct distances that they are compared with.
 * More than enough for the roundings of the points, relative to the norms of the mean and of the farthest sample. */
static double roundings(const struct ddoq_class *class)
{
    return 2 * ddoq_product_roundings(class->x.kernels, class->x.d) + 8 * ddoq_distance_roundings(class->x.d);
}

/* Returns the row of now, which is the last one. */
static double *now(const struct ddoq_class *class, double *ways)
{
    return ways + ddoq_polish_blocks(class->x.n) * class->fit.k;
}

/* Measures the points' distances to their anchors, as they are now. */
static void measure(struct ddoq_class *class)
{
    size_t d = class->x.d, bytes = d * class->x.kernels->item;
    double *away = now(class, class->bounds.away);
    for (size_t j = 0; j < class->fit.k; j++)
        away[j] = class->fit.count[j] > 0 ? sqrt(class->x.kernels->vector.dist2(d, class->moves.points + j * bytes,
                                                                                class->bounds.anchor + j * bytes))
                                          : INFINITY;
}

void ddoq_reset_bounds(struct ddoq_class *class, double square)
{
    class->bounds.rounding = roundings(class) * sqrt(square);
}

void ddoq_begin_bounds(struct ddoq_class *class)
{
    size_t k = class->fit.k;
    if (!pays(class))
        return;
    memcpy(class->bounds.anchor, class->moves.points, k * class->x.d * class->x.kernels->item);
    memset(now(class, class->bounds.reach), 0, k * sizeof *class->bounds.reach);
    memset(now(class, class->bounds.away), 0, k * sizeof *class->bounds.away);
}

void ddoq_keep_bounds(struct ddoq_class *class, size_t i, const double *product, double norm)
{
    const struct ddoq_fit *fit = &class->fit;
    size_t k = fit->k, block = i / DDOQ_POLISH_ROWS;
    double *least = class->bounds.least + i * k, share = roundings(class), radius = share * sqrt(norm);
    if (!pays(class))
        return;
    if (i % DDOQ_POLISH_ROWS == 0) {
        memcpy(class->bounds.reach + block * k, now(class, class->bounds.reach), k * sizeof *class->bounds.reach);
        memcpy(class->bounds.away + block * k, now(class, class->bounds.away), k * sizeof *class->bounds.away);
    }
    for (size_t j = 0; j < k; j++) {
        double squares = norm + fit->offset[j], value = squares - 2 * product[j] - share * squares;
        least[j] = fit->count[j] > 0 ? (value > 0 ? value : 0) : -INFINITY;
    }
    class->bounds.rounding = radius > class->bounds.rounding ? radius : class->bounds.rounding;
}

void ddoq_foresee_move(struct ddoq_class *class, size_t i, size_t j, double w, double norm)
{
    const struct ddoq_fit *fit = &class->fit;
    double least = pays(class) ? class->bounds.least[i * fit->k + j] : -INFINITY, size = fabs(w), way = 0;
    double share = roundings(class);
    if (least >= 0) /* or else there is no point yet, of which there are no bounds either */
        way = size * sqrt(least + 2 * share * (norm + fit->offset[j]));
    way += 4 * DBL_EPSILON * (fit->mass[j] + size) * class->bounds.rounding / share; /* roundings of the cell's sum */
    class->moves.pull[j] = fmax(class->moves.pull[j], 0) + way;
}

bool ddoq_point_moves(struct ddoq_class *class, size_t j)
{
    double way = class->moves.pull[j] / class->fit.mass[j];
    if (class->moves.pull[j] < 0)
        return false;
    if (pays(class)) {
        now(class, class->bounds.reach)[j] += way;
        now(class, class->bounds.away)[j] += way;
    }
    return true;
}

void ddoq_end_block(struct ddoq_class *class, size_t block)
{
    if (pays(class) && block % ANCHOR_BLOCKS == ANCHOR_BLOCKS - 1)
        measure(class);
}

/* The points other than its own that may be within radius of sample i: how many of them, and the first ones, up to
 * most, in list; counts no further than most + 1. way (k): what points have come since, at most. */
static size_t list_near(const struct ddoq_class *class, size_t i, double radius, const double *way, size_t most,
                        size_t *list)
{
    size_t k = class->fit.k, own = (size_t)class->kept_cell[i], found = 0;
    const double *least = class->bounds.least + i * k;
    radius += class->bounds.rounding;
    for (size_t j = 0; j < k && found <= most; j++) {
        if (j == own || (radius + way[j]) * (radius + way[j]) < least[j])
            continue;
        if (found < most)
            list[found] = j;
        found++;
    }
    return found;
}

/* Writes label and distance of sample i, and returns true, if the bounds leave few points. */
static bool assign_to_few(struct ddoq_class *class, size_t i, const char *points, const double *way)
{
    struct ddoq_fit *fit = &class->fit;
    size_t d = class->x.d, bytes = d * fit->kernels->item, own = (size_t)class->kept_cell[i], label = own;
    size_t list[MOST_DISTANCES], most = ddoq_smaller(fit->k / PRODUCTS, MOST_DISTANCES);
    if (list_near(class, i, NEARER * sqrt(class->bounds.least[i * fit->k + own]), way, most, list) > most)
        return false;
    const char *row = ddoq_features(&class->x, i, 0, d, class->widened);
    double least = fit->kernels->vector.dist2(d, row, points + own * bytes);
    size_t found = list_near(class, i, sqrt(least), way, most, list);
    for (size_t q = 0; q < found && found <= most; q++) {
        double value = fit->kernels->vector.dist2(d, row, points + list[q] * bytes);
        if (value < least || (value == least && list[q] < label)) {
            least = value;
            label = list[q];
        }
    }
    fit->dist2[i] = least;
    class->kept_label[i] = (int64_t)label;
    return found <= most;
}

/* Does so for all samples; lists the places of the others, and their rows of X, and returns how many they are. */
static size_t assign_most(struct ddoq_class *class, const char *points, int64_t *places, int64_t *rows)
{
    struct ddoq_fit *fit = &class->fit;
    size_t k = fit->k, left = 0;
    const double *reach = now(class, class->bounds.reach), *away = now(class, class->bounds.away);
    double *way = fit->scale; /* nothing else reads it any more */
    for (size_t i = 0; i < class->x.n && !ddoq_stopped(fit->crew); i++) {
        size_t then = i / DDOQ_POLISH_ROWS * k;
        for (size_t j = 0; j < k && i % DDOQ_POLISH_ROWS == 0; j++)
            way[j] = fmin(reach[j] - class->bounds.reach[then + j], class->bounds.away[then + j] + away[j]);
        bool pays_on = left <= FEW_LEFT + i / 2; /* or else the bounds tell little of these data */
        if (pays_on && assign_to_few(class, i, points, way))
            continue;
        places[left] = (int64_t)i;
        rows[left++] = class->x.index[i];
    }
    return left;
}

enum ddoq_status ddoq_assign_by_bounds(struct ddoq_class *class, const char *points)
{
    struct ddoq_fit *fit = &class->fit;
    struct ddoq_rows rest = class->x;
    int64_t *places = fit->target, *rows = fit->order, *label = fit->label; /* free after the fit */
    double *dist2 = fit->closest;
    if (!pays(class))
        return ddoq_assign_rows(&class->x, points, fit->k, class->kept_label, fit->dist2, fit->crew);
    measure(class);
    rest.n = assign_most(class, points, places, rows);
    rest.index = rows;
    if (ddoq_stopped(fit->crew))
        return DDOQ_INTERRUPTED;
    enum ddoq_status status = ddoq_assign_rows(&rest, points, fit->k, label, dist2, fit->crew);
    for (size_t r = 0; r < rest.n && status == DDOQ_OK; r++) {
        class->kept_label[places[r]] = label[r];
        fit->dist2[places[r]] = dist2[r];
    }
    return status;
}
