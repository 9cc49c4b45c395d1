/* Quantisation of many classes, each in Gram form (fit.h): centre, G once, then n_starts times seed, Lloyd and
 * single-point moves, which no longer depend on d; the restart of the lowest distortion is kept, the first on ties.
 * Points, weights and the reported distortion come from one more pass over the original data (result.c).
 * Classes run side by side, one thread each, the biggest first, after those in streaming form (stream.h), which have
 * all threads one after the other. Consecutive classes of the same rows, in a sketch or not (the numbers of points of a
 * rate-distortion curve), share one Gram matrix.
 *
 * In a sketch G is that of a random projection (a count-sketch with as many features in each bucket) of some samples,
 * which keeps distances to a few percent. There greedy k-means++ is followed by exchanges of seeds (exchange.c), not in
 * Gram form, which starts as scikit-learn does. Moves of all samples in all features follow (polish.c), the points are
 * the means of their cells, and the labels those nearest to them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cells.h"
#include "cpu/gram/exchange.h"
#include "cpu/gram/hartigan.h"
#include "cpu/gram/lloyd.h"
#include "cpu/gram/result.h"
#include "cpu/gram/seed.h"
#include "cpu/memory.h"
#include "cpu/stream/stream.h"
#include "cpu/stream/stream_class.h"

struct job {
    const struct ddoq_quantize_args *args;
    const struct ddoq_isa *isa;
    size_t *order;    /* (n_tasks) first class of each run of classes that share G, biggest first */
    size_t *uniforms; /* (n_classes) where each class's numbers begin */
};

/* Returns whether the class has the Gram matrix of the one before it. */
static bool shares_gram(const struct ddoq_quantize_args *args, size_t c)
{
    return c > 0 && args->forms[c] != DDOQ_STREAMING && args->forms[c - 1] != DDOQ_STREAMING &&
           (args->forms[c] == DDOQ_SKETCH) == (args->forms[c - 1] == DDOQ_SKETCH) && ddoq_same_rows(args, c);
}

/* Returns one past the last class that shares the Gram matrix of this one. */
static size_t end_of_run(const struct ddoq_quantize_args *args, size_t c)
{
    do
        c++;
    while (c < args->n_classes && shares_gram(args, c));
    return c;
}

/* Makes the first assignment to points that are given as coordinates. */
static enum ddoq_status assign_to_points(struct ddoq_class *class)
{
    struct ddoq_fit *fit = &class->fit;
    size_t first_point = (size_t)class->args->point_offsets[class->number];
    const char *points = (const char *)class->args->start_points + first_point * class->x.d * fit->kernels->item;
    return ddoq_assign_rows(&class->sample, points, fit->k, fit->label, fit->dist2, fit->crew);
}

/* Makes the first assignment to rows of the class, which the sketch may lack, in the points of the moves, which are
 * free until these begin. */
static enum ddoq_status assign_to_rows(struct ddoq_class *class, const int64_t *rows)
{
    struct ddoq_fit *fit = &class->fit;
    size_t d = class->x.d, bytes = d * fit->kernels->item;
    char *points = class->moves.points;
    for (size_t j = 0; j < fit->k; j++)
        memcpy(points + j * bytes, ddoq_features(&class->x, (size_t)rows[j], 0, d, class->widened), bytes);
    return ddoq_assign_rows(&class->sample, points, fit->k, fit->label, fit->dist2, fit->crew);
}

static enum ddoq_status start(struct ddoq_class *class, size_t restart)
{
    struct ddoq_fit *fit = &class->fit;
    if (class->args->start_points)
        return assign_to_points(class);
    if (class->args->start_rows) {
        const int64_t *rows = class->start_rows + restart * fit->k;
        if (class->sketch.is_used)
            return assign_to_rows(class, rows);
        memcpy(fit->seeds, rows, fit->k * sizeof *fit->seeds);
    } else {
        size_t n_uniforms = ddoq_uniforms_of_start(fit->k);
        const double *uniforms = class->uniforms + restart * n_uniforms;
        enum ddoq_status status = ddoq_seed_greedy(fit, uniforms);
        if (status == DDOQ_OK && class->sketch.is_used) /* the numbers serve again, for other candidates */
            status = ddoq_exchange_seeds(fit, uniforms + 1, n_uniforms - 1);
        if (status != DDOQ_OK)
            return status;
    }
    ddoq_assign_to_seeds(fit);
    return DDOQ_OK;
}

/* Lloyd's iterations from every start; single-point moves from the best of their ends alone, since they cost more than
 * all of them and mostly keep their order. */
static enum ddoq_status fit_class(struct ddoq_class *class)
{
    struct ddoq_fit *fit = &class->fit;
    size_t bytes = fit->n * sizeof *fit->cell;
    double least = INFINITY, tie = 0;
    for (size_t i = 0; i < fit->n; i++)
        tie += DDOQ_TIE * fit->w[i] * fit->diagonal[i];
    for (size_t restart = 0; restart < (size_t)class->args->n_starts[class->number]; restart++) {
        enum ddoq_status status = start(class, restart);
        if (status == DDOQ_OK)
            status = ddoq_lloyd(fit, class->args->max_iter);
        if (status != DDOQ_OK)
            return status;
        double distortion = ddoq_sum_of_squares(fit->n, fit->w, fit->dist2);
        if (restart > 0 && !(distortion < least - tie))
            continue;
        least = distortion;
        memcpy(class->kept_cell, fit->cell, bytes);
        memcpy(class->kept_label, fit->label, bytes);
        class->args->n_iter[class->number] = fit->n_iter;
    }
    if (class->args->forms[class->number] == DDOQ_GRAM)
        return DDOQ_OK;
    memcpy(fit->label, class->kept_label, bytes);
    enum ddoq_status status = ddoq_hartigan(fit);
    memcpy(class->kept_cell, fit->cell, bytes);
    memcpy(class->kept_label, fit->label, bytes);
    return status;
}

/* The partition of the sketch's samples becomes one of all of them, in which the others have no cell. */
static void spread_cells(struct ddoq_class *class)
{
    for (size_t i = 0; i < class->x.n; i++)
        class->kept_label[i] = -1;
    for (size_t i = 0; i < class->sample.n; i++)
        class->kept_label[class->sketch.place[i]] = class->kept_cell[i];
    memcpy(class->kept_cell, class->kept_label, class->x.n * sizeof *class->kept_cell);
}

static enum ddoq_status quantize_class(struct ddoq_class *class, const struct job *job, size_t c)
{
    const struct ddoq_quantize_args *args = job->args;
    class->number = c;
    class->fit.k = ddoq_class_points(args, c);
    class->uniforms = args->uniforms ? args->uniforms + job->uniforms[c] : NULL;
    class->start_rows = args->start_rows ? args->start_rows + (size_t)args->point_offsets[c] * args->n_init : NULL;
    bool sketched = class->sketch.n_features > 0, empty;
    enum ddoq_status status = DDOQ_OK;
    do {
        if (!class->fit.gram || class->sketch.is_used != sketched)
            status = ddoq_prepare_class(class, sketched);
        if (status == DDOQ_OK)
            status = fit_class(class);
        if (status == DDOQ_OK && sketched)
            spread_cells(class);
        if (status == DDOQ_OK)
            status = ddoq_write_result(class, &empty);
        sketched = false; /* once more in all features, if the sketch parted what they do not */
    } while (status == DDOQ_OK && empty);
    return status;
}

/* Returns whether the form makes a sketch, which it does not of features that are as few already. */
static bool is_sketched(enum ddoq_form form, size_t k, size_t d)
{
    return form == DDOQ_SKETCH && d > ddoq_sketch_features(k);
}

static enum ddoq_status quantize_run(void *context, size_t at, struct ddoq_crew *crew)
{
    const struct job *job = context;
    const struct ddoq_quantize_args *args = job->args;
    size_t first = job->order[at], end = end_of_run(args, first), most = 0;
    for (size_t c = first; c < end; c++)
        most = ddoq_class_points(args, c) > most ? ddoq_class_points(args, c) : most;
    struct ddoq_class class = {.args = args, .number = first, .most = most};
    if (is_sketched(args->forms[first], most, args->d))
        class.sketch.n_features = ddoq_sketch_features(most); /* one sketch for all of them */
    class.x = ddoq_rows_of(job->isa, args->type, args->X, ddoq_class_size(args, first), args->d);
    class.x.index = args->rows + args->row_offsets[first];
    class.fit = (struct ddoq_fit){.kernels = class.x.kernels, .crew = crew};

    enum ddoq_status status = DDOQ_OK;
    for (size_t c = first; c < end && status == DDOQ_OK; c++)
        status = quantize_class(&class, job, c);
    ddoq_release(&class.memory);
    return status;
}

double ddoq_form_bytes(enum ddoq_form form, size_t n, size_t k, size_t d, size_t item)
{
    if (form == DDOQ_STREAMING)
        return ddoq_stream_form_bytes(n, k, d, item);
    return ddoq_gram_form_bytes(n, k, d, item, is_sketched(form, k, d));
}

/* The poll of a run that tells the caller of the classes done before it, too. */
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
    size_t n, number;
};

static int bigger_first(const void *a_, const void *b_)
{
    const struct size_of_class *a = a_, *b = b_;
    if (a->n != b->n)
        return a->n > b->n ? -1 : 1;
    return a->number < b->number ? -1 : 1;
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
            sizes[n_tasks++] = (struct size_of_class){.n = ddoq_class_size(args, c), .number = c};
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
        job.order[i] = sizes[i].number;
    status = ddoq_run_tasks(n_tasks, &counted_run, quantize_run, &job, &failed);
    if (status != DDOQ_OK && failed < n_tasks)
        *failed_class = job.order[failed];
cleanup:
    free(sizes);
    free(job.uniforms);
    free(job.order);
    return status;
}
