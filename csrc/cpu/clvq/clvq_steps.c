/* The steps of a block of competitive learning, one after the other. With the step g, h = 1 - g and the winner j of
 * sample m:
 *
 *     |c_j|^2 <- h^2 |c_j|^2 + 2 g h P[m][j] + g^2 G[m][m]        P[l][j] <- h P[l][j] + g G[m][l] for l > m
 *
 * The points follow at the block's end as combinations of their old selves and of the block's samples, and so do the
 * sums of the points over the steps. */
#include "cpu/clvq/clvq_steps.h"

#include <math.h>
#include <string.h>

void ddoq_clvq_shift_point(struct ddoq_clvq_call *m, const char *shift, size_t j)
{
    size_t d = m->args->d;
    m->kernels->vector.subtract(d, ddoq_clvq_point_at(m, j), shift, m->shifted + j * d * m->kernels->item);
    m->squares[j] = m->kernels->vector.dist2(d, ddoq_clvq_point_at(m, j), shift);
}

/* Takes the steps of the block, and keeps their winners and sizes. */
static void run_steps(struct ddoq_clvq_call *m, const struct ddoq_clvq_block *block, int64_t *winners)
{
    const struct ddoq_clvq_args *args = m->args;
    size_t n = block->x.n, k = args->k;
    for (size_t i = 0; i < n; i++) {
        double two[2], *products = m->products + i * k;
        const double *gram = block->grams + i * DDOQ_CLVQ_BLOCK;
        size_t j = m->kernels->search.two_least(k, products, m->squares, two);
        double clock = args->weights ? (double)m->steps + (double)i : (double)args->wins[j];
        double g = pow(1 + clock / args->b, -args->power), h = 1 - g;
        m->squares[j] = h * h * m->squares[j] + 2 * g * h * products[j] + g * g * gram[i];
        for (size_t l = i + 1; l < n; l++)
            m->products[l * k + j] = h * m->products[l * k + j] + g * gram[l];
        args->wins[j]++;
        winners[i] = (int64_t)j;
        m->step[i] = g;
    }
}

static void update_weights(const struct ddoq_clvq_call *m, size_t n, const int64_t *winners)
{
    double kept = 1, tail = 0, *weights = m->args->weights, *sums = m->args->weight_sums, gained[DDOQ_CLVQ_BLOCK],
           summed[DDOQ_CLVQ_BLOCK];
    for (size_t i = n; i-- > 0;) { /* tail: what the weight after step i adds to the sum, by itself */
        tail = 1 + (i + 1 < n ? (1 - m->step[i + 1]) * tail : 0);
        gained[i] = kept * m->step[i];
        summed[i] = tail * m->step[i];
        kept *= 1 - m->step[i];
    }
    if (sums) {
        for (size_t j = 0; j < m->args->k; j++)
            sums[j] += (1 - m->step[0]) * tail * weights[j];
        for (size_t i = 0; i < n; i++)
            sums[winners[i]] += summed[i];
    }
    for (size_t j = 0; j < m->args->k; j++)
        weights[j] *= kept;
    for (size_t i = 0; i < n; i++)
        weights[winners[i]] += gained[i];
}

/* The winner of sample first, which has won none before it in the block. A point stays what its step made it until it
 * wins again: by its own clock for one step, by the global one for as many as there are samples in between. */
static void update_point(struct ddoq_clvq_call *m, const struct ddoq_clvq_block *block, const int64_t *winners,
                         size_t first)
{
    const struct ddoq_clvq_args *args = m->args;
    size_t n = block->x.n, d = args->d, j = (size_t)winners[first], next = n, wins[DDOQ_CLVQ_BLOCK], n_wins = 0;
    double kept = 1, tail = 0, moved[DDOQ_CLVQ_BLOCK], summed[DDOQ_CLVQ_BLOCK];
    for (size_t i = n; i-- > first;) {
        if ((size_t)winners[i] != j)
            continue;
        tail = (args->weights ? (double)(next - i) : 1) + (next < n ? (1 - m->step[next]) * tail : 0);
        moved[n_wins] = kept * m->step[i];
        summed[n_wins] = tail * m->step[i];
        kept *= 1 - m->step[i];
        wins[n_wins++] = next = i;
    }
    if (args->sums) {
        double *sums = args->sums + j * d;
        double before = args->weights ? (double)(m->steps + (int64_t)first - args->summed[j]) : 0;
        m->kernels->vector.axpy(d, before + (1 - m->step[first]) * tail, ddoq_clvq_point_at(m, j), sums);
        for (size_t i = n_wins; i-- > 0;)
            m->kernels->vector.axpy(d, summed[i], ddoq_row(&block->x, wins[i]), sums);
        args->summed[j] = args->weights ? m->steps + (int64_t)n : args->wins[j];
    }
    memset(m->sum, 0, d * sizeof *m->sum);
    m->kernels->vector.axpy(d, kept, ddoq_clvq_point_at(m, j), m->sum);
    for (size_t i = n_wins; i-- > 0;)
        m->kernels->vector.axpy(d, moved[i], ddoq_row(&block->x, wins[i]), m->sum);
    m->kernels->vector.narrow(d, m->sum, 1, ddoq_clvq_point_at(m, j));
    ddoq_clvq_shift_point(m, block->shift, j);
}

void ddoq_clvq_take_steps(struct ddoq_clvq_call *m, const struct ddoq_clvq_block *block, int64_t *winners)
{
    run_steps(m, block, winners);
    if (m->args->weights)
        update_weights(m, block->x.n, winners);
    for (size_t i = 0; i < block->x.n; i++) {
        bool done = false;
        for (size_t l = 0; l < i; l++)
            done |= winners[l] == winners[i];
        if (!done)
            update_point(m, block, winners, i);
    }
    m->steps += (int64_t)block->x.n;
}
