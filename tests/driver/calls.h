/* Random problems for every entry point of ddoq.h. A call is one problem: what it reads, which lies in memory of
 * exactly its size, and the sizes of what it writes. To add an entry point: a make_ function, in the table `makers`. */
#ifndef DDOQ_TESTS_CALLS_H
#define DDOQ_TESTS_CALLS_H

#include <stdbool.h>

#include "ddoq.h"

enum { MAX_OUTPUTS = 7, MAX_INPUTS = 16 };

struct call {
    char name[96];
    enum ddoq_status (*run)(const struct ddoq_run *run, const struct call *call, void *const *out);
    /* Takes what an interrupted run has left to its end, which DDOQ_OK says; NULL: such outputs are not defined. */
    enum ddoq_status (*resume)(const struct ddoq_run *run, const struct call *call, void *const *out);
    enum ddoq_status expected;
    size_t n_outputs, bytes[MAX_OUTPUTS];
    const void *initial[MAX_OUTPUTS]; /* of outputs that are inputs too; NULL elsewhere */
    size_t n_inputs;
    void *inputs[MAX_INPUTS]; /* owned */
    /* What the entry points read. */
    enum ddoq_type type;
    const void *X, *points;
    size_t n, d, k;
    struct ddoq_quantize_args quantize;
    struct ddoq_loss_args loss;
    struct ddoq_clvq_args clvq;
};

extern void (*const makers[])(struct call *call);
extern const size_t n_makers;

void free_call(struct call *call);

/* Random numbers of the one stream that a seed starts: 0..n-1. */
void seed_random(uint64_t seed);
uint64_t below(uint64_t n);

#endif
