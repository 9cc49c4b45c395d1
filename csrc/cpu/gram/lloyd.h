/* Lloyd's iterations in Gram form. */
#ifndef DDOQ_CPU_GRAM_LLOYD_H
#define DDOQ_CPU_GRAM_LLOYD_H

#include "cpu/gram/fit.h"

/* Iterates from the first assignment in label and dist2 until it equals the partition, and sets everything but the
 * scratch. Where max_iter stops it, cell is the partition whose means are the points, and label the assignment to
 * them. */
enum ddoq_status ddoq_lloyd(struct ddoq_fit *fit, size_t max_iter);

/* The partition becomes label's, empty cells and all. */
enum ddoq_status ddoq_adopt_labels(struct ddoq_fit *fit);

/* Makes squares, scale and offset those of the partition, from sums. */
void ddoq_update_points(struct ddoq_fit *fit);

#endif
