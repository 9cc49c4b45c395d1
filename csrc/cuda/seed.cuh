/* Greedy k-means++, as in cpu/gram/seed.c: each further seed is the best of 2 + floor(ln k) samples drawn with
 * probability proportional to weight times squared distance to the nearest seed so far. All candidates of a step are
 * looked at in one pass over the samples, a row of G each. */
#ifndef DDOQ_CUDA_SEED_CUH
#define DDOQ_CUDA_SEED_CUH

#include "cuda/block.cuh"

/* What a draw of sample i is proportional to. */
__device__ inline double mass_of(const Class &c, int i, bool by_distance)
{
    return by_distance ? c.w[i] * c.dist2[i] : c.w[i];
}

/* Fills shared.inclusive; thread t has the samples t * share and on. Returns the total. */
__device__ inline double accumulate(Shared &shared, bool by_distance)
{
    const Class &c = shared.c;
    int share = (c.n + THREADS - 1) / THREADS;
    int end = min(c.n, (int)(threadIdx.x + 1) * share);
    double value = 0, before = 0;
    for (int i = threadIdx.x * share; i < end; i++)
        value += mass_of(c, i, by_distance);
    for (int step = 1; step < LANES; step *= 2) {
        double below = __shfl_up_sync(ALL_LANES, value, step);
        if (lane_of() >= step)
            value += below;
    }
    if (lane_of() == LANES - 1)
        shared.sum[0][warp_of()] = value;
    __syncthreads();
    for (int warp = 0; warp < warp_of(); warp++)
        before += shared.sum[0][warp];
    shared.inclusive[threadIdx.x] = before + value;
    __syncthreads();
    return shared.inclusive[THREADS - 1];
}

/* The last sample before end that can be drawn, or else the first after it: where rounding leaves none in its share. */
__device__ inline int nearest_with_mass(const Class &c, int end, bool by_distance)
{
    for (int i = end; i-- > 0;)
        if (mass_of(c, i, by_distance) > 0)
            return i;
    for (int i = end; i < c.n; i++)
        if (mass_of(c, i, by_distance) > 0)
            return i;
    return 0;
}

/* One warp: the first sample whose cumulative mass exceeds the share u, the same in each lane. */
__device__ inline int draw(const Shared &shared, double u, bool by_distance)
{
    const Class &c = shared.c;
    int share = (c.n + THREADS - 1) / THREADS, thread = 0, found = -1;
    double threshold = u * shared.inclusive[THREADS - 1];
    for (; thread < THREADS; thread += LANES) {
        unsigned above = __ballot_sync(ALL_LANES, shared.inclusive[thread + lane_of()] > threshold);
        if (above) {
            thread += __ffs(above) - 1;
            break;
        }
    }
    int end = min(c.n, (thread + 1) * share);
    double cumulative = thread > 0 && thread < THREADS ? shared.inclusive[thread - 1] : 0;
    for (int i = thread * share; i < end && found < 0; i++) {
        cumulative += mass_of(c, i, by_distance);
        if (cumulative > threshold)
            found = i;
    }
    return found < 0 ? nearest_with_mass(c, end, by_distance) : found;
}

/* Distance of sample i to sample m, whose row of G is given, by way of the nearest seed so far. */
__device__ inline double nearer(const Class &c, const float *row, double norm, int i, double so_far)
{
    double value = (c.diagonal[i] + norm) - 2 * (double)row[i];
    value = value < 0 ? 0 : value;
    return value < so_far ? value : so_far;
}

/* Sums of weight times distance, were each candidate first.. a seed too: shared.sum[t] of each warp. */
__device__ inline void try_candidates(Shared &shared, int n_candidates)
{
    const Class &c = shared.c;
    const float *row[TRIALS];
    double sum[TRIALS] = {0};
#pragma unroll
    for (int t = 0; t < TRIALS; t++) {
        row[t] = c.gram + shared.candidate[min(t, n_candidates - 1)] * c.stride;
    }
    for (int i = threadIdx.x; i < c.n; i += THREADS) {
        double w = c.w[i], so_far = c.dist2[i];
#pragma unroll
        for (int t = 0; t < TRIALS; t++)
            if (t < n_candidates)
                sum[t] += nearer(c, row[t], shared.norm[t], i, so_far) * w;
    }
#pragma unroll
    for (int t = 0; t < TRIALS; t++) {
        if (t < n_candidates) {
            sum[t] = warp_sum(sum[t]);
            if (lane_of() == 0)
                shared.sum[t][warp_of()] = sum[t];
        }
    }
    __syncthreads();
}

/* dist2 = distance to the nearest seed, now that m is one too. */
__device__ inline void add_seed(Shared &shared, int m, bool first)
{
    const Class &c = shared.c;
    const float *row = c.gram + m * c.stride;
    double norm = c.diagonal[m];
    for (int i = threadIdx.x; i < c.n; i += THREADS)
        c.dist2[i] = nearer(c, row, norm, i, first ? CUDART_INF : c.dist2[i]);
    __syncthreads();
}

/* The best of the candidates, drawn by n_trials uniform numbers. */
__device__ inline int best_candidate(Shared &shared, const double *uniforms, int n_trials)
{
    const Class &c = shared.c;
    int best = 0;
    double least = CUDART_INF;
    for (int first = 0; first < n_trials; first += TRIALS) {
        int n_candidates = min(TRIALS, n_trials - first);
        if (warp_of() < n_candidates) {
            int m = draw(shared, uniforms[first + warp_of()], true);
            if (lane_of() == 0) {
                shared.candidate[warp_of()] = m;
                shared.norm[warp_of()] = c.diagonal[m]; /* there are no registers for them */
            }
        }
        __syncthreads();
        try_candidates(shared, n_candidates);
        for (int t = 0; t < n_candidates; t++) {
            double potential = 0;
            for (int warp = 0; warp < WARPS; warp++)
                potential += shared.sum[t][warp];
            if (first + t == 0 || potential < least * (1 - DDOQ_TIE)) {
                least = potential;
                best = shared.candidate[t];
            }
        }
        __syncthreads();
    }
    return best;
}

/* seeds (k) from 1 + (k - 1) * n_trials uniform numbers; false where G has too few samples apart. */
__device__ inline bool seed_greedy(Shared &shared, const double *uniforms)
{
    const Class &c = shared.c;
    static_assert(TRIALS <= WARPS, "a warp draws a candidate");
    accumulate(shared, false);
    int m = draw(shared, uniforms[0], false);
    uniforms++;
    __syncthreads(); /* all have drawn: the next step writes what they read */
    for (int j = 0;; j++, uniforms += c.n_trials) {
        if (threadIdx.x == 0)
            c.seeds[j] = m;
        add_seed(shared, m, j == 0);
        if (j + 1 == c.k)
            return true;
        if (!(accumulate(shared, true) > 0))
            return false;
        m = best_candidate(shared, uniforms, c.n_trials);
    }
}

#endif
