/* Quantisation of many classes, each in Gram form (fit.h): centre, G once, then n_starts times seed, Lloyd and
 * single-point moves, which no longer depend on d; the restart of the lowest distortion is kept, the first on ties.
 * Points, weights and the reported distortion come from one more pass over the original data (result.c).
 * Classes run side by side, one thread each, the biggest first, after those in streaming form (stream.h), which have
 * all threads one after the other. Consecutive classes of the same rows, in a sketch
 * or not (the numbers of points of a rate-distortion curve), share one Gram matrix.
 *
 * In a sketch G is that of a random projection (a count-sketch with as many features in each bucket) of some samples,
 * which keeps distances to a few percent. There greedy k-means++ is followed by exchanges of seeds (exchange.c), not in
 * Gram form, which starts as scikit-learn does. Moves of all samples in all features follow (polish.c), the points are
 * the means of their cells, and the labels those nearest to them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/assign.h"
#include "cpu/gram/result.h"
#include "cpu/memory.h"
#include "cpu/stream/stream.h"

struct job {
    const struct ddoq_quantize_args *args;
    const struct ddoq_isa *isa;
    size_t *order;    /* (n_tasks) first class of each run of classes with the same rows, biggest first */
    size_t *uniforms; /* (n_classes) where each class's numbers begin */
};

/* Whether the class has the Gram matrix of the one before it. */
static bool shares_gram(const struct ddoq_quantize_args *args, size_t c)
{
    return c > 0 && args->forms[c] != DDOQ_STREAMING && args->forms[c - 1] != DDOQ_STREAMING &&
           (args->forms[c] == DDOQ_SKETCH) == (args->forms[c - 1] == DDOQ_SKETCH) && ddoq_same_rows(args, c);
}

/* One past the last class that shares the rows of this one. */
static size_t end_of_run(const struct ddoq_quantize_args *args, size_t class)
{
    do
        class++;
    while (class < args->n_classes && shares_gram(args, class));
    return class;
}

static bool allocate(struct ddoq_task *task)
{
    struct ddoq_fit *fit = &task->fit;
    struct ddoq_memory *memory = &task->memory;
    size_t n = task->x.n, d = task->x.d, k = task->most, n_gram = task->sample.n, item = fit->kernels->item;
    double **per_row[] = {&task->w,    &task->diagonal, &fit->dist2,     &fit->closest,
                          &fit->trial, &fit->best,      &fit->cumulative};
    int64_t **label_per_row[] = {&fit->cell,  &fit->label,      &fit->target,
                                 &fit->order, &task->kept_cell, &task->kept_label};
    double **per_point[] = {&fit->squares, &fit->mass, &fit->scale, &fit->offset};
    for (size_t i = 0; i < sizeof per_row / sizeof *per_row; i++)
        *per_row[i] = ddoq_take(memory, n, 1, sizeof(double));
    for (size_t i = 0; i < sizeof label_per_row / sizeof *label_per_row; i++)
        *label_per_row[i] = ddoq_take(memory, n, 1, sizeof(int64_t));
    for (size_t i = 0; i < sizeof per_point / sizeof *per_point; i++)
        *per_point[i] = ddoq_take(memory, k, 1, sizeof(double));
    fit->begin = ddoq_take(memory, k + 1, 1, sizeof(int64_t));
    fit->count = ddoq_take(memory, k, 1, sizeof(int64_t));
    fit->seeds = ddoq_take(memory, k, 1, sizeof(int64_t));
    fit->sums = ddoq_take(memory, k, n_gram, sizeof(double));
    task->sum = ddoq_take(memory, d, 1, sizeof(double));
    task->shift = ddoq_take(memory, d, 1, item);
    task->gram = ddoq_take(memory, n_gram, n_gram, item);
    if (task->x.widen)
        task->widened = ddoq_take(memory, DDOQ_SUM_ROWS, d, item);
    if (task->sketched) {
        task->sample_w = ddoq_take(memory, n_gram, 1, sizeof(double));
        task->place = ddoq_take(memory, n_gram, 1, sizeof(int64_t));
        task->index = ddoq_take(memory, n_gram, 1, sizeof(int64_t));
        task->sign = ddoq_take(memory, d, 1, item);
        task->sketch = ddoq_take(memory, n_gram, task->n_sketch, item);
        task->sums = ddoq_take(memory, k, d, sizeof(double));
        task->centred = ddoq_take(memory, k, d, item);
        task->product = ddoq_take(memory, k, DDOQ_POLISH_ROWS, item);
        task->bound = ddoq_take(memory, n, k, sizeof(double));
        task->reach = ddoq_take(memory, ddoq_polish_blocks(n) + 1, k, sizeof(double));
        task->away = ddoq_take(memory, ddoq_polish_blocks(n) + 1, k, sizeof(double));
        task->anchor = ddoq_take(memory, k, d, item);
    }
    return !memory->is_short;
}

/* Random signs: a fixed function of the feature (splitmix64), so that results depend on the data alone. */
static void write_signs(struct ddoq_task *task)
{
    const struct ddoq_kernels *kernels = task->fit.kernels;
    for (size_t p = 0; p < task->x.d; p++) {
        uint64_t z = (p + 1) * UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        double sign = (z ^ (z >> 31)) >> 63 ? 1 : -1;
        kernels->narrow(1, &sign, 1, task->sign + p * kernels->item);
    }
}

/* The samples of the sketch, evenly spread over the class. */
static void choose_sample(struct ddoq_task *task)
{
    size_t n = task->sample.n;
    for (size_t i = 0; i < n; i++) {
        size_t place = i * task->x.n / n;
        task->place[i] = (int64_t)place;
        task->index[i] = task->x.index[place];
        task->sample_w[i] = task->w[place];
    }
    task->sample.index = task->index;
    task->fit.w = task->sample_w;
}

/* G of the sketch, which is linear: its rows less the first, and then less the mean of the sketch. */
static enum ddoq_status sketch_gram(struct ddoq_task *task)
{
    const struct ddoq_kernels *kernels = task->fit.kernels;
    size_t d = task->x.d, m = task->n_sketch, item = kernels->item;
    const struct ddoq_rows sketch = {.kernels = kernels, .data = task->sketch, .n = task->sample.n, .d = m};
    write_signs(task);
    memcpy(task->shift, ddoq_features(&task->sample, 0, 0, d, task->widened), d * item);
    for (size_t i = 0; i < sketch.n; i++) {
        if (ddoq_stopped(task->fit.crew))
            return DDOQ_INTERRUPTED;
        const char *row = ddoq_features(&task->sample, i, 0, d, task->widened);
        kernels->fold(d, m, row, task->shift, task->sign, task->sketch + i * m * item);
    }
    enum ddoq_status status = ddoq_write_mean(task, &sketch, task->sample_w, NULL, sketch.n, task->shift);
    return status == DDOQ_OK ? ddoq_gram_rows(&sketch, task->shift, task->gram, task->fit.crew) : status;
}

static enum ddoq_status centred_gram(struct ddoq_task *task)
{
    enum ddoq_status status = ddoq_write_mean(task, &task->x, task->w, NULL, task->x.n, task->shift);
    return status == DDOQ_OK ? ddoq_gram_rows(&task->x, task->shift, task->gram, task->fit.crew) : status;
}

static enum ddoq_status prepare_gram(struct ddoq_task *task, bool sketched)
{
    struct ddoq_fit *fit = &task->fit;
    ddoq_release(&task->memory);
    task->sketched = sketched;
    task->sample = task->x;
    if (sketched)
        task->sample.n = ddoq_sketch_samples(task->x.n, task->most);
    fit->n = task->sample.n;
    if (!allocate(task))
        return DDOQ_NO_MEMORY;
    ddoq_read_weights(task->args, task->class, task->w);
    fit->w = task->w;
    if (sketched)
        choose_sample(task);
    enum ddoq_status status = sketched ? sketch_gram(task) : centred_gram(task);
    if (status != DDOQ_OK)
        return status;
    fit->kernels->widen(fit->n, task->gram, fit->n + 1, task->diagonal);
    for (size_t i = 0; i < fit->n; i++)
        if (!isfinite(task->diagonal[i]))
            return DDOQ_NOT_FINITE;
    fit->gram = task->gram;
    fit->diagonal = task->diagonal;
    return DDOQ_OK;
}

/* First assignment, to points given as coordinates. */
static enum ddoq_status assign_to_points(struct ddoq_task *task)
{
    struct ddoq_fit *fit = &task->fit;
    size_t bytes = task->x.d * fit->kernels->item;
    const char *points = (const char *)task->args->start_points + task->first_point * bytes;
    return ddoq_assign_rows(&task->sample, points, fit->k, fit->label, fit->dist2, fit->crew);
}

/* The same to rows of the class, which the sketch may lack. */
static enum ddoq_status assign_to_rows(struct ddoq_task *task, const int64_t *rows)
{
    struct ddoq_fit *fit = &task->fit;
    size_t d = task->x.d, bytes = d * fit->kernels->item;
    for (size_t j = 0; j < fit->k; j++)
        memcpy(task->centred + j * bytes, ddoq_features(&task->x, (size_t)rows[j], 0, d, task->widened), bytes);
    return ddoq_assign_rows(&task->sample, task->centred, fit->k, fit->label, fit->dist2, fit->crew);
}

static enum ddoq_status start(struct ddoq_task *task, size_t restart)
{
    struct ddoq_fit *fit = &task->fit;
    if (task->args->start_points)
        return assign_to_points(task);
    if (task->args->start_rows) {
        const int64_t *rows = task->start_rows + restart * fit->k;
        if (task->sketched)
            return assign_to_rows(task, rows);
        memcpy(fit->seeds, rows, fit->k * sizeof *fit->seeds);
    } else {
        size_t n_candidates = (fit->k - 1) * ddoq_seed_trials(fit->k);
        const double *uniforms = task->uniforms + restart * (1 + n_candidates);
        enum ddoq_status status = ddoq_seed_greedy(fit, uniforms);
        if (status == DDOQ_OK && task->sketched) /* the numbers serve again, for other candidates */
            status = ddoq_exchange_seeds(fit, uniforms + 1, n_candidates);
        if (status != DDOQ_OK)
            return status;
    }
    ddoq_assign_to_seeds(fit);
    return DDOQ_OK;
}

/* Weighted sum of squared distances, from G. */
static double distortion_of_fit(const struct ddoq_fit *fit)
{
    double sum = 0;
    for (size_t i = 0; i < fit->n; i++)
        sum += fit->w[i] * fit->dist2[i];
    return sum;
}

/* Lloyd's iterations from every start; single-point moves from the best of their ends alone, since they cost more than
 * all of them and mostly keep their order. */
static enum ddoq_status fit_class(struct ddoq_task *task)
{
    struct ddoq_fit *fit = &task->fit;
    size_t bytes = fit->n * sizeof *fit->cell;
    double least = INFINITY, tie = 0;
    for (size_t i = 0; i < fit->n; i++)
        tie += DDOQ_TIE * fit->w[i] * fit->diagonal[i];
    for (size_t restart = 0; restart < (size_t)task->args->n_starts[task->class]; restart++) {
        enum ddoq_status status = start(task, restart);
        if (status == DDOQ_OK)
            status = ddoq_lloyd(fit, task->args->max_iter);
        if (status != DDOQ_OK)
            return status;
        double distortion = distortion_of_fit(fit);
        if (restart > 0 && !(distortion < least - tie))
            continue;
        least = distortion;
        memcpy(task->kept_cell, fit->cell, bytes);
        memcpy(task->kept_label, fit->label, bytes);
        task->args->n_iter[task->class] = fit->n_iter;
    }
    if (task->args->forms[task->class] == DDOQ_GRAM)
        return DDOQ_OK;
    memcpy(fit->label, task->kept_label, bytes);
    enum ddoq_status status = ddoq_hartigan(fit);
    memcpy(task->kept_cell, fit->cell, bytes);
    memcpy(task->kept_label, fit->label, bytes);
    return status;
}

/* The partition of the sketch's samples becomes one of all of them, in which the others have no cell. */
static void spread_cells(struct ddoq_task *task)
{
    for (size_t i = 0; i < task->x.n; i++)
        task->kept_label[i] = -1;
    for (size_t i = 0; i < task->sample.n; i++)
        task->kept_label[task->place[i]] = task->kept_cell[i];
    memcpy(task->kept_cell, task->kept_label, task->x.n * sizeof *task->kept_cell);
}

static enum ddoq_status quantize_class(struct ddoq_task *task, const struct job *job, size_t class)
{
    const struct ddoq_quantize_args *args = job->args;
    task->class = class;
    task->first_row = (size_t)args->row_offsets[class];
    task->first_point = (size_t)args->point_offsets[class];
    task->fit.k = ddoq_class_points(args, class);
    task->uniforms = args->uniforms ? args->uniforms + job->uniforms[class] : NULL;
    task->start_rows = args->start_rows ? args->start_rows + task->first_point * args->n_init : NULL;
    bool sketched = task->n_sketch > 0, empty;
    enum ddoq_status status = DDOQ_OK;
    do {
        if (!task->fit.gram || task->sketched != sketched)
            status = prepare_gram(task, sketched);
        if (status == DDOQ_OK)
            status = fit_class(task);
        if (status == DDOQ_OK && sketched)
            spread_cells(task);
        if (status == DDOQ_OK)
            status = ddoq_write_result(task, &empty);
        sketched = false; /* once more in all features, if the sketch parted what they do not */
    } while (status == DDOQ_OK && empty);
    return status;
}

static enum ddoq_status quantize_run(void *context, size_t at, struct ddoq_crew *crew)
{
    const struct job *job = context;
    const struct ddoq_quantize_args *args = job->args;
    size_t first = job->order[at], end = end_of_run(args, first), most = 0;
    for (size_t class = first; class < end; class++)
        most = ddoq_class_points(args, class) > most ? ddoq_class_points(args, class) : most;
    size_t m = ddoq_sketch_features(most); /* one sketch for all of them */
    struct ddoq_task task = {.args = args, .class = first, .most = most};
    task.n_sketch = args->forms[first] == DDOQ_SKETCH && args->d > m ? m : 0;
    task.x = ddoq_rows_of(job->isa, args->type, args->X, ddoq_class_size(args, first), args->d);
    task.x.index = args->rows + args->row_offsets[first];
    task.fit = (struct ddoq_fit){.kernels = task.x.kernels, .crew = crew};

    enum ddoq_status status = DDOQ_OK;
    for (size_t class = first; class < end && status == DDOQ_OK; class++)
        status = quantize_class(&task, job, class);
    ddoq_release(&task.memory);
    return status;
}

/* A run that tells the caller of the classes done before it, too. */
struct counted {
    const struct ddoq_poll *poll;
    size_t done;
};

static int poll_counted(void *context, size_t done)
{
    const struct counted *counted = context;
    return counted->poll->call ? counted->poll->call(counted->poll->context, counted->done + done) : 0;
}

struct size_of_class {
    size_t n, class;
};

static int bigger_first(const void *a_, const void *b_)
{
    const struct size_of_class *a = a_, *b = b_;
    if (a->n != b->n)
        return a->n > b->n ? -1 : 1;
    return a->class < b->class ? -1 : 1;
}

enum ddoq_status ddoq_quantize_classes(const struct ddoq_run *run, const struct ddoq_quantize_args *args,
                                       size_t *failed_class)
{
    struct job job = {.args = args, .isa = run->isa};
    struct size_of_class *sizes = NULL;
    enum ddoq_status status = DDOQ_NO_MEMORY;
    size_t failed = 0, next = 0, n_tasks = 0;
    struct counted counted = {.poll = &run->poll};
    struct ddoq_run counted_run = *run;

    counted_run.poll = (struct ddoq_poll){.call = poll_counted, .context = &counted};
    *failed_class = 0;
    job.order = ddoq_allocate(args->n_classes, 1, sizeof *job.order);
    job.uniforms = ddoq_allocate(args->n_classes, 1, sizeof *job.uniforms);
    sizes = ddoq_allocate(args->n_classes, 1, sizeof *sizes);
    if (!job.order || !job.uniforms || !sizes)
        goto cleanup;
    for (size_t c = 0; c < args->n_classes; c++) {
        if (args->forms[c] != DDOQ_STREAMING && !shares_gram(args, c))
            sizes[n_tasks++] = (struct size_of_class){.n = ddoq_class_size(args, c), .class = c};
        job.uniforms[c] = next;
        if (args->uniforms)
            next += args->n_init * ddoq_uniforms_of_start(ddoq_class_points(args, c));
    }
    for (size_t c = 0; c < args->n_classes; c++) {
        if (args->forms[c] != DDOQ_STREAMING)
            continue;
        *failed_class = c;
        status = ddoq_stream_class(&counted_run, args, c, args->uniforms ? args->uniforms + job.uniforms[c] : NULL);
        if (status != DDOQ_OK)
            goto cleanup;
        counted.done++;
    }
    qsort(sizes, n_tasks, sizeof *sizes, bigger_first);
    for (size_t i = 0; i < n_tasks; i++)
        job.order[i] = sizes[i].class;
    status = ddoq_run_tasks(n_tasks, &counted_run, quantize_run, &job, &failed);
    if (status != DDOQ_OK && failed < n_tasks)
        *failed_class = job.order[failed];
cleanup:
    free(sizes);
    free(job.uniforms);
    free(job.order);
    return status;
}
