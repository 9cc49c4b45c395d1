/* Layout of the classes of a wave in its regions: the same code measures and places. */
#include "cuda/layout.h"

#include "classes.h"
#include "cuda/rows.h"

#define ALIGNMENT ((size_t)256) /* that of cudaMalloc, and more than any load or product asks for */
/* Of samples from the host: a wave's copy runs beside the work of the one before it. */
#define WAVE_ROWS ((size_t)512 << 20)
#define MOST_CLASSES ((size_t)1 << 16) /* of a wave: the grids of all kernels are far from their limits */

size_t ddoq_cuda_item(enum ddoq_type type)
{
    return type == DDOQ_FLOAT32 ? sizeof(float) : sizeof(uint16_t);
}

static bool are_consecutive(const int64_t *rows, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (rows[i] != rows[i - 1] + 1)
            return false;
    return true;
}

/* rows * cols items; an overflow leaves used at its most, where it stays. */
static void *take(struct ddoq_cuda_region *region, size_t rows, size_t cols, size_t item)
{
    size_t bytes, begin = region->used, end;
    if (__builtin_mul_overflow(rows, cols, &bytes) || __builtin_mul_overflow(bytes, item, &bytes) ||
        __builtin_add_overflow(bytes, ALIGNMENT - 1, &bytes) ||
        __builtin_add_overflow(begin, bytes / ALIGNMENT * ALIGNMENT, &end) || end > SIZE_MAX / 8) {
        region->used = SIZE_MAX / 4;
        return NULL;
    }
    region->used = end;
    return (void *)(region->device + begin);
}

/* The samples, what G is made of, and G. */
static void place_samples(const struct ddoq_cuda_plan *plan, size_t class, struct ddoq_cuda_regions *regions,
                          struct ddoq_cuda_class *laid)
{
    const struct ddoq_quantize_args *args = plan->job->args;
    const int64_t *rows = args->rows + args->row_offsets[class];
    size_t n = (size_t)laid->n, d = args->d, item = ddoq_cuda_item(args->type);
    laid->w = take(&regions->up, n, 1, sizeof *laid->w);
    if (!plan->job->x_on_device) {
        laid->rows = take(&regions->rows, n, d, item);
    } else if (are_consecutive(rows, n)) {
        laid->rows = (const char *)args->X + (size_t)rows[0] * d * item;
    } else {
        laid->rows = args->X;
        laid->index = take(&regions->up, n, 1, sizeof *laid->index);
    }
    laid->stride = (n + 7) / 8 * 8; /* rows of G at multiples of 32 bytes */
    laid->gram = take(&regions->work, n, laid->stride, sizeof *laid->gram);
    if (plan->centred)
        laid->panel = take(&regions->work, n, d, sizeof(float));
    else if (laid->index)
        laid->panel = take(&regions->work, n, d, item);
}

static void place_scratch(struct ddoq_cuda_regions *regions, struct ddoq_cuda_class *laid)
{
    struct ddoq_cuda_region *work = &regions->work;
    size_t n = (size_t)laid->n, k = (size_t)laid->k;
    double **per_point[] = {&laid->squares, &laid->mass, &laid->scale, &laid->offset};
    int32_t **int_per_point[] = {&laid->count, &laid->seeds, &laid->begin, &laid->length};
    int32_t **int_per_row[] = {&laid->cell, &laid->label, &laid->target, &laid->list, &laid->kept_cell};
    laid->sums = take(work, k, n, sizeof(double));
    laid->diagonal = take(work, n, 1, sizeof(double));
    laid->dist2 = take(work, n, 1, sizeof(double));
    for (size_t i = 0; i < sizeof per_point / sizeof *per_point; i++)
        *per_point[i] = take(work, k, 1, sizeof(double));
    for (size_t i = 0; i < sizeof int_per_point / sizeof *int_per_point; i++)
        *int_per_point[i] = take(work, k, 1, sizeof(int32_t));
    for (size_t i = 0; i < sizeof int_per_row / sizeof *int_per_row; i++)
        *int_per_row[i] = take(work, n, 1, sizeof(int32_t));
}

bool ddoq_cuda_lay_out(const struct ddoq_cuda_plan *plan, size_t class, const struct ddoq_cuda_class *previous,
                       struct ddoq_cuda_regions *regions, struct ddoq_cuda_class *laid)
{
    const struct ddoq_quantize_args *args = plan->job->args;
    size_t n = ddoq_class_size(args, class), k = ddoq_class_points(args, class);
    size_t first_point = (size_t)args->point_offsets[class], d = args->d;
    size_t n_init = (size_t)args->n_starts[class];
    if (n > INT32_MAX / 2 || d > INT32_MAX || n_init > INT32_MAX)
        return false;
    *laid = (struct ddoq_cuda_class){.n = (int32_t)n, .k = (int32_t)k, .n_init = (int32_t)n_init};
    laid->n_trials = (int32_t)ddoq_seed_trials(k);
    laid->max_iter = args->max_iter < INT32_MAX ? (int32_t)args->max_iter : INT32_MAX;
    laid->moves = args->forms[class] != DDOQ_GRAM;
    laid->guarded = !plan->centred;
    if (previous) {
        laid->rows = previous->rows;
        laid->index = previous->index;
        laid->gram = previous->gram;
        laid->stride = previous->stride;
        laid->w = previous->w;
    } else {
        place_samples(plan, class, regions, laid);
    }
    if (args->uniforms)
        laid->uniforms = take(&regions->up, n_init, ddoq_uniforms_of_start(k), sizeof *laid->uniforms);
    if (args->start_rows)
        laid->start_rows = take(&regions->up, n_init, k, sizeof *laid->start_rows);
    if (args->start_points)
        laid->start_points = take(&regions->up, k, d, sizeof *laid->start_points);
    place_scratch(regions, laid);
    laid->points = plan->job->points_on_device ? (float *)args->points + first_point * d
                                               : take(&regions->work, k, d, sizeof *laid->points);
    laid->kept_label = take(&regions->down, n, 1, sizeof *laid->kept_label);
    laid->weights = take(&regions->down, k, 1, sizeof *laid->weights);
    laid->counts = take(&regions->down, k, 1, sizeof *laid->counts);
    laid->partial = take(&regions->down, ddoq_cuda_chunks(d), 1, sizeof *laid->partial);
    laid->outcome = take(&regions->down, 1, 1, sizeof *laid->outcome);
    return true;
}

size_t ddoq_cuda_bytes(const struct ddoq_cuda_regions *size)
{
    return size->up.used + size->down.used + size->work.used + 2 * size->rows.used;
}

struct ddoq_cuda_wave ddoq_cuda_wave_from(const struct ddoq_cuda_plan *plan, size_t first, size_t limit)
{
    struct ddoq_cuda_wave wave = {.first = first};
    struct ddoq_cuda_class laid, before;
    for (size_t at = first; at < plan->n && wave.count < MOST_CLASSES; at++) {
        struct ddoq_cuda_regions size = wave.size;
        bool same = at > first && plan->order[at] == plan->order[at - 1] + 1 &&
                    ddoq_same_rows(plan->job->args, plan->order[at]);
        before = laid;
        take(&size.up, 1, 1, sizeof laid); /* the class itself, in an array with the others */
        if (!ddoq_cuda_lay_out(plan, plan->order[at], same ? &before : NULL, &size, &laid))
            size.work.used = SIZE_MAX / 4;
        if (wave.count > 0 && (ddoq_cuda_bytes(&size) > limit || size.rows.used > WAVE_ROWS))
            break;
        wave.size = size;
        wave.count++;
    }
    return wave;
}
