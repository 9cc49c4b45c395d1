/* G = (X - shift)(X - shift)^T for chosen rows of X. */
#ifndef DDOQ_CPU_GRAM_GRAM_H
#define DDOQ_CPU_GRAM_GRAM_H

#include "cpu/panels.h"
#include "cpu/parallel.h"

/* Writes gram (n, n), which is real as shift (d) is. */
enum ddoq_status ddoq_gram_rows(const struct ddoq_rows *x, const void *shift, void *gram, struct ddoq_crew *crew);

/* Returns the bytes that ddoq_gram_rows takes for n rows of d features while it works, at most. */
static inline double ddoq_gram_scratch(size_t n, size_t d, size_t item)
{
    return (double)(n + DDOQ_MAX_PANEL_WIDTH) * (double)ddoq_smaller(d, DDOQ_DEPTH) * (double)item;
}

#endif
