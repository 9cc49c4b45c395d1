/* The result of a class from its partition and labels, by coordinates: everything that a caller sees is computed here,
 * from the data, in double, and nothing of it from G, whose distances cancel. */
#include "cpu/gram/result.h"

#include <string.h>

#include "cpu/cells.h"
#include "cpu/gram/bounds.h"
#include "cpu/gram/polish.h"
#include "cpu/sums.h"

/* out (d) = the mean of the samples of cell j, as sorted by cell. */
static enum ddoq_status write_mean_of_cell(struct ddoq_class *class, size_t j, void *out)
{
    const int64_t *begin = class->fit.begin + j;
    return ddoq_write_mean(class, &class->x, class->w, class->fit.order + begin[0], (size_t)(begin[1] - begin[0]), out);
}

/* The points are the means of the cells, from the data; that of an empty cell is the mean of the heaviest cell, as in
 * scikit-learn. */
static enum ddoq_status write_points(struct ddoq_class *class)
{
    struct ddoq_fit *fit = &class->fit;
    size_t bytes = class->x.d * fit->kernels->item, heaviest = 0;
    char *points = ddoq_points_of(class);
    ddoq_count_cells(class->x.n, class->kept_cell, fit->k, fit->count);
    memset(fit->mass, 0, fit->k * sizeof *fit->mass);
    for (size_t i = 0; i < class->x.n; i++)
        fit->mass[class->kept_cell[i]] += class->w[i];
    for (size_t j = 1; j < fit->k; j++)
        heaviest = fit->mass[j] > fit->mass[heaviest] ? j : heaviest;
    ddoq_sort_by_cell(class->x.n, class->kept_cell, fit->k, fit->order, fit->begin);
    for (size_t j = 0; j < fit->k; j++) {
        enum ddoq_status status = write_mean_of_cell(class, fit->count[j] > 0 ? j : heaviest, points + j * bytes);
        if (status != DDOQ_OK)
            return status;
    }
    return DDOQ_OK;
}

/* The fit's dist2 = every sample's squared distance to the point of its cell, or of its label. By coordinates, which
 * tell apart distinct rows that G of floats cannot. */
static enum ddoq_status measure(struct ddoq_class *class, const int64_t *cell)
{
    size_t d = class->x.d, bytes = d * class->x.kernels->item;
    const char *points = ddoq_points_of(class);
    for (size_t i = 0; i < class->x.n; i++) {
        if (ddoq_stopped(class->fit.crew))
            return DDOQ_INTERRUPTED;
        const char *row = ddoq_features(&class->x, i, 0, d, class->widened);
        class->fit.dist2[i] = class->x.kernels->vector.dist2(d, row, points + (size_t)cell[i] * bytes);
    }
    return DDOQ_OK;
}

/* Cells that stayed empty, because rounding of G made distinct rows equal, take the farthest samples. */
static enum ddoq_status fill_empty_points(struct ddoq_class *class)
{
    struct ddoq_fit *fit = &class->fit;
    size_t bytes = class->x.d * fit->kernels->item;
    char *points = ddoq_points_of(class);
    enum ddoq_status status = DDOQ_OK;
    for (size_t j = 0; j < fit->k && status == DDOQ_OK; j++) {
        if (fit->count[j] > 0)
            continue;
        status = measure(class, class->kept_cell);
        if (status != DDOQ_OK)
            return status;
        size_t i = ddoq_farthest(class->x.n, fit->dist2, class->kept_cell, fit->count);
        if (i == class->x.n)
            break; /* fewer distinct rows than points */
        int64_t from = class->kept_cell[i];
        class->kept_cell[i] = (int64_t)j;
        fit->count[from]--;
        fit->count[j] = 1;
        ddoq_sort_by_cell(class->x.n, class->kept_cell, fit->k, fit->order, fit->begin);
        status = write_mean_of_cell(class, (size_t)from, points + (size_t)from * bytes);
        if (status == DDOQ_OK)
            status = write_mean_of_cell(class, j, points + j * bytes);
        memcpy(class->kept_label, class->kept_cell, class->x.n * sizeof *class->kept_label);
    }
    return status;
}

/* After a sketch the points are the means of the cells after the moves, and the labels are those nearest to them in all
 * features. */
static enum ddoq_status assign_to_means(struct ddoq_class *class, bool *empty)
{
    struct ddoq_fit *fit = &class->fit;
    size_t d = class->x.d, bytes = d * fit->kernels->item;
    char *points = ddoq_points_of(class);
    for (size_t j = 0; j < fit->k; j++) {
        if (fit->count[j] == 0) {
            *empty = true;
            return DDOQ_OK;
        }
        fit->kernels->vector.narrow(d, class->moves.sums + j * d, fit->mass[j], points + j * bytes);
    }
    enum ddoq_status status = ddoq_assign_by_bounds(class, points);
    if (status != DDOQ_OK)
        return status;
    ddoq_count_cells(class->x.n, class->kept_label, fit->k, fit->count);
    for (size_t j = 0; j < fit->k; j++)
        *empty |= fit->count[j] == 0;
    return DDOQ_OK;
}

enum ddoq_status ddoq_write_result(struct ddoq_class *class, bool *empty)
{
    *empty = false;
    enum ddoq_status status = class->sketch.is_used ? ddoq_polish(class) : write_points(class);
    if (status == DDOQ_OK)
        status = class->sketch.is_used ? assign_to_means(class, empty) : fill_empty_points(class);
    if (status == DDOQ_OK && !class->sketch.is_used) /* or else the assignment has just measured them */
        status = measure(class, class->kept_label);
    if (status == DDOQ_OK && !*empty)
        ddoq_write_cells(class->args, class->number, class->kept_label, class->w, class->fit.dist2);
    return status;
}
