/* Allocation with checked sizes: aligned for any vector, not initialised, NULL when the product overflows or memory is
 * short; free() frees. Big arrays ask for huge pages: faulting in a Gram matrix of 6,000 samples by small ones takes
 * longer than its product. */
#ifndef DDOQ_CPU_MEMORY_H
#define DDOQ_CPU_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/kernels/table.h"

#define DDOQ_HUGE_PAGE ((size_t)1 << 21) /* of x86-64, and of AArch64 with pages of 4 KB */
#define DDOQ_MOST_ARRAYS 40              /* of one owner; the longest table has 37 */

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
    void *arrays[DDOQ_MOST_ARRAYS];
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

/* An array to be taken: where its pointer lies, and its sizes. Of no rows the pointer becomes NULL. */
struct ddoq_array {
    void *at;
    size_t rows, cols, item;
};

/* Takes all of a table; false where one of them could not be had. Every pointer is written. */
static inline bool ddoq_take_all(struct ddoq_memory *memory, const struct ddoq_array *arrays, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        void *array = arrays[i].rows ? ddoq_take(memory, arrays[i].rows, arrays[i].cols, arrays[i].item) : NULL;
        memcpy(arrays[i].at, &array, sizeof array); /* whatever it points to */
    }
    return !memory->is_short;
}

static inline double ddoq_bytes_of(const struct ddoq_array *arrays, size_t n)
{
    double bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += (double)arrays[i].rows * (double)arrays[i].cols * (double)arrays[i].item;
    return bytes;
}

static inline void ddoq_release(struct ddoq_memory *memory)
{
    while (memory->n > 0)
        free(memory->arrays[--memory->n]);
}

#endif
