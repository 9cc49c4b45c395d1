/* G = (X - shift)(X - shift)^T for chosen rows of X. */
#ifndef DDOQ_CPU_GRAM_GRAM_H
#define DDOQ_CPU_GRAM_GRAM_H

#include "cpu/panels.h"
#include "cpu/parallel.h"

/* gram (n, n), shift (d), both real. */
enum ddoq_status ddoq_gram_rows(const struct ddoq_rows *x, const void *shift, void *gram, struct ddoq_crew *crew);

#endif
