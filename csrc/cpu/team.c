/* Torch works with OpenMP, whose threads wait for the next job in a busy loop: they begin within a microsecond or two,
 * where a new thread takes some 35 us, and where it finds no processor free of theirs longer. The library is found by
 * name among what is loaded for all to see, and nothing is linked, so that a process without it needs none. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "cpu/team.h"

typedef void parallel(void (*work)(void *), void *context, unsigned n_threads, unsigned flags);

static _Atomic(parallel *) found;
static atomic_bool is_child; /* of a fork: the team stayed behind, and OpenMP would wait for it without end */

static void mark_child(void)
{
    atomic_store(&is_child, true);
}

/* Runs at load: a parent that has worked with torch alone leaves its children a team that is not there, too. */
__attribute__((constructor)) static void watch_forks(void)
{
    if (pthread_atfork(NULL, NULL, mark_child))
        mark_child();
}

/* Returns the entry of GNU's library, which LLVM's and Intel's have too. */
static parallel *find(void)
{
    parallel *entry = atomic_load(&found);
    if (entry)
        return entry;
    void *process = dlopen(NULL, RTLD_LAZY), *symbol = process ? dlsym(process, "GOMP_parallel") : NULL;
    memcpy(&entry, &symbol, sizeof entry);
    atomic_store(&found, entry);
    return entry;
}

bool ddoq_run_on_team(void (*work)(void *context), void *context, size_t n_threads)
{
    parallel *run = find();
    if (!run || atomic_load(&is_child))
        return false;
    run(work, context, (unsigned)n_threads, 0);
    return true;
}
