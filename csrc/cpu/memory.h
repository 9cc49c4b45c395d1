/* Allocation with checked sizes: aligned for any vector, not initialised, NULL when the product overflows or memory is
 * short; free() frees. Big arrays ask for huge pages: faulting in a Gram matrix of 6,000 samples by small ones takes
 * longer than its product. */
#ifndef DDOQ_CPU_MEMORY_H
#define DDOQ_CPU_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cpu/kernels/table.h"

#define DDOQ_HUGE_PAGE ((size_t)1 << 21)

static inline void *ddoq_allocate(size_t rows, size_t cols, size_t item)
{
    size_t bytes;
    if (__builtin_mul_overflow(rows, cols, &bytes) || __builtin_mul_overflow(bytes, item, &bytes) ||
        bytes > PTRDIFF_MAX - DDOQ_HUGE_PAGE)
        return NULL;
    size_t unit = bytes < 2 * DDOQ_HUGE_PAGE ? DDOQ_CACHE_LINE : DDOQ_HUGE_PAGE;
    bytes = bytes / unit * unit + unit;
    void *memory = aligned_alloc(unit, bytes);
#if defined(MADV_HUGEPAGE)
    if (memory && unit == DDOQ_HUGE_PAGE)
        madvise(memory, bytes, MADV_HUGEPAGE); /* a hint: failure changes nothing */
#endif
    return memory;
}

/* Arrays that are released together; is_short: one of them could not be had, for want of memory or of a place here. */
struct ddoq_memory {
    void *arrays[40];
    size_t n;
    bool is_short;
};

static inline void *ddoq_take(struct ddoq_memory *memory, size_t rows, size_t cols, size_t item)
{
    bool full = memory->n == sizeof memory->arrays / sizeof *memory->arrays;
    void *array = full || memory->is_short ? NULL : ddoq_allocate(rows, cols, item);
    if (array)
        memory->arrays[memory->n++] = array;
    else
        memory->is_short = true;
    return array;
}

static inline void ddoq_release(struct ddoq_memory *memory)
{
    while (memory->n > 0)
        free(memory->arrays[--memory->n]);
}

#endif
