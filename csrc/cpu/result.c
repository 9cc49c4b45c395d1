/* The result of a class from its partition and labels, by coordinates: everything that a caller sees is computed here,
 * from the data, in double, and nothing of it from G, whose distances cancel. */
#include <string.h>

#include "cpu/assign.h"
#include "cpu/result.h"

#define MEAN_FEATURES 2048 /* their sums fit into L1 */

enum ddoq_status ddoq_write_mean(struct ddoq_task *task, const struct ddoq_rows *x, const double *w,
                                 const int64_t *cell, int64_t j, void *out)
{
    size_t item = x->kernels->item;
    double mass = 0;
    for (size_t i = 0; i < x->n; i++)
        mass += !cell || cell[i] == j ? w[i] : 0;
    for (size_t first = 0; first < x->d; first += MEAN_FEATURES) {
        size_t depth = ddoq_smaller(MEAN_FEATURES, x->d - first);
        memset(task->sum, 0, depth * sizeof *task->sum);
        for (size_t i = 0; i < x->n; i++) {
            if (cell && cell[i] != j)
                continue;
            if (ddoq_stopped(task->fit.crew))
                return DDOQ_INTERRUPTED;
            x->kernels->axpy(depth, w[i], ddoq_features(x, i, first, depth, task->widened), task->sum);
        }
        x->kernels->narrow(depth, task->sum, mass, (char *)out + first * item);
    }
    return DDOQ_OK;
}

/* Points: the means of the cells, from the data; the point of an empty cell is that of the heaviest cell, as in
 * scikit-learn. */
static enum ddoq_status write_points(struct ddoq_task *task)
{
    struct ddoq_fit *fit = &task->fit;
    size_t bytes = task->x.d * fit->kernels->item, heaviest = 0;
    char *points = (char *)task->args->points + task->first_point * bytes;
    memset(fit->mass, 0, fit->k * sizeof *fit->mass);
    memset(fit->count, 0, fit->k * sizeof *fit->count);
    for (size_t i = 0; i < task->x.n; i++) {
        fit->mass[task->kept_cell[i]] += task->w[i];
        fit->count[task->kept_cell[i]]++;
    }
    for (size_t j = 1; j < fit->k; j++)
        heaviest = fit->mass[j] > fit->mass[heaviest] ? j : heaviest;
    for (size_t j = 0; j < fit->k; j++) {
        size_t from = fit->count[j] > 0 ? j : heaviest;
        enum ddoq_status status =
            ddoq_write_mean(task, &task->x, task->w, task->kept_cell, (int64_t)from, points + j * bytes);
        if (status != DDOQ_OK)
            return status;
    }
    return DDOQ_OK;
}

static const char *point_of(const struct ddoq_task *task, size_t i)
{
    size_t bytes = task->x.d * task->x.kernels->item, j = task->first_point + (size_t)task->kept_cell[i];
    return (const char *)task->args->points + j * bytes;
}

/* The farthest sample from its point by coordinates, which tell apart distinct rows that G of floats cannot. */
static size_t farthest_by_coordinates(struct ddoq_task *task)
{
    size_t found = task->x.n;
    double most = 0;
    for (size_t i = 0; i < task->x.n && !ddoq_stopped(task->fit.crew); i++) {
        const char *row = ddoq_features(&task->x, i, 0, task->x.d, task->widened);
        double value = task->x.kernels->dist2(task->x.d, row, point_of(task, i));
        if (value > most && task->fit.count[task->kept_cell[i]] > 1) {
            most = value;
            found = i;
        }
    }
    return found;
}

/* Cells that stayed empty, because rounding of G made distinct rows equal, take the farthest samples. */
static enum ddoq_status fill_empty_points(struct ddoq_task *task)
{
    struct ddoq_fit *fit = &task->fit;
    size_t bytes = task->x.d * fit->kernels->item;
    char *points = (char *)task->args->points + task->first_point * bytes;
    enum ddoq_status status = DDOQ_OK;
    for (size_t j = 0; j < fit->k && status == DDOQ_OK; j++) {
        if (fit->count[j] > 0)
            continue;
        size_t i = farthest_by_coordinates(task);
        if (ddoq_stopped(fit->crew))
            return DDOQ_INTERRUPTED;
        if (i == task->x.n)
            break; /* fewer distinct rows than points */
        int64_t from = task->kept_cell[i];
        task->kept_cell[i] = (int64_t)j;
        fit->count[from]--;
        fit->count[j] = 1;
        status = ddoq_write_mean(task, &task->x, task->w, task->kept_cell, from, points + (size_t)from * bytes);
        if (status == DDOQ_OK)
            status = ddoq_write_mean(task, &task->x, task->w, task->kept_cell, (int64_t)j, points + j * bytes);
        memcpy(task->kept_label, task->kept_cell, task->x.n * sizeof *task->kept_label);
    }
    return status;
}

/* Labels, masses, counts and the distortion of the final assignment. */
static enum ddoq_status write_assignment(struct ddoq_task *task)
{
    const struct ddoq_quantize_args *args = task->args;
    const struct ddoq_kernels *kernels = task->x.kernels;
    size_t k = task->fit.k, bytes = task->x.d * kernels->item;
    const char *points = (const char *)args->points + task->first_point * bytes;
    double *weights = args->weights + task->first_point, total = 0, distortion = 0;
    int64_t *counts = args->counts + task->first_point;
    memset(weights, 0, k * sizeof *weights);
    memset(counts, 0, k * sizeof *counts);
    for (size_t i = 0; i < task->x.n; i++) {
        if (ddoq_stopped(task->fit.crew))
            return DDOQ_INTERRUPTED;
        size_t j = (size_t)task->kept_label[i];
        args->labels[task->first_row + i] = (int64_t)j;
        weights[j] += task->w[i];
        counts[j]++;
        total += task->w[i];
        if (!task->sketched) /* otherwise the assignment has just measured them */
            task->fit.dist2[i] =
                kernels->dist2(task->x.d, ddoq_features(&task->x, i, 0, task->x.d, task->widened), points + j * bytes);
        distortion += task->w[i] * task->fit.dist2[i];
    }
    for (size_t j = 0; j < k; j++)
        weights[j] /= total;
    args->distortion[task->class] = distortion / total;
    return DDOQ_OK;
}

/* After a sketch: the means of the cells after moves, and labels nearest to them in all features. */
static enum ddoq_status assign_to_means(struct ddoq_task *task, bool *empty)
{
    struct ddoq_fit *fit = &task->fit;
    size_t d = task->x.d, bytes = d * fit->kernels->item;
    char *points = (char *)task->args->points + task->first_point * bytes;
    for (size_t j = 0; j < fit->k; j++) {
        if (fit->count[j] == 0) {
            *empty = true;
            return DDOQ_OK;
        }
        fit->kernels->narrow(d, task->sums + j * d, fit->mass[j], points + j * bytes);
    }
    enum ddoq_status status = ddoq_assign_rows(&task->x, points, fit->k, task->kept_label, fit->dist2, fit->crew);
    memset(fit->count, 0, fit->k * sizeof *fit->count);
    for (size_t i = 0; i < task->x.n && status == DDOQ_OK; i++)
        fit->count[task->kept_label[i]]++;
    for (size_t j = 0; j < fit->k; j++)
        *empty |= fit->count[j] == 0;
    return status;
}

enum ddoq_status ddoq_write_result(struct ddoq_task *task, bool *empty)
{
    *empty = false;
    enum ddoq_status status = task->sketched ? ddoq_polish(task) : write_points(task);
    if (status == DDOQ_OK)
        status = task->sketched ? assign_to_means(task, empty) : fill_empty_points(task);
    if (status == DDOQ_OK && !*empty)
        status = write_assignment(task);
    return status;
}
