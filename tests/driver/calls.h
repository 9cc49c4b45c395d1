/* Random problems for every entry point of ddoq.h. To add an entry point: a make_ function, in the table `makers`. */
#ifndef DDOQ_TESTS_CALLS_H
#define DDOQ_TESTS_CALLS_H

#include "problem.h"

extern void (*const makers[])(struct call *call);
extern const size_t n_makers;

#endif
