/* Single-point moves (Hartigan 1975) after Lloyd, which gets stuck in high dimension because a sample pulls its own
 * mean. Moving sample i from cell a to cell b changes the distortion by cost(b) - cost(a),
 *
 *     cost(a) = W_a / (W_a - w_i) dist2(i, a)        cost(b) = W_b / (W_b + w_i) dist2(i, b).
 *
 * Samples are visited in index order, each takes its best move, until a sweep moves none. An empty cell costs nothing
 * to move to. */
#include "cpu/gram/hartigan.h"

#include "cpu/gram/lloyd.h"

static void set_point(struct ddoq_fit *fit, size_t j)
{
    fit->scale[j] = -2 / fit->mass[j];
    fit->offset[j] = fit->squares[j] / fit->mass[j] / fit->mass[j];
}

static double dist2(const struct ddoq_fit *fit, size_t i, size_t j)
{
    return fit->diagonal[i] + (fit->sums[j * fit->n + i] * fit->scale[j] + fit->offset[j]);
}

static size_t cheapest(const struct ddoq_fit *fit, size_t i, size_t own, double limit)
{
    size_t found = own;
    for (size_t j = 0; j < fit->k; j++) {
        if (j == own)
            continue;
        double cost = fit->count[j] == 0 ? 0 : fit->mass[j] / (fit->mass[j] + fit->w[i]) * dist2(fit, i, j);
        if (cost < limit) {
            limit = cost;
            found = j;
        }
    }
    return found;
}

static void move(struct ddoq_fit *fit, size_t i, size_t a, size_t b)
{
    size_t n = fit->n;
    double w = fit->w[i], norm = fit->diagonal[i];
    fit->squares[a] += w * (w * norm - 2 * fit->sums[a * n + i]);
    fit->squares[b] += w * (w * norm + 2 * fit->sums[b * n + i]);
    fit->kernels->vector.axpy(n, -w, ddoq_gram_row(fit, i), fit->sums + a * n);
    fit->kernels->vector.axpy(n, w, ddoq_gram_row(fit, i), fit->sums + b * n);
    fit->mass[a] -= w;
    fit->mass[b] += w;
    fit->count[a]--;
    fit->count[b]++;
    fit->cell[i] = (int64_t)b;
    set_point(fit, a);
    set_point(fit, b);
}

enum ddoq_status ddoq_hartigan(struct ddoq_fit *fit)
{
    size_t moved = 1;
    enum ddoq_status status = ddoq_adopt_labels(fit);
    if (status != DDOQ_OK)
        return status;
    for (int sweep = 0; moved > 0 && sweep < DDOQ_MAX_SWEEPS; sweep++) {
        moved = 0;
        for (size_t i = 0; i < fit->n; i++) {
            if (ddoq_stopped(fit->crew))
                return DDOQ_INTERRUPTED;
            size_t own = (size_t)fit->cell[i];
            double rest = fit->mass[own] - fit->w[i];
            if (fit->count[own] < 2 || !(rest > 0))
                continue;
            double cost = fit->mass[own] / rest * dist2(fit, i, own);
            size_t target = cost > 0 ? cheapest(fit, i, own, cost * (1 - DDOQ_LEAST_GAIN)) : own;
            if (target != own) {
                move(fit, i, own, target);
                moved++;
            }
        }
        ddoq_update_points(fit); /* squares afresh */
    }
    for (size_t i = 0; i < fit->n; i++)
        fit->label[i] = fit->cell[i];
    return DDOQ_OK;
}
