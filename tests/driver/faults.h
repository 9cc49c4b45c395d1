/* Faults between the core and the C library, put there by the linker's --wrap: allocations and thread starts that fail,
 * and a clock that jumps, so that the core polls at random moments instead of every 50 ms. */
#ifndef DDOQ_TESTS_FAULTS_H
#define DDOQ_TESTS_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

/* The i-th allocation from now on fails; 0: none does. */
void fail_allocation(long i);
/* The i-th thread start from now on fails, and all after it; 0: none does. */
void fail_thread(long i);
/* Whether the fault asked for last has happened. */
bool has_failed(void);
/* Allocations that are not freed yet. */
long count_allocations(void);
/* The calling thread's clock jumps at random; seed 0: it does not. */
void jump_clock(uint64_t seed);

#endif
