/* The result of a class from its partition and labels, by coordinates: everything that a caller sees is computed here,
 * from the data, in double, and nothing of it from G, whose distances cancel. */
#include <string.h>

#include "cpu/gram/bounds.h"

enum ddoq_status ddoq_write_mean(struct ddoq_task *task, const struct ddoq_rows *x, const double *w,
                                 const int64_t *list, size_t n_list, void *out)
{
    double mass = 0;
    for (size_t i = 0; i < n_list; i++)
        mass += w[list ? (size_t)list[i] : i];
    enum ddoq_status status = ddoq_sum_rows(x, w, list, n_list, task->widened, task->sum, task->fit.crew);
    if (status == DDOQ_OK)
        x->kernels->narrow(x->d, task->sum, mass, out);
    return status;
}

/* The same of the samples of cell j, as sorted by cell. */
static enum ddoq_status write_mean_of_cell(struct ddoq_task *task, size_t j, void *out)
{
    const int64_t *begin = task->fit.begin + j;
    return ddoq_write_mean(task, &task->x, task->w, task->fit.order + begin[0], (size_t)(begin[1] - begin[0]), out);
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
    ddoq_sort_by_cell(task->x.n, task->kept_cell, fit->k, fit->order, fit->begin);
    for (size_t j = 0; j < fit->k; j++) {
        enum ddoq_status status = write_mean_of_cell(task, fit->count[j] > 0 ? j : heaviest, points + j * bytes);
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
        ddoq_sort_by_cell(task->x.n, task->kept_cell, fit->k, fit->order, fit->begin);
        status = write_mean_of_cell(task, (size_t)from, points + (size_t)from * bytes);
        if (status == DDOQ_OK)
            status = write_mean_of_cell(task, j, points + j * bytes);
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
    enum ddoq_status status = ddoq_assign_by_bounds(task, points);
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
