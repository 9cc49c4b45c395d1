/* Greedy k-means++ (Arthur and Vassilvitskii 2007; greedy variant as in scikit-learn): each further seed is the best of
 * 2 + floor(ln k) samples drawn with probability proportional to weight times squared distance to the nearest seed so
 * far (draws.h). A trial reads one row of G. */
#include "cpu/gram/seed.h"

#include <math.h>

#include "cpu/draws.h"

/* out (n) = distance of every sample to the nearest seed, were m a seed too; returns the weighted sum. */
static double try_seed(const struct ddoq_fit *fit, size_t m, double *out)
{
    return fit->kernels->search.trial(fit->n, ddoq_gram_row(fit, m), fit->diagonal[m], fit->diagonal, fit->closest,
                                      fit->w, out);
}

static void swap(double **a, double **b)
{
    double *t = *a;
    *a = *b;
    *b = t;
}

enum ddoq_status ddoq_seed_greedy(struct ddoq_fit *fit, const double *uniforms)
{
    size_t n = fit->n, n_trials = ddoq_seed_trials(fit->k);

    ddoq_accumulate(n, fit->w, NULL, fit->cumulative);
    fit->seeds[0] = (int64_t)ddoq_draw(n, fit->cumulative, *uniforms++);
    for (size_t i = 0; i < n; i++)
        fit->closest[i] = INFINITY;
    try_seed(fit, (size_t)fit->seeds[0], fit->best);
    swap(&fit->closest, &fit->best);

    for (size_t j = 1; j < fit->k; j++, uniforms += n_trials) {
        if (ddoq_stopped(fit->crew))
            return DDOQ_INTERRUPTED;
        if (!(ddoq_accumulate(n, fit->w, fit->closest, fit->cumulative) > 0)) {
            fit->seeds[j] = (int64_t)ddoq_first_free(n, fit->seeds, j);
            continue;
        }
        double least = INFINITY;
        for (size_t t = 0; t < n_trials; t++) {
            size_t m = ddoq_draw(n, fit->cumulative, uniforms[t]);
            double potential = try_seed(fit, m, fit->trial);
            if (t == 0 || potential < least * (1 - DDOQ_TIE)) {
                least = potential;
                fit->seeds[j] = (int64_t)m;
                swap(&fit->trial, &fit->best);
            }
        }
        swap(&fit->closest, &fit->best);
    }
    return DDOQ_OK;
}

void ddoq_assign_to_seeds(struct ddoq_fit *fit)
{
    for (size_t j = 0; j < fit->k; j++) {
        size_t m = (size_t)fit->seeds[j];
        fit->kernels->vector.widen(fit->n, ddoq_gram_row(fit, m), 1, fit->sums + j * fit->n);
        fit->scale[j] = -2;
        fit->offset[j] = fit->diagonal[m];
    }
    fit->kernels->search.nearest(fit->n, fit->k, fit->sums, fit->scale, fit->offset, fit->label, fit->dist2);
    for (size_t i = 0; i < fit->n; i++)
        fit->dist2[i] += fit->diagonal[i];
}
