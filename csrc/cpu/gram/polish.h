/* Single-point moves of all samples in all features, after the fit of a sketch. */
#ifndef DDOQ_CPU_GRAM_POLISH_H
#define DDOQ_CPU_GRAM_POLISH_H

#include "cpu/gram/class.h"

/* kept_cell, which is -1 for the samples outside the sketch, becomes the partition after the moves; the sums of the
 * moves, and the fit's mass and count, become that partition's. */
enum ddoq_status ddoq_polish(struct ddoq_class *class);

#endif
