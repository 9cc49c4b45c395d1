/* Exchanges of seeds (Lattanzi and Sohler, "A better k-means++ algorithm via local search", ICML 2019). Greedy
 * k-means++ never takes a seed back, and Lloyd's iterations cannot bring a point from one cluster to another. A sample
 * that is drawn as a further seed would be, with probability proportional to weight times squared distance to the
 * nearest seed, takes the place of the seed that is missed least, if that lowers the sum of those distances.
 *
 * What a seed's removal costs needs the second nearest seed of its samples alone, so that a candidate costs one row of
 * G and one pass over the samples. */
#include <math.h>
#include <string.h>

#include "cpu/gram/seed.h"

/* The two nearest seeds of a sample and their squared distances. */
struct two {
    int64_t first, second;
    double closest, next;
};

static inline void compare(struct two *two, int64_t j, double value)
{
    if (!(value < two->next))
        return;
    if (value < two->closest) {
        two->second = two->first;
        two->next = two->closest;
        two->first = j;
        two->closest = value;
    } else {
        two->second = j;
        two->next = value;
    }
}

/* Those of sample i, in arrays that are free while seeds are sought. */
static inline void keep(struct ddoq_fit *fit, size_t i, const struct two *two)
{
    fit->label[i] = two->first;
    fit->target[i] = two->second;
    fit->closest[i] = two->closest;
    fit->best[i] = two->next;
}

static void compare_with(struct ddoq_fit *fit, size_t i, size_t j)
{
    double value = fit->sums[i * fit->k + j];
    struct two two = {fit->label[i], fit->target[i], fit->closest[i], fit->best[i]};
    if (value < two.next) {
        compare(&two, (int64_t)j, value);
        keep(fit, i, &two);
    }
}

static void compare_with_all(struct ddoq_fit *fit, size_t i)
{
    struct two two = {.closest = INFINITY, .next = INFINITY};
    for (size_t j = 0; j < fit->k; j++)
        compare(&two, (int64_t)j, fit->sums[i * fit->k + j]);
    keep(fit, i, &two);
}

/* Sample m becomes the j-th seed: column j of the distances (n, k), which are kept in sums. */
static void place_seed(struct ddoq_fit *fit, size_t j, size_t m)
{
    double norm = fit->diagonal[m], *products = fit->trial;
    fit->seeds[j] = (int64_t)m;
    fit->kernels->widen(fit->n, ddoq_gram_row(fit, m), 1, products);
    for (size_t i = 0; i < fit->n; i++) {
        double value = fit->diagonal[i] + norm - 2 * products[i];
        fit->sums[i * fit->k + j] = value < 0 ? 0 : value;
    }
}

static void start_search(struct ddoq_fit *fit)
{
    for (size_t j = 0; j < fit->k; j++)
        place_seed(fit, j, (size_t)fit->seeds[j]);
    for (size_t i = 0; i < fit->n; i++)
        compare_with_all(fit, i);
}

/* Sample m takes the place of the j-th seed. */
static void exchange(struct ddoq_fit *fit, size_t j, size_t m)
{
    place_seed(fit, j, m);
    for (size_t i = 0; i < fit->n; i++) {
        if (fit->label[i] == (int64_t)j || fit->target[i] == (int64_t)j)
            compare_with_all(fit, i);
        else
            compare_with(fit, i, j);
    }
}

/* mass = what the removal of each seed would add to the potential, which is returned. */
static double measure(struct ddoq_fit *fit)
{
    memset(fit->mass, 0, fit->k * sizeof *fit->mass);
    for (size_t i = 0; i < fit->n; i++)
        fit->mass[fit->label[i]] += fit->w[i] * (fit->best[i] - fit->closest[i]);
    return ddoq_accumulate(fit->n, fit->w, fit->closest, fit->cumulative);
}

/* How much lower the potential is with sample m as a seed in place of the one that is missed least, the found-th: of
 * those that differ by rounding alone, the first. */
static double gain(struct ddoq_fit *fit, size_t m, double rounding, size_t *found)
{
    double sum = 0, least = INFINITY, *loss = fit->squares;
    fit->kernels->trial(fit->n, ddoq_gram_row(fit, m), fit->diagonal[m], fit->diagonal, fit->best, fit->w, fit->trial);
    memcpy(loss, fit->mass, fit->k * sizeof *loss);
    for (size_t i = 0; i < fit->n; i++) {
        double second = fit->best[i], closest = fit->closest[i], without = fit->trial[i];
        if (!(without < second))
            continue; /* the sample has two seeds that are nearer */
        double with = without < closest ? without : closest;
        sum += fit->w[i] * (closest - with);
        loss[fit->label[i]] += fit->w[i] * ((without - with) - (second - closest));
    }
    for (size_t j = 0; j < fit->k; j++) {
        if (loss[j] < least - rounding) {
            least = loss[j];
            *found = j;
        }
    }
    return sum - least;
}

enum ddoq_status ddoq_exchange_seeds(struct ddoq_fit *fit, const double *uniforms, size_t n_candidates)
{
    size_t found = 0;
    if (fit->k < 2)
        return DDOQ_OK;
    start_search(fit);
    double potential = measure(fit);
    for (size_t t = 0; t < n_candidates && potential > 0; t++) {
        if (ddoq_stopped(fit->crew))
            return DDOQ_INTERRUPTED;
        size_t m = ddoq_draw(fit->n, fit->cumulative, uniforms[t]);
        double rounding = DDOQ_TIE * potential;
        if (gain(fit, m, rounding, &found) > rounding) {
            exchange(fit, found, m);
            potential = measure(fit);
        }
    }
    return DDOQ_OK;
}
