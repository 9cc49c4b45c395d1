/* Exchanges of seeds (Lattanzi and Sohler, "A better k-means++ algorithm via local search", ICML 2019). Greedy
 * k-means++ never takes a seed back, and Lloyd's iterations cannot bring a point from one cluster to another. A sample
 * that is drawn as a further seed would be, with probability proportional to weight times squared distance to the
 * nearest seed, takes the place of the seed that is missed least, if that lowers the sum of those distances.
 *
 * What a seed's removal costs needs the second nearest seed of its samples alone, so that a candidate costs one row of
 * G and one pass over the samples. */
#include "cpu/gram/exchange.h"

#include <math.h>
#include <string.h>

#include "cpu/draws.h"

/* The state of the search, in arrays of the fit that are free between seeding and the first assignment. */
struct search {
    struct ddoq_fit *fit;
    double *distances;        /* (n, k) squared distances to the seeds */
    int64_t *first, *second;  /* (n) the two nearest seeds */
    double *closest, *next;   /* (n) squared distances to them */
    double *added;            /* (k) what the removal of a seed would add to the potential */
    double *added_with;       /* (k) the same with a candidate as a further seed */
    double *without, *column; /* (n) distances without the nearest seed; one column of G. The same array */
};

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

static inline void keep(struct search *s, size_t i, const struct two *two)
{
    s->first[i] = two->first;
    s->second[i] = two->second;
    s->closest[i] = two->closest;
    s->next[i] = two->next;
}

static void compare_with(struct search *s, size_t i, size_t j)
{
    double value = s->distances[i * s->fit->k + j];
    struct two two = {s->first[i], s->second[i], s->closest[i], s->next[i]};
    if (value < two.next) {
        compare(&two, (int64_t)j, value);
        keep(s, i, &two);
    }
}

static void compare_with_all(struct search *s, size_t i)
{
    struct two two = {.closest = INFINITY, .next = INFINITY};
    for (size_t j = 0; j < s->fit->k; j++)
        compare(&two, (int64_t)j, s->distances[i * s->fit->k + j]);
    keep(s, i, &two);
}

/* Sample m becomes the j-th seed. */
static void place_seed(struct search *s, size_t j, size_t m)
{
    struct ddoq_fit *fit = s->fit;
    double norm = fit->diagonal[m];
    fit->seeds[j] = (int64_t)m;
    fit->kernels->vector.widen(fit->n, ddoq_gram_row(fit, m), 1, s->column);
    for (size_t i = 0; i < fit->n; i++) {
        double value = fit->diagonal[i] + norm - 2 * s->column[i];
        s->distances[i * fit->k + j] = value < 0 ? 0 : value;
    }
}

static struct search start_search(struct ddoq_fit *fit)
{
    struct search s = {.fit = fit,
                       .distances = fit->sums,
                       .first = fit->label,
                       .second = fit->target,
                       .closest = fit->closest,
                       .next = fit->best,
                       .added = fit->mass,
                       .added_with = fit->squares,
                       .without = fit->trial,
                       .column = fit->trial};
    for (size_t j = 0; j < fit->k; j++)
        place_seed(&s, j, (size_t)fit->seeds[j]);
    for (size_t i = 0; i < fit->n; i++)
        compare_with_all(&s, i);
    return s;
}

/* Sample m takes the place of the j-th seed. */
static void exchange(struct search *s, size_t j, size_t m)
{
    place_seed(s, j, m);
    for (size_t i = 0; i < s->fit->n; i++) {
        if (s->first[i] == (int64_t)j || s->second[i] == (int64_t)j)
            compare_with_all(s, i);
        else
            compare_with(s, i, j);
    }
}

/* Writes what removals add; returns the potential. */
static double measure(struct search *s)
{
    struct ddoq_fit *fit = s->fit;
    memset(s->added, 0, fit->k * sizeof *s->added);
    for (size_t i = 0; i < fit->n; i++)
        s->added[s->first[i]] += fit->w[i] * (s->next[i] - s->closest[i]);
    return ddoq_accumulate(fit->n, fit->w, s->closest, fit->cumulative);
}

/* Returns how much lower the potential is with sample m as a seed in place of the one that is missed least, the
 * found-th: of those that differ by rounding alone, the first. */
static double gain(struct search *s, size_t m, double rounding, size_t *found)
{
    const struct ddoq_fit *fit = s->fit;
    double sum = 0, least = INFINITY, *added = s->added_with;
    fit->kernels->search.trial(fit->n, ddoq_gram_row(fit, m), fit->diagonal[m], fit->diagonal, s->next, fit->w,
                               s->without);
    memcpy(added, s->added, fit->k * sizeof *added);
    for (size_t i = 0; i < fit->n; i++) {
        double next = s->next[i], closest = s->closest[i], without = s->without[i];
        if (!(without < next))
            continue; /* the sample has two seeds that are nearer */
        double with = without < closest ? without : closest;
        sum += fit->w[i] * (closest - with);
        added[s->first[i]] += fit->w[i] * ((without - with) - (next - closest));
    }
    for (size_t j = 0; j < fit->k; j++) {
        if (added[j] < least - rounding) {
            least = added[j];
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
    struct search search = start_search(fit);
    double potential = measure(&search);
    for (size_t t = 0; t < n_candidates && potential > 0; t++) {
        if (ddoq_stopped(fit->crew))
            return DDOQ_INTERRUPTED;
        size_t m = ddoq_draw(fit->n, fit->cumulative, uniforms[t]);
        double rounding = DDOQ_TIE * potential;
        if (gain(&search, m, rounding, &found) > rounding) {
            exchange(&search, found, m);
            potential = measure(&search);
        }
    }
    return DDOQ_OK;
}
