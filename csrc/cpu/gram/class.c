/* The memory of a class in Gram form, its weights, its sketch and its Gram matrix. */
#include "cpu/gram/class.h"

#include <string.h>

#include "cpu/gram/gram.h"
#include "cpu/sums.h"

/* Lists every array of the class by its sizes, and returns their number. */
static size_t list_arrays(struct ddoq_class *class, bool widens, struct ddoq_array *arrays)
{
    struct ddoq_fit *fit = &class->fit;
    struct ddoq_sketch *sketch = &class->sketch;
    size_t n = class->x.n, d = class->x.d, k = class->most, m = class->sample.n, item = fit->kernels->item;
    size_t of_halves = widens ? DDOQ_SUM_ROWS : 0, blocks = ddoq_polish_blocks(n) + 1;
    size_t in_sketch = sketch->is_used ? m : 0, in_moves = sketch->is_used ? k : 0;
    const struct ddoq_array table[] = {
        {&class->w, n, 1, sizeof *class->w},
        {&class->diagonal, n, 1, sizeof *class->diagonal},
        {&class->kept_cell, n, 1, sizeof *class->kept_cell},
        {&class->kept_label, n, 1, sizeof *class->kept_label},
        {&class->sum, d, 1, sizeof *class->sum},
        {&class->shift, d, 1, item},
        {&class->gram, m, m, item},
        {&class->widened, of_halves, d, item},

        {&fit->dist2, n, 1, sizeof *fit->dist2},
        {&fit->closest, n, 1, sizeof *fit->closest},
        {&fit->trial, n, 1, sizeof *fit->trial},
        {&fit->best, n, 1, sizeof *fit->best},
        {&fit->cumulative, n, 1, sizeof *fit->cumulative},
        {&fit->cell, n, 1, sizeof *fit->cell},
        {&fit->label, n, 1, sizeof *fit->label},
        {&fit->target, n, 1, sizeof *fit->target},
        {&fit->order, n, 1, sizeof *fit->order},
        {&fit->squares, k, 1, sizeof *fit->squares},
        {&fit->mass, k, 1, sizeof *fit->mass},
        {&fit->scale, k, 1, sizeof *fit->scale},
        {&fit->offset, k, 1, sizeof *fit->offset},
        {&fit->count, k, 1, sizeof *fit->count},
        {&fit->seeds, k, 1, sizeof *fit->seeds},
        {&fit->begin, k + 1, 1, sizeof *fit->begin},
        {&fit->sums, k, m, sizeof *fit->sums},

        {&sketch->w, in_sketch, 1, sizeof *sketch->w},
        {&sketch->place, in_sketch, 1, sizeof *sketch->place},
        {&sketch->index, in_sketch, 1, sizeof *sketch->index},
        {&sketch->rows, in_sketch, sketch->n_features, item},
        {&sketch->sign, sketch->is_used ? d : 0, 1, item},
        {&class->moves.sums, in_moves, d, sizeof *class->moves.sums},
        {&class->moves.points, in_moves, d, item},
        {&class->moves.product, in_moves, DDOQ_POLISH_ROWS, item},
        {&class->bounds.least, in_moves, n, sizeof *class->bounds.least},
        {&class->bounds.reach, in_moves, blocks, sizeof *class->bounds.reach},
        {&class->bounds.away, in_moves, blocks, sizeof *class->bounds.away},
        {&class->bounds.anchor, in_moves, d, item},
    };
    _Static_assert(sizeof table / sizeof *table <= DDOQ_MOST_ARRAYS, "there is room for all");
    memcpy(arrays, table, sizeof table);
    return sizeof table / sizeof *table;
}

double ddoq_gram_form_bytes(size_t n, size_t k, size_t d, size_t item, bool sketched)
{
    struct ddoq_array arrays[DDOQ_MOST_ARRAYS];
    const struct ddoq_kernels kernels = {.item = item};
    struct ddoq_class class = {.most = k, .fit.kernels = &kernels, .x = {.n = n, .d = d}, .sample.n = n};
    if (sketched) {
        class.sketch = (struct ddoq_sketch){.n_features = ddoq_sketch_features(k), .is_used = true};
        class.sample.n = ddoq_sketch_samples(n, k);
    }
    size_t n_arrays = list_arrays(&class, true, arrays);
    return ddoq_bytes_of(arrays, n_arrays) + ddoq_gram_scratch(class.sample.n, d, item) +
           (sketched ? ddoq_assign_scratch(k, d, item) : 0);
}

enum ddoq_status ddoq_write_mean(struct ddoq_class *class, const struct ddoq_rows *x, const double *w,
                                 const int64_t *list, size_t n_list, void *out)
{
    double mass = 0;
    for (size_t i = 0; i < n_list; i++)
        mass += w[list ? (size_t)list[i] : i];
    enum ddoq_status status = ddoq_sum_rows(x, w, list, n_list, class->widened, class->sum, class->fit.crew);
    if (status == DDOQ_OK)
        x->kernels->vector.narrow(x->d, class->sum, mass, out);
    return status;
}

/* Signs are random, but a fixed function of the feature (splitmix64), so that results depend on the data alone. */
static void write_signs(struct ddoq_class *class)
{
    const struct ddoq_kernels *kernels = class->fit.kernels;
    for (size_t p = 0; p < class->x.d; p++) {
        uint64_t z = (p + 1) * UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        double sign = (z ^ (z >> 31)) >> 63 ? 1 : -1;
        kernels->vector.narrow(1, &sign, 1, class->sketch.sign + p * kernels->item);
    }
}

/* The samples of the sketch are evenly spread over the class. */
static void choose_sample(struct ddoq_class *class)
{
    struct ddoq_sketch *sketch = &class->sketch;
    size_t n = class->sample.n;
    for (size_t i = 0; i < n; i++) {
        size_t place = i * class->x.n / n;
        sketch->place[i] = (int64_t)place;
        sketch->index[i] = class->x.index[place];
        sketch->w[i] = class->w[place];
    }
    class->sample.index = sketch->index;
    class->fit.w = sketch->w;
}

/* Makes G of the sketch, which is linear: its rows less the first, and then less the mean of the sketch. */
static enum ddoq_status sketch_gram(struct ddoq_class *class)
{
    const struct ddoq_kernels *kernels = class->fit.kernels;
    size_t d = class->x.d, m = class->sketch.n_features, item = kernels->item;
    const struct ddoq_rows rows = {.kernels = kernels, .data = class->sketch.rows, .n = class->sample.n, .d = m};
    write_signs(class);
    memcpy(class->shift, ddoq_features(&class->sample, 0, 0, d, class->widened), d * item);
    for (size_t i = 0; i < rows.n; i++) {
        if (ddoq_stopped(class->fit.crew))
            return DDOQ_INTERRUPTED;
        const char *row = ddoq_features(&class->sample, i, 0, d, class->widened);
        kernels->product.fold(d, m, row, class->shift, class->sketch.sign, class->sketch.rows + i * m * item);
    }
    enum ddoq_status status = ddoq_write_mean(class, &rows, class->sketch.w, NULL, rows.n, class->shift);
    return status == DDOQ_OK ? ddoq_gram_rows(&rows, class->shift, class->gram, class->fit.crew) : status;
}

static enum ddoq_status centred_gram(struct ddoq_class *class)
{
    enum ddoq_status status = ddoq_write_mean(class, &class->x, class->w, NULL, class->x.n, class->shift);
    return status == DDOQ_OK ? ddoq_gram_rows(&class->x, class->shift, class->gram, class->fit.crew) : status;
}

/* Takes the class's arrays in place of those that it had. */
static bool allocate(struct ddoq_class *class)
{
    struct ddoq_array arrays[DDOQ_MOST_ARRAYS];
    size_t n_arrays = list_arrays(class, class->x.widen != NULL, arrays);
    ddoq_release(&class->memory);
    bool enough = ddoq_take_all(&class->memory, arrays, n_arrays);
    class->moves.pull = class->fit.squares;
    return enough;
}

enum ddoq_status ddoq_prepare_class(struct ddoq_class *class, bool sketched)
{
    struct ddoq_fit *fit = &class->fit;
    class->sketch.is_used = sketched;
    class->sample = class->x;
    if (sketched)
        class->sample.n = ddoq_sketch_samples(class->x.n, class->most);
    fit->n = class->sample.n;
    if (!allocate(class))
        return DDOQ_NO_MEMORY;
    ddoq_read_weights(class->args, class->number, class->w);
    fit->w = class->w;
    if (sketched)
        choose_sample(class);
    enum ddoq_status status = sketched ? sketch_gram(class) : centred_gram(class);
    if (status != DDOQ_OK)
        return status;
    fit->kernels->vector.widen(fit->n, class->gram, fit->n + 1, class->diagonal);
    for (size_t i = 0; i < fit->n; i++)
        if (!isfinite(class->diagonal[i]))
            return DDOQ_NOT_FINITE;
    fit->gram = class->gram;
    fit->diagonal = class->diagonal;
    return DDOQ_OK;
}
