/* Single-point moves in Gram form. */
#ifndef DDOQ_CPU_GRAM_HARTIGAN_H
#define DDOQ_CPU_GRAM_HARTIGAN_H

#include "cpu/gram/fit.h"

/* Moves samples from the assignment in label, after which label and cell are equal. */
enum ddoq_status ddoq_hartigan(struct ddoq_fit *fit);

#endif
