/* Lloyd's iterations over the samples. An assignment multiplies blocks of panels by the points and keeps the least of
 * |c|^2 / 2 - <x, c> in each sample's lane. The sums of the cells are in double and change by the samples that moved,
 * or are made anew where more than half did, where heavy samples have left a cell to light ones, and at the end: one
 * task for each slice of the features, or part of the cells in it, adds the rows in their order, so that no bit depends
 * on the threads; where few samples move X is not read again. */
#include "cpu/stream/stream_lloyd.h"

#include <math.h>
#include <string.h>

#include "cpu/cells.h"

#define SLICE_SUMS 65536 /* of a task of the update: half of an L2 cache, but of 64 features at least */
#define LEAST_SLICE 64   /* four cache lines of floats: rows are not read in smaller pieces */
#define MOST_SLICE 1024  /* of a row of halves that is widened on the stack */
#define LEAST_SHARE 1e-3 /* of the most that a cell weighed: what is left of its sums below it may be rounding */
#define AHEAD 4096       /* bytes that an update fetches before it needs them: the rows that moved are far apart */

/* ---- assignment ---- */

/* label of the rows of a block; product: scratch of the tiles. A panel of rows stays in L1, or in L2 where it is wide,
 * while all points go by; a tile reads few lines of these, where they lie. */
static void assign_block(struct ddoq_stream *stream, size_t block, char *product)
{
    const struct ddoq_kernels *kernels = stream->x.kernels;
    size_t width = kernels->tile_cols, height = kernels->tile_rows, item = kernels->item, d = stream->x.d;
    size_t rows = ddoq_stream_rows_of(stream, block), panels = ddoq_padded(kernels, rows) / width;
    size_t stride = ddoq_stream_stride(stream), tiles = (stream->k + height - 1) / height;
    char best[DDOQ_STREAM_ROWS * sizeof(double)] __attribute__((aligned(DDOQ_CACHE_LINE)));
    char label[DDOQ_STREAM_ROWS * sizeof(int64_t)] __attribute__((aligned(DDOQ_CACHE_LINE)));
    for (size_t first = 0; first < d; first += DDOQ_DEPTH) {
        size_t depth = ddoq_smaller(DDOQ_DEPTH, d - first), bytes = width * depth * item;
        const char *chunk = ddoq_stream_chunk(stream, block, first);
        for (size_t q = 0; q < panels; q++) {
            for (size_t tile = 0; tile < tiles; tile++) {
                size_t j = tile * height, slot = d > DDOQ_DEPTH ? q * tiles + tile : 0;
                char *out = product + slot * height * width * item;
                kernels->product.tile_in_place(depth, stream->centred + (j * stride + first) * item, stride,
                                               chunk + q * bytes, out, width, ddoq_smaller(height, stream->k - j),
                                               first > 0);
                if (first + depth == d)
                    kernels->search.lower(ddoq_smaller(height, stream->k - j), out, stream->half + j * item, j,
                                          best + q * width * item, label + q * width * item);
            }
        }
    }
    kernels->search.copy_labels(rows, label, stream->label + block * DDOQ_STREAM_ROWS);
}

static enum ddoq_status assign_task(void *context, size_t task, struct ddoq_crew *crew)
{
    struct ddoq_stream *stream = context;
    const struct ddoq_kernels *kernels = stream->x.kernels;
    size_t height = kernels->tile_rows, tiles = stream->x.d > DDOQ_DEPTH ? (stream->k + height - 1) / height : 1;
    size_t begin = task * stream->task_blocks, end = ddoq_smaller(begin + stream->task_blocks, stream->n_blocks);
    char *product = ddoq_allocate(tiles * height, DDOQ_STREAM_ROWS, kernels->item);
    enum ddoq_status status = product ? DDOQ_OK : DDOQ_NO_MEMORY;
    for (size_t block = begin; block < end && status == DDOQ_OK; block++) {
        if (ddoq_stopped(crew))
            status = DDOQ_INTERRUPTED;
        else
            assign_block(stream, block, product);
    }
    free(product);
    size_t n_moved = 0, first = begin * DDOQ_STREAM_ROWS;
    for (size_t i = first; i < ddoq_smaller(end * DDOQ_STREAM_ROWS, stream->x.n) && status == DDOQ_OK; i++)
        if (stream->label[i] != stream->cell[i])
            stream->moved[first + n_moved++] = (int64_t)i;
    stream->n_moved[task] = n_moved;
    return status;
}

/* Writes the points less the shift, and half of their squared norms. */
static void centre_points(struct ddoq_stream *stream)
{
    const struct ddoq_kernels *kernels = stream->x.kernels;
    size_t d = stream->x.d, item = kernels->item;
    for (size_t j = 0; j < stream->k; j++) {
        const char *point = stream->points + j * d * item;
        double half = 0.5 * kernels->vector.dist2(d, point, stream->shift);
        if (stream->count[j] == 0)
            half = INFINITY;
        kernels->vector.narrow(1, &half, 1, stream->half + j * item);
        kernels->vector.subtract(d, point, stream->shift, stream->centred + j * ddoq_stream_stride(stream) * item);
    }
}

/* ---- update ---- */

/* Returns into how many parts the cells are split for the update of a slice of the features: enough for all threads. */
static size_t cell_parts(const struct ddoq_stream *stream, size_t slices)
{
    size_t parts = 1;
    while (parts * slices < stream->run.n_threads && parts < stream->k)
        parts *= 2;
    return parts;
}

/* Returns the features of a slice: as many as cache and threads allow, so that a row is read in few pieces. */
static size_t slice_features(const struct ddoq_stream *stream)
{
    size_t d = stream->x.d, n_threads = stream->run.n_threads; /* 0: the calling thread */
    size_t share = n_threads > 1 ? (d + n_threads - 1) / n_threads : d, fit = SLICE_SUMS / stream->k;
    size_t features = ddoq_smaller(ddoq_smaller(share, fit), MOST_SLICE);
    return features > LEAST_SLICE ? (features + LEAST_SLICE - 1) / LEAST_SLICE * LEAST_SLICE : LEAST_SLICE;
}

static size_t feature_slices(const struct ddoq_stream *stream)
{
    return (stream->x.d + stream->slice - 1) / stream->slice;
}

/* Sums of cell j over the slice that begins at feature first. Slices lie apart: cores that update neighbouring lines
 * take them from each other by fetching ahead. */
static double *sums_of(const struct ddoq_stream *stream, size_t first, size_t j)
{
    return stream->sums + first * stream->k + j * ddoq_smaller(stream->slice, stream->x.d - first);
}

/* Adds the samples of a segment to the sums of the cells that are part modulo parts, a power of two. */
static void update_segment(struct ddoq_stream *stream, size_t begin, size_t rows, size_t first, size_t part,
                           size_t parts)
{
    const struct ddoq_rows *x = &stream->x;
    size_t d = x->d, depth = ddoq_smaller(stream->slice, d - first), bytes = depth * ddoq_item(x);
    size_t ahead = AHEAD / bytes + 1;
    float widened[MOST_SLICE];
    for (size_t m = 0; m < rows; m++) {
        size_t i = stream->rebuild ? begin + m : (size_t)stream->moved[begin + m];
        size_t from = (size_t)stream->cell[i], to = (size_t)stream->label[i];
        if (m + ahead < rows) {
            size_t next = stream->rebuild ? i + ahead : (size_t)stream->moved[begin + m + ahead];
            const char *row = ddoq_row(x, next) + first * ddoq_item(x);
            ddoq_fetch(row, bytes);
        }
        const char *row = ddoq_features(x, i, first, depth, widened);
        bool leaves = !stream->rebuild && (from & (parts - 1)) == part, enters = (to & (parts - 1)) == part;
        if (leaves && enters)
            x->kernels->vector.transfer(depth, stream->w[i], row, sums_of(stream, first, from),
                                        sums_of(stream, first, to));
        else if (leaves)
            x->kernels->vector.axpy(depth, -stream->w[i], row, sums_of(stream, first, from));
        else if (enters)
            x->kernels->vector.axpy(depth, stream->w[i], row, sums_of(stream, first, to));
    }
}

static enum ddoq_status update_task(void *context, size_t task, struct ddoq_crew *crew)
{
    struct ddoq_stream *stream = context;
    size_t slices = feature_slices(stream), parts = cell_parts(stream, slices), part = task / slices;
    size_t first = task % slices * stream->slice, depth = ddoq_smaller(stream->slice, stream->x.d - first);
    for (size_t j = part; j < stream->k && stream->rebuild; j += parts)
        memset(sums_of(stream, first, j), 0, depth * sizeof *stream->sums);
    for (size_t segment = 0; segment < stream->n_tasks; segment++) {
        size_t begin = segment * stream->task_blocks * DDOQ_STREAM_ROWS, rows = stream->n_moved[segment];
        if (stream->rebuild)
            rows = ddoq_smaller(stream->task_blocks * DDOQ_STREAM_ROWS, stream->x.n - begin);
        if (ddoq_stopped(crew))
            return DDOQ_INTERRUPTED;
        update_segment(stream, begin, rows, first, part, parts);
    }
    return DDOQ_OK;
}

static enum ddoq_status distance_task(void *context, size_t task, struct ddoq_crew *crew)
{
    struct ddoq_stream *stream = context;
    const struct ddoq_rows *x = &stream->x;
    size_t rows = stream->task_blocks * DDOQ_STREAM_ROWS, bytes = x->d * x->kernels->item;
    float *widened = ddoq_row_of_halves(x);
    enum ddoq_status status = widened || !x->widen ? DDOQ_OK : DDOQ_NO_MEMORY;
    for (size_t i = task * rows; i < ddoq_smaller((task + 1) * rows, x->n) && status == DDOQ_OK; i++) {
        if (i % DDOQ_STREAM_ROWS == 0 && ddoq_stopped(crew))
            status = DDOQ_INTERRUPTED;
        const char *point = stream->points + (size_t)stream->label[i] * bytes;
        stream->dist2[i] = x->kernels->vector.dist2(x->d, ddoq_features(x, i, 0, x->d, widened), point);
    }
    free(widened);
    return status;
}

static void relabel(struct ddoq_stream *stream, size_t i, int64_t to)
{
    size_t rows = stream->task_blocks * DDOQ_STREAM_ROWS, task = i / rows;
    stream->count[stream->label[i]]--;
    stream->count[to]++;
    if (stream->label[i] == stream->cell[i])
        stream->moved[task * rows + stream->n_moved[task]++] = (int64_t)i;
    stream->label[i] = to;
    stream->dist2[i] = 0;
}

/* Empty cells take the farthest samples (cells.h). */
static enum ddoq_status fill_empty_cells(struct ddoq_stream *stream)
{
    bool known = false;
    for (size_t j = 0; j < stream->k; j++) {
        if (stream->count[j] > 0)
            continue;
        enum ddoq_status status = known ? DDOQ_OK : ddoq_stream_phase(stream, stream->n_tasks, distance_task);
        if (status != DDOQ_OK)
            return status;
        size_t found = ddoq_farthest(stream->x.n, stream->dist2, stream->label, stream->count);
        if (found == stream->x.n)
            return DDOQ_OK;
        known = true;
        relabel(stream, found, (int64_t)j);
    }
    return DDOQ_OK;
}

/* Makes mass that of label's cells, and returns whether one is much lighter now than it was since its sums were made.
 */
static bool weigh_cells(struct ddoq_stream *stream)
{
    bool is_light = false;
    memset(stream->mass, 0, stream->k * sizeof *stream->mass);
    for (size_t i = 0; i < stream->x.n; i++)
        stream->mass[stream->label[i]] += stream->w[i];
    for (size_t j = 0; j < stream->k; j++)
        is_light |= stream->count[j] > 0 && stream->mass[j] < LEAST_SHARE * stream->heaviest[j];
    return is_light;
}

/* The sums become those of label's cells, and cell = label. */
static enum ddoq_status move_samples(struct ddoq_stream *stream, bool rebuild)
{
    size_t slices = feature_slices(stream);
    stream->rebuild = weigh_cells(stream) || rebuild;
    enum ddoq_status status = ddoq_stream_phase(stream, slices * cell_parts(stream, slices), update_task);
    if (status != DDOQ_OK)
        return status;
    memcpy(stream->cell, stream->label, stream->x.n * sizeof *stream->cell);
    for (size_t j = 0; j < stream->k; j++) {
        stream->heaviest[j] = stream->rebuild ? stream->mass[j] : fmax(stream->heaviest[j], stream->mass[j]);
        if (stream->count[j] == 0) { /* rounding is left of the sums, and nothing to weigh it against */
            for (size_t first = 0; first < stream->x.d; first += stream->slice)
                memset(sums_of(stream, first, j), 0,
                       ddoq_smaller(stream->slice, stream->x.d - first) * sizeof *stream->sums);
            stream->heaviest[j] = 0;
        }
    }
    return DDOQ_OK;
}

/* points = the means of the cells; an empty cell keeps its point. Returns the squared shift. */
static double move_points(struct ddoq_stream *stream, char *before)
{
    const struct ddoq_kernels *kernels = stream->x.kernels;
    size_t d = stream->x.d, bytes = d * kernels->item;
    double shift = 0;
    for (size_t j = 0; j < stream->k; j++) {
        if (stream->count[j] == 0)
            continue;
        memcpy(before, stream->points + j * bytes, bytes);
        for (size_t first = 0; first < d; first += stream->slice)
            kernels->vector.narrow(ddoq_smaller(stream->slice, d - first), sums_of(stream, first, j), stream->mass[j],
                                   stream->points + j * bytes + first * kernels->item);
        shift += kernels->vector.dist2(d, before, stream->points + j * bytes);
    }
    return shift;
}

/* Iterates until the labels stay, or the points nearly do. */
static enum ddoq_status iterate(struct ddoq_stream *stream, double tol, size_t max_iter, int64_t *n_iter)
{
    for (*n_iter = 1;; ++*n_iter) {
        centre_points(stream);
        enum ddoq_status status = ddoq_stream_phase(stream, stream->n_tasks, assign_task);
        size_t n_moved = 0;
        for (size_t task = 0; task < stream->n_tasks; task++)
            n_moved += stream->n_moved[task];
        if (status != DDOQ_OK || n_moved == 0)
            return status;
        ddoq_count_cells(stream->x.n, stream->label, stream->k, stream->count);
        status = fill_empty_cells(stream);
        if (status == DDOQ_OK)
            status = move_samples(stream, n_moved > stream->x.n / 2);
        if (status != DDOQ_OK || move_points(stream, stream->before) <= tol * stream->variance ||
            (size_t)*n_iter == max_iter)
            return status;
    }
}

enum ddoq_status ddoq_stream_lloyd(struct ddoq_stream *stream, double tol, size_t max_iter, int64_t *n_iter)
{
    stream->slice = slice_features(stream);
    for (size_t i = 0; i < stream->x.n; i++)
        stream->cell[i] = -1;
    for (size_t j = 0; j < stream->k; j++) {
        stream->count[j] = 1;
        stream->heaviest[j] = 0;
    }
    enum ddoq_status status = iterate(stream, tol, max_iter, n_iter);
    if (status != DDOQ_OK || stream->rebuild)
        return status;
    status = move_samples(stream, true); /* nothing moves: sums without what the changes have rounded */
    if (status == DDOQ_OK)
        move_points(stream, stream->before);
    return status;
}
