/* Lloyd's iterations, as in cpu/gram/lloyd.c. The sums of a cell are made afresh from its samples, or by the samples
 * that came and went where these are fewer; a warp has 32 columns of one cell at a time and adds the rows of G in the
 * order of the cell's list, in a register: S is read and written once an iteration, and once more by the assignment. */
#ifndef DDOQ_CUDA_LLOYD_CUH
#define DDOQ_CUDA_LLOYD_CUH

#include "cuda/block.cuh"

/* label and dist2 = the nearest of k rows of products, each times scale and plus offset; the lowest on ties. seeds: the
 * rows are those of the seeds in G, otherwise the cells' sums. */
template <bool seeds> __device__ inline void assign(const Class &c)
{
    const double *scale = c.scale, *offset = c.offset;
    for (int first = warp_of() * LANES; first < c.n; first += THREADS) {
        int i = first + lane_of(), label = 0;
        double best = CUDART_INF;
        if (i >= c.n)
            continue;
#pragma unroll 8
        for (int j = 0; j < c.k; j++) {
            double product = seeds ? (double)c.gram[c.seeds[j] * c.stride + i] : c.sums[(size_t)j * c.n + i];
            double value = product * scale[j] + offset[j];
            if (value < best) {
                best = value;
                label = j;
            }
        }
        c.label[i] = label;
        c.dist2[i] = best + c.diagonal[i];
    }
    __syncthreads();
}

__device__ inline void assign_to_seeds(const Class &c)
{
    for (int j = threadIdx.x; j < c.k; j += THREADS) {
        c.scale[j] = -2;
        c.offset[j] = c.diagonal[c.seeds[j]];
    }
    __syncthreads();
    assign<true>(c);
}

/* count (k) of the samples of each cell; atomics on integers depend on no order. */
__device__ inline void count_cells(const Class &c, const int32_t *cell)
{
    for (int j = threadIdx.x; j < c.k; j += THREADS)
        c.count[j] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < c.n; i += THREADS)
        atomicAdd(&c.count[cell[i]], 1);
    __syncthreads();
}

/* The farthest sample (lowest index on ties) that is away from its point and not alone in its cell; n if there is none.
 */
__device__ inline int farthest(Shared &shared)
{
    const Class &c = shared.c;
    int found = c.n;
    double most = 0, *distances = shared.inclusive; /* which the draws use */
    int32_t *samples = shared.choice[0];            /* which the moves use */
    for (int i = threadIdx.x; i < c.n; i += THREADS) {
        if (c.dist2[i] > most && c.count[c.target[i]] > 1) {
            most = c.dist2[i];
            found = i;
        }
    }
    distances[threadIdx.x] = most;
    samples[threadIdx.x] = found;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int t = 1; t < THREADS; t++) {
            if (distances[t] > most || (distances[t] == most && samples[t] < found)) {
                most = distances[t];
                found = samples[t];
            }
        }
        shared.chosen = found;
    }
    __syncthreads();
    return shared.chosen;
}

/* Gives every empty cell of target a sample of its own. */
__device__ inline void fill_empty_cells(Shared &shared)
{
    const Class &c = shared.c;
    for (int j = 0; j < c.k; j++) {
        if (c.count[j] > 0)
            continue;
        int i = farthest(shared);
        if (i == c.n)
            break;
        if (threadIdx.x == 0) {
            c.count[c.target[i]]--;
            c.count[j] = 1;
            c.dist2[i] = 0;
            c.target[i] = j;
        }
        __syncthreads();
    }
}

/* One warp: list entries of cell j, from where begin[j] says; first: there are no sums yet. */
__device__ inline void list_cell(const Class &c, int j, bool first)
{
    int changed = 0;
    for (int base = 0; base < c.n && !first; base += LANES) {
        int i = base + lane_of();
        bool changes = i < c.n && (c.cell[i] == j) != (c.target[i] == j);
        changed += __popc(__ballot_sync(ALL_LANES, changes));
    }
    bool fresh = first || (changed > 0 && c.count[j] <= changed);
    int length = 0, begin = c.begin[j];
    for (int base = 0; base < c.n && (fresh || changed > 0); base += LANES) {
        int i = base + lane_of();
        bool is = i < c.n && c.target[i] == j, was = i < c.n && !fresh && c.cell[i] == j;
        unsigned listed = __ballot_sync(ALL_LANES, is != was);
        if (is != was)
            c.list[begin + length + __popc(listed & ((1u << lane_of()) - 1))] = is ? i : ~i;
        length += __popc(listed);
    }
    if (lane_of() == 0)
        c.length[j] = 2 * length + fresh;
}

/* begin (k) from count. */
__device__ inline void begin_cells(const Class &c)
{
    if (threadIdx.x == 0)
        for (int j = 0, begin = 0; j < c.k; begin += c.count[j], j++)
            c.begin[j] = begin;
    __syncthreads();
}

/* Makes the sums those of the partition target (n), from those of cell, and cell = target; count is that of target. */
__device__ inline void move_samples(const Class &c, bool first)
{
    begin_cells(c);
    for (int j = warp_of(); j < c.k; j += WARPS)
        list_cell(c, j, first);
    __syncthreads();
    const int strips = (c.n + LANES - 1) / LANES;
    const double *w = c.w;
    const float *gram = c.gram;
    const size_t stride = c.stride;
    for (int j = 0, strip = warp_of();; strip += WARPS) {
        while (strip >= strips) {
            strip -= strips;
            j++;
        }
        if (j >= c.k)
            break;
        int i = strip * LANES + lane_of(), length = c.length[j] / 2;
        bool fresh = c.length[j] % 2;
        if (i >= c.n || (length == 0 && !fresh))
            continue;
        const int32_t *list = c.list + c.begin[j];
        double *sum = c.sums + (size_t)j * c.n + i, value = fresh ? 0 : *sum;
#pragma unroll 8
        for (int e = 0; e < length; e++) {
            int entry = list[e], m = entry < 0 ? ~entry : entry;
            value += (entry < 0 ? -w[m] : w[m]) * gram[m * stride + i];
        }
        *sum = value;
    }
    for (int i = threadIdx.x; i < c.n; i += THREADS)
        c.cell[i] = c.target[i];
    __syncthreads();
}

/* mass, squares, scale and offset of the partition, a warp a cell. */
__device__ inline void update_points(const Class &c)
{
    for (int j = warp_of(); j < c.k; j += WARPS) {
        const double *sums = c.sums + (size_t)j * c.n;
        double mass = 0, square = 0;
        for (int i = lane_of(); i < c.n; i += LANES) {
            if (c.cell[i] == j) {
                mass += c.w[i];
                square += c.w[i] * sums[i];
            }
        }
        mass = warp_sum(mass);
        square = warp_sum(square);
        if (lane_of() == 0) {
            bool empty = c.count[j] == 0;
            c.mass[j] = mass;
            c.squares[j] = square;
            c.scale[j] = empty ? 0 : -2 / mass;
            c.offset[j] = empty ? CUDART_INF : square / mass / mass;
        }
    }
    __syncthreads();
}

__device__ inline bool is_settled(const Class &c)
{
    int differs = 0;
    for (int i = threadIdx.x; i < c.n; i += THREADS)
        differs |= c.label[i] != c.cell[i];
    return !__syncthreads_or(differs);
}

__device__ inline void copy(const Class &c, const int32_t *from, int32_t *to)
{
    for (int i = threadIdx.x; i < c.n; i += THREADS)
        to[i] = from[i];
    __syncthreads();
}

/* From the first assignment in label and dist2; returns the number of iterations. Where max_iter stops them, cell is
 * the partition whose means are the points, and label the assignment to them. */
__device__ inline int lloyd(Shared &shared)
{
    const Class &c = shared.c;
    for (int n_iter = 1;; n_iter++) {
        if (n_iter > 1 && is_settled(c))
            return n_iter;
        copy(c, c.label, c.target);
        count_cells(c, c.target);
        fill_empty_cells(shared);
        move_samples(c, n_iter == 1);
        update_points(c);
        assign<false>(c);
        if (n_iter == c.max_iter)
            return n_iter;
    }
}

#endif
