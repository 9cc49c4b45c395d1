/* A random problem: what a call reads, which lies in memory of exactly its size, and the sizes of what it writes; and
 * the numbers, sizes and arrays that problems are made of. */
#ifndef DDOQ_TESTS_PROBLEM_H
#define DDOQ_TESTS_PROBLEM_H

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

/* Random numbers of the one stream that a seed starts: of 0..n-1, and of [0, 1). */
void seed_random(uint64_t seed);
uint64_t below(uint64_t n);
double uniform(void);

/* A number of 1..most round the sizes of vectors, panels and blocks, or any. */
size_t odd_size(size_t most);

size_t item_of(enum ddoq_type type);
const char *type_name(enum ddoq_type type);
/* What the core computes in. */
enum ddoq_type real_of(enum ddoq_type type);

/* Memory for n items that the call reads and owns. */
void *input(struct call *call, size_t n, size_t item);
/* The next of what it writes: n items, which are initial's before, or not defined. */
void output(struct call *call, size_t n, size_t item, const void *initial);
void free_call(struct call *call);

/* An input of numbers in low..high; half of the time from a few steps, so that there are ties and duplicates. */
void *reals(struct call *call, enum ddoq_type type, size_t n, double low, double high);
double *doubles(struct call *call, size_t n, double low, double high);
/* array[i] = value, in its type. */
void put(enum ddoq_type type, void *array, size_t i, double value);

#endif
