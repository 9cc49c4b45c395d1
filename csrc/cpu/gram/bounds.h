/* Bounds of distances that the products of a polish leave for the final assignment (bounds.c). */
#ifndef DDOQ_CPU_GRAM_BOUNDS_H
#define DDOQ_CPU_GRAM_BOUNDS_H

#include "cpu/gram/class.h"

/* Called before the first pass, with the squared norm of the mean of the samples. */
void ddoq_reset_bounds(struct ddoq_class *class, double square);

/* Called before every pass. */
void ddoq_begin_bounds(struct ddoq_class *class);

/* Keeps those of sample i, from its products (k) with the points and its squared norm, before samples of its block
 * move.
 */
void ddoq_keep_bounds(struct ddoq_class *class, size_t i, const double *product, double norm);

/* Called when sample i is about to enter cell j (w > 0) or to leave it (w < 0). */
void ddoq_foresee_move(struct ddoq_class *class, size_t i, size_t j, double w, double norm);

/* Called after the moves of a block; returns whether the point of cell j changes. */
bool ddoq_point_moves(struct ddoq_class *class, size_t j);

/* Called after the points of a block have moved. */
void ddoq_end_block(struct ddoq_class *class, size_t block);

/* kept_label and the fit's dist2 = the nearest of the points (k, d), which are the means of the cells, and the squared
 * distance to it, for every sample. */
enum ddoq_status ddoq_assign_by_bounds(struct ddoq_class *class, const char *points);

#endif
