/* The result of a class in Gram form. */
#ifndef DDOQ_CPU_GRAM_RESULT_H
#define DDOQ_CPU_GRAM_RESULT_H

#include "cpu/gram/class.h"

/* Writes the class's outputs from kept_cell and kept_label; after a sketch, labels are those nearest to the means in
 * all features. *empty says that some point would be left without a sample, and then nothing is written. */
enum ddoq_status ddoq_write_result(struct ddoq_class *class, bool *empty);

#endif
