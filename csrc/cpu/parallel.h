/* A crew of threads made for one call and joined at its end; the calling thread is one of it. */
#ifndef DDOQ_CPU_PARALLEL_H
#define DDOQ_CPU_PARALLEL_H

#include <stdbool.h>
#include <time.h>

#include "ddoq.h"

#define DDOQ_MAX_THREADS 256 /* of a call: a table of so many lies on the stack, and beyond it memory is the limit */

struct ddoq_crew;

typedef enum ddoq_status (*ddoq_task)(void *context, size_t task, struct ddoq_crew *crew);

/* Runs tasks 0..n_tasks-1, each once, in order of start, on at most n_threads threads, this one among them, and polls
 * meanwhile on this one. The first failure stops the rest; *failed is its task. Tasks must look at ddoq_stopped often
 * enough to be heard within a fraction of a second: it polls too. */
enum ddoq_status ddoq_run_tasks(size_t n_tasks, const struct ddoq_run *run, ddoq_task task, void *context,
                                size_t *failed);

/* Returns whether the task should return DDOQ_INTERRUPTED now. */
int ddoq_stopped(struct ddoq_crew *crew);

/* For work between crews: returns whether 50 ms have passed since *last, which is then now. */
bool ddoq_poll_is_due(struct timespec *last);

/* Returns whether the poll wants the call to end. Its child, if it forks, must end too: the work goes on in the parent
 * alone. */
bool ddoq_ask_to_stop(const struct ddoq_poll *poll, size_t done, bool *is_child);

#endif
