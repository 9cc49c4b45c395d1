#include "faults.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

static atomic_long allocations_left, threads_left, live;
static atomic_bool failed;
static _Thread_local uint64_t jumps;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *memory);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __real_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *until);

void fail_allocation(long i)
{
    atomic_store(&failed, false);
    atomic_store(&allocations_left, i);
}

void fail_thread(long i)
{
    atomic_store(&failed, false);
    atomic_store(&threads_left, i);
}

bool has_failed(void)
{
    return atomic_load(&failed);
}

long count_allocations(void)
{
    return atomic_load(&live);
}

void jump_clock(uint64_t seed)
{
    jumps = seed;
}

/* Whether the clock jumps this time: one in four. */
static bool jump(void)
{
    if (!jumps)
        return false;
    jumps = jumps * UINT64_C(6364136223846793005) + 1442695040888963407;
    return jumps >> 62 == 0;
}

static bool allocation_fails(void)
{
    if (atomic_load(&allocations_left) <= 0 || atomic_fetch_sub(&allocations_left, 1) != 1)
        return false;
    atomic_store(&failed, true);
    return true;
}

static void *counted(void *memory)
{
    if (memory)
        atomic_fetch_add(&live, 1);
    return memory;
}

void *__wrap_malloc(size_t size)
{
    return allocation_fails() ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t n, size_t size)
{
    return allocation_fails() ? NULL : counted(__real_calloc(n, size));
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return allocation_fails() ? NULL : counted(__real_aligned_alloc(alignment, size));
}

void __wrap_free(void *memory)
{
    if (memory)
        atomic_fetch_sub(&live, 1);
    __real_free(memory);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    long left = atomic_load(&threads_left);
    if (left == 1)
        atomic_store(&failed, true);
    else if (left > 1)
        atomic_store(&threads_left, left - 1);
    return left == 1 ? EAGAIN : __real_pthread_create(thread, attributes, start, argument);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    static _Thread_local time_t ahead;
    int result = __real_clock_gettime(clock, now);
    ahead += jump();
    now->tv_sec += ahead;
    return result;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *until)
{
    return jump() ? ETIMEDOUT : __real_pthread_cond_timedwait(condition, lock, until);
}
