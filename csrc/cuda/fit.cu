/* The fit of many classes in Gram form, one block a class, one launch for all: seeding, Lloyd's iterations and
 * single-point moves of every restart, without a word from the host. Each class takes as long as it takes; blocks of
 * the next ones follow.
 *
 * What it moves, bytes a class (n samples, k points, L candidates a seed, T iterations, M samples that change their
 * cell in all of them; R moves in P sweeps): guard 4 n^2; a restart: seeding 4 (L + 1) k n, first sums 4 n^2 + 8 k n,
 * iterations at most 24 k n T (S read and written by the updates of cells that change, read by the assignment) and 8 M
 * n (two rows of G); single-point moves 36 R n (a row of G, two of S read and written), 256 R k and 8 P k n. With n
 * 1,300, k 50, and guesses of T 20, M 1,500, R 300 and P 6, one restart makes 83 MB, 28 us at 3 TB/s, beside 17 us of
 * the product's 2 n^2 d = 13.8 GFLOP at 800 TF/s and d 4,096. S (8 k n bytes) is in shared memory where it fits beside
 * that of the multiprocessor's other blocks, otherwise in global memory, which L2 serves in part.
 *
 * All is in double but G: nothing here is bound by arithmetic where a double is half as fast as a float. */
#include "cuda/fit.h"
#include "cuda/hartigan.cuh"
#include "cuda/seed.cuh"

/* From here on the products of halves, which are exact, lose more than they may in their sums, which are float: their
 * error of 1e-6 |x|^2 is 1e-5 of the variance. */
#define FAR_MEAN 10

/* diagonal, and whether the class can be fitted from this G. */
__device__ static int look_at_gram(Shared &shared)
{
    const Class &c = shared.c;
    double mass = 0, square = 0, mean = 0;
    int is_finite = 1;
    for (int i = threadIdx.x; i < c.n; i += THREADS) {
        c.diagonal[i] = c.gram[i * c.stride + i];
        is_finite &= isfinite(c.diagonal[i]);
        mass += c.w[i];
        square += c.w[i] * c.diagonal[i];
    }
    if (!__syncthreads_and(is_finite))
        return DDOQ_CUDA_NOT_FINITE;
    if (!c.guarded)
        return DDOQ_CUDA_FINE;
    for (int i = warp_of(); i < c.n; i += WARPS) { /* |mean|^2 = sum of w_i w_m G[i][m] */
        const float *row = c.gram + i * c.stride;
        double sum = 0;
#pragma unroll 8
        for (int m = lane_of(); m < c.n; m += LANES)
            sum += c.w[m] * row[m];
        mean += c.w[i] * sum;
    }
    mass = block_sum(shared.sum[0], mass);
    square = block_sum(shared.sum[0], square) / mass;
    mean = block_sum(shared.sum[0], mean) / mass / mass;
    return mean > FAR_MEAN * (square - mean) ? DDOQ_CUDA_FAR_MEAN : DDOQ_CUDA_FINE;
}

/* The first assignment of a restart; false where G has too few samples apart. */
__device__ static bool start(Shared &shared, int restart)
{
    const Class &c = shared.c;
    if (c.start_points)
        return true;
    if (c.start_rows) {
        for (int j = threadIdx.x; j < c.k; j += THREADS)
            c.seeds[j] = (int32_t)c.start_rows[(size_t)restart * c.k + j];
    } else if (!seed_greedy(shared, c.uniforms + (size_t)restart * (1 + (size_t)(c.k - 1) * c.n_trials))) {
        return false;
    }
    __syncthreads();
    assign_to_seeds(c);
    return true;
}

/* Weighted sum of squared distances, from G. */
__device__ static double distortion(Shared &shared, const double *dist2)
{
    const Class &c = shared.c;
    double sum = 0;
    for (int i = threadIdx.x; i < c.n; i += THREADS)
        sum += c.w[i] * dist2[i];
    return block_sum(shared.sum[0], sum);
}

/* kept_cell and kept_label. */
__device__ static int fit_class(Shared &shared)
{
    const Class &c = shared.c;
    double least = CUDART_INF, tie = DDOQ_TIE * distortion(shared, c.diagonal);
    for (int restart = 0; restart < c.n_init; restart++) {
        if (!start(shared, restart))
            return DDOQ_CUDA_TOO_ALIKE;
        int n_iter = lloyd(shared);
        double found = distortion(shared, c.dist2);
        if (restart > 0 && !(found < least - tie))
            continue;
        least = found;
        copy(c, c.cell, c.kept_cell);
        copy(c, c.label, c.kept_label);
        if (threadIdx.x == 0)
            c.outcome->n_iter = n_iter;
    }
    if (c.moves) {
        copy(c, c.kept_label, c.label);
        hartigan(shared);
        copy(c, c.cell, c.kept_cell);
        copy(c, c.label, c.kept_label);
    }
    return DDOQ_CUDA_FINE;
}

/* list and begin of the kept partition, weights and counts of the kept labels. */
__device__ static int write_cells(Shared &shared)
{
    const Class &c = shared.c;
    int is_empty = 0;
    double total = 0;
    count_cells(c, c.kept_cell);
    for (int j = threadIdx.x; j < c.k; j += THREADS)
        is_empty |= c.count[j] == 0;
    if (__syncthreads_or(is_empty))
        return DDOQ_CUDA_TOO_ALIKE;
    copy(c, c.kept_cell, c.target);
    begin_cells(c);
    for (int j = warp_of(); j < c.k; j += WARPS)
        list_cell(c, j, true);
    for (int i = threadIdx.x; i < c.n; i += THREADS)
        total += c.w[i];
    total = block_sum(shared.sum[0], total);
    for (int j = warp_of(); j < c.k; j += WARPS) {
        double mass = 0;
        int count = 0;
        for (int base = 0; base < c.n; base += LANES) {
            int i = base + lane_of();
            bool is = i < c.n && c.kept_label[i] == j;
            mass += is ? c.w[i] : 0;
            count += __popc(__ballot_sync(ALL_LANES, is));
        }
        mass = warp_sum(mass);
        if (lane_of() == 0) {
            c.weights[j] = mass / total;
            c.counts[j] = count;
        }
    }
    return DDOQ_CUDA_FINE;
}

__global__ static void __launch_bounds__(THREADS, 4) fit(const Class *classes, size_t shared_bytes)
{
    extern __shared__ double shared_sums[];
    __shared__ Shared shared;
    if (threadIdx.x == 0) {
        shared.c = classes[blockIdx.x];
        if ((size_t)shared.c.k * shared.c.n * sizeof(double) <= shared_bytes)
            shared.c.sums = shared_sums;
    }
    __syncthreads();
    int problem = look_at_gram(shared);
    if (problem == DDOQ_CUDA_FINE)
        problem = fit_class(shared);
    if (problem == DDOQ_CUDA_FINE)
        problem = write_cells(shared);
    if (threadIdx.x == 0)
        shared.c.outcome->problem = problem;
}

cudaError_t ddoq_cuda_fit(const struct ddoq_cuda_class *classes, size_t n_classes, size_t shared_bytes,
                          cudaStream_t stream)
{
    fit<<<(unsigned)n_classes, THREADS, shared_bytes, stream>>>(classes, shared_bytes);
    return cudaGetLastError();
}
