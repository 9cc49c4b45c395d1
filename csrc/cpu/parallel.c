/* Threads for one call. The calling thread works beside those it starts: a short job is done before they are awake.
 * Every 50 ms it polls (signals, progress), between the tiles of its tasks and while it waits for the last ones, and
 * sets a flag that the others read between theirs. They block all signals, so that handlers run on the caller's threads
 * only. A poll may fork, and may end its thread: Python does so to threads that come back while it shuts down. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "cpu/parallel.h"

struct ddoq_crew {
    ddoq_task task;
    void *context;
    size_t n_tasks;
    const struct ddoq_poll *poll;
    atomic_size_t next, done;
    atomic_bool stop;
    pthread_t caller;
    struct timespec last_poll; /* the caller's */
    size_t n_threads;
    pthread_t threads[DDOQ_MAX_THREADS];
    pthread_mutex_t lock;    /* guards the fields below */
    pthread_cond_t finished; /* signalled when running falls to 0 */
    size_t running;
    enum ddoq_status status; /* of the first failure */
    size_t failed;
};

static void fail(struct ddoq_crew *crew, enum ddoq_status status, size_t task)
{
    pthread_mutex_lock(&crew->lock);
    if (crew->status == DDOQ_OK) {
        crew->status = status;
        crew->failed = task;
    }
    pthread_mutex_unlock(&crew->lock);
    atomic_store_explicit(&crew->stop, true, memory_order_relaxed);
}

bool ddoq_poll_is_due(struct timespec *last)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if ((int64_t)(now.tv_sec - last->tv_sec) * 1000000000 + (now.tv_nsec - last->tv_nsec) < DDOQ_POLL_NANOSECONDS)
        return false;
    *last = now;
    return true;
}

bool ddoq_ask_to_stop(const struct ddoq_poll *poll, size_t done, bool *is_child)
{
    pid_t process = getpid();
    bool stop = poll->call && poll->call(poll->context, done);
    *is_child = getpid() != process;
    return stop || *is_child;
}

/* It is never polled again after a failure: the first poll that fails has left an exception, with which no Python code
 * may run. */
static void poll_caller(struct ddoq_crew *crew)
{
    bool is_child;
    if (atomic_load_explicit(&crew->stop, memory_order_relaxed) ||
        !ddoq_ask_to_stop(crew->poll, atomic_load(&crew->done), &is_child))
        return;
    if (is_child) { /* it has no workers, and one of them may have held the lock */
        pthread_mutex_init(&crew->lock, NULL);
        crew->n_threads = crew->running = 0;
    }
    fail(crew, DDOQ_INTERRUPTED, 0);
}

int ddoq_stopped(struct ddoq_crew *crew)
{
    if (crew->poll->call && pthread_equal(pthread_self(), crew->caller) && ddoq_poll_is_due(&crew->last_poll))
        poll_caller(crew);
    return atomic_load_explicit(&crew->stop, memory_order_relaxed);
}

static void work(struct ddoq_crew *crew)
{
    while (!ddoq_stopped(crew)) {
        size_t task = atomic_fetch_add(&crew->next, 1);
        if (task >= crew->n_tasks)
            return;
        enum ddoq_status status = crew->task(crew->context, task, crew);
        if (status == DDOQ_OK)
            atomic_fetch_add(&crew->done, 1);
        else
            fail(crew, status, task);
    }
}

static void *worker(void *argument)
{
    struct ddoq_crew *crew = argument;
    work(crew);
    pthread_mutex_lock(&crew->lock);
    if (--crew->running == 0)
        pthread_cond_signal(&crew->finished);
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

/* Starts up to n threads, with all signals blocked in them. */
static void start_threads(struct ddoq_crew *crew, size_t n)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; crew->n_threads < n; crew->n_threads++) {
        pthread_mutex_lock(&crew->lock);
        crew->running++;
        pthread_mutex_unlock(&crew->lock);
        if (pthread_create(&crew->threads[crew->n_threads], NULL, worker, crew)) {
            pthread_mutex_lock(&crew->lock);
            crew->running--;
            pthread_mutex_unlock(&crew->lock);
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void wait_and_poll(struct ddoq_crew *crew)
{
    struct timespec wake;
    clock_gettime(CLOCK_MONOTONIC, &wake);
    pthread_mutex_lock(&crew->lock);
    while (crew->running > 0) {
        wake.tv_nsec += DDOQ_POLL_NANOSECONDS;
        if (wake.tv_nsec >= 1000000000) {
            wake.tv_nsec -= 1000000000;
            wake.tv_sec++;
        }
        int late = 0;
        while (crew->running > 0 && !late)
            late = pthread_cond_timedwait(&crew->finished, &crew->lock, &wake);
        if (crew->running == 0)
            break;
        pthread_mutex_unlock(&crew->lock);
        poll_caller(crew);
        clock_gettime(CLOCK_MONOTONIC, &wake);
        pthread_mutex_lock(&crew->lock);
    }
    pthread_mutex_unlock(&crew->lock);
}

/* Ends the threads, also where the calling thread ends in its poll: they work on what lies on its stack. */
static void join_threads(void *argument)
{
    struct ddoq_crew *crew = argument;
    atomic_store_explicit(&crew->stop, true, memory_order_relaxed);
    for (size_t i = 0; i < crew->n_threads; i++)
        pthread_join(crew->threads[i], NULL);
}

enum ddoq_status ddoq_run_tasks(size_t n_tasks, const struct ddoq_run *run, ddoq_task task, void *context,
                                size_t *failed)
{
    struct ddoq_crew crew = {
        .task = task,
        .context = context,
        .n_tasks = n_tasks,
        .poll = &run->poll,
        .caller = pthread_self(),
        .status = DDOQ_OK,
    };
    pthread_condattr_t monotonic;
    size_t most = run->n_threads < DDOQ_MAX_THREADS ? run->n_threads : DDOQ_MAX_THREADS,
           n = n_tasks < most ? n_tasks : most;

    pthread_mutex_init(&crew.lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&crew.finished, &monotonic);
    pthread_condattr_destroy(&monotonic);
    clock_gettime(CLOCK_MONOTONIC, &crew.last_poll);

    start_threads(&crew, n < 1 ? 0 : n - 1);
    pthread_cleanup_push(join_threads, &crew);
    work(&crew);
    wait_and_poll(&crew);
    pthread_cleanup_pop(1);
    pthread_cond_destroy(&crew.finished);
    pthread_mutex_destroy(&crew.lock);
    *failed = crew.failed;
    return crew.status;
}
