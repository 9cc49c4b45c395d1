/* Single-point moves after Lloyd, as in cpu/gram/hartigan.c: samples in index order, each takes its best move, until a
 * sweep moves none. Samples that do not move leave the state as it is, so that a warp's worth of them is weighed at a
 * time: the first one that would move does, and the next look starts behind it. The moves are those of one after the
 * other.
 */
#ifndef DDOQ_CUDA_HARTIGAN_CUH
#define DDOQ_CUDA_HARTIGAN_CUH

#include "cuda/lloyd.cuh"

__device__ inline double distance(const Class &c, int i, int j)
{
    return c.diagonal[i] + (c.sums[(size_t)j * c.n + i] * c.scale[j] + c.offset[j]);
}

/* Every warp: the cheapest of its cells, other than their own, for the samples base + lane. */
__device__ inline void weigh_moves(Shared &shared, int base)
{
    const Class &c = shared.c;
    int i = base + lane_of(), found = 0;
    double least = CUDART_INF;
    if (i < c.n) {
        int own = c.cell[i];
        double w = c.w[i];
#pragma unroll 4
        for (int j = warp_of(); j < c.k; j += WARPS) {
            double cost = c.count[j] == 0 ? 0 : c.mass[j] / (c.mass[j] + w) * distance(c, i, j);
            if (j != own && cost < least) {
                least = cost;
                found = j;
            }
        }
    }
    shared.cost[warp_of()][lane_of()] = least;
    shared.choice[warp_of()][lane_of()] = found;
    __syncthreads();
}

/* Lane of the first warp: the cell that sample i should move to, or its own. */
__device__ inline int cheapest(const Shared &shared, int i)
{
    const Class &c = shared.c;
    int own = c.cell[i], found = own;
    double rest = c.mass[own] - c.w[i];
    if (c.count[own] < 2 || !(rest > 0))
        return own;
    double cost = c.mass[own] / rest * distance(c, i, own), limit = cost * (1 - DDOQ_LEAST_GAIN);
    if (!(cost > 0))
        return own;
    for (int warp = 0; warp < WARPS; warp++) {
        double other = shared.cost[warp][lane_of()];
        int j = shared.choice[warp][lane_of()];
        if (other < limit || (other == limit && found != own && j < found)) {
            limit = other;
            found = j;
        }
    }
    return found;
}

__device__ inline void set_point(const Class &c, int j)
{
    c.scale[j] = -2 / c.mass[j];
    c.offset[j] = c.squares[j] / c.mass[j] / c.mass[j];
}

/* The first warp: finds the first sample from base on that moves, and makes all of its move but the sums. */
__device__ inline void choose_move(Shared &shared, int base)
{
    const Class &c = shared.c;
    int i = base + lane_of(), own = -1, target = -1;
    if (i < c.n) {
        own = c.cell[i];
        target = cheapest(shared, i);
    }
    unsigned movers = __ballot_sync(ALL_LANES, target != own);
    if (movers == 0 && lane_of() == 0)
        shared.mover = -1;
    if (movers == 0 || lane_of() != __ffs(movers) - 1)
        return;
    double w = c.w[i], norm = c.diagonal[i];
    c.squares[own] += w * (w * norm - 2 * c.sums[(size_t)own * c.n + i]);
    c.squares[target] += w * (w * norm + 2 * c.sums[(size_t)target * c.n + i]);
    c.mass[own] -= w;
    c.mass[target] += w;
    c.count[own]--;
    c.count[target]++;
    c.cell[i] = target;
    set_point(c, own);
    set_point(c, target);
    shared.mover = i;
    shared.from = own;
    shared.to = target;
}

__device__ inline void move_sums(const Shared &shared)
{
    const Class &c = shared.c;
    const float *row = c.gram + shared.mover * c.stride;
    double *from = c.sums + (size_t)shared.from * c.n, *to = c.sums + (size_t)shared.to * c.n;
    double w = c.w[shared.mover];
    for (int i = threadIdx.x; i < c.n; i += THREADS) {
        from[i] += -w * row[i];
        to[i] += w * row[i];
    }
}

/* From the assignment in label, with the sums of any partition; label and cell become equal. */
__device__ inline void hartigan(Shared &shared)
{
    const Class &c = shared.c;
    copy(c, c.label, c.target);
    count_cells(c, c.target);
    move_samples(c, false);
    update_points(c);
    bool moved = true;
    for (int sweep = 0; moved && sweep < DDOQ_MAX_SWEEPS; sweep++) {
        moved = false;
        for (int base = 0; base < c.n;) {
            weigh_moves(shared, base);
            if (warp_of() == 0)
                choose_move(shared, base);
            __syncthreads();
            int mover = shared.mover;
            if (mover >= 0) {
                move_sums(shared);
                moved = true;
            }
            base = mover >= 0 ? mover + 1 : base + LANES;
            __syncthreads();
        }
        update_points(c);
    }
    copy(c, c.cell, c.label);
}

#endif
