/* The OpenMP threads that another library of the process keeps. */
#ifndef DDOQ_CPU_TEAM_H
#define DDOQ_CPU_TEAM_H

#include <stdbool.h>
#include <stddef.h>

/* Runs work(context) once on each of up to n_threads threads, this one among them, and returns when all have; false,
 * and nothing is run, where there are no such threads. */
bool ddoq_run_on_team(void (*work)(void *context), void *context, size_t n_threads);

#endif
