/* Every entry point of ddoq.h, without Python, for the sanitisers: driver ROUNDS SEED.
 *
 * Each round makes one random problem for each entry point (calls.h) and solves it on every instruction set: with 1 to
 * 8 threads (same bits; the same on AVX2 and AVX-512), by several callers at once, and with the faults of faults.h:
 * every allocation fails once, every thread start fails once, polls interrupt at random moments. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "faults.h"

enum { MAX_ISAS = 3, CALLERS = 4, MAX_FAULTS = 60, INTERRUPTS = 6 };

static uint64_t seed;
static size_t n_runs;

static void check(bool holds, const struct call *call, const struct ddoq_run *run, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "seed %llu: %s, %s, %zu threads: %s\n", (unsigned long long)seed, call->name,
            run->isa ? ddoq_isa_name(run->isa) : "-", run->n_threads, what);
    exit(1);
}

/* Outputs of one run. */
struct outputs {
    void *at[MAX_OUTPUTS];
};

static void reset(const struct call *call, struct outputs *out)
{
    for (size_t i = 0; i < call->n_outputs; i++) {
        if (call->bytes[i] == 0)
            continue;
        if (call->initial[i])
            memcpy(out->at[i], call->initial[i], call->bytes[i]);
        else
            memset(out->at[i], 0xab, call->bytes[i]);
    }
}

static struct outputs take(const struct call *call)
{
    struct outputs out = {{NULL}};
    for (size_t i = 0; i < call->n_outputs; i++)
        if (!(out.at[i] = malloc(call->bytes[i])))
            abort();
    return out;
}

static void release(const struct call *call, struct outputs *out)
{
    for (size_t i = 0; i < call->n_outputs; i++)
        free(out->at[i]);
}

static enum ddoq_status solve(const struct call *call, const struct ddoq_run *run, struct outputs *out)
{
    n_runs++;
    reset(call, out);
    return call->run(run, call, out->at);
}

/* Whether both hold the same bits; of a call that fails nothing is promised. */
static bool same(const struct call *call, const struct outputs *a, const struct outputs *b)
{
    for (size_t i = 0; i < call->n_outputs && call->expected == DDOQ_OK; i++)
        if (call->bytes[i] > 0 && memcmp(a->at[i], b->at[i], call->bytes[i]) != 0)
            return false;
    return true;
}

static void check_threads(const struct call *call, const struct ddoq_isa *isa, const struct outputs *expected,
                          struct outputs *out)
{
    for (size_t n = 1; n <= 8; n++) {
        struct ddoq_run run = {.isa = isa, .n_threads = n};
        check(solve(call, &run, out) == call->expected, call, &run, "wrong status");
        check(same(call, out, expected), call, &run, "other bits than with 1 thread");
    }
}

/* Every allocation fails once: DDOQ_NO_MEMORY, or the work of a thread without memory is done by others; nothing is
 * left behind. */
static void check_allocations(const struct call *call, const struct ddoq_isa *isa, const struct outputs *expected,
                              struct outputs *out)
{
    struct ddoq_run run = {.isa = isa, .n_threads = 1 + below(3)};
    for (long i = 1; i < MAX_FAULTS; i++) {
        long before = count_allocations();
        fail_allocation(i);
        enum ddoq_status status = solve(call, &run, out);
        bool failed = has_failed();
        fail_allocation(0);
        check(count_allocations() == before, call, &run, "memory left behind");
        check(status == (failed ? DDOQ_NO_MEMORY : call->expected) || status == call->expected, call, &run,
              "wrong status where memory is short");
        check((failed && status != DDOQ_OK) || same(call, out, expected), call, &run,
              "other bits where memory is short");
        if (!failed)
            return;
    }
}

/* Fewer threads than asked for, down to none. */
static void check_starts(const struct call *call, const struct ddoq_isa *isa, const struct outputs *expected,
                         struct outputs *out)
{
    struct ddoq_run run = {.isa = isa, .n_threads = 4};
    for (long i = 1; i <= 4; i++) {
        fail_thread(i);
        enum ddoq_status status = solve(call, &run, out);
        fail_thread(0);
        check(status == call->expected, call, &run, "wrong status with fewer threads");
        check(same(call, out, expected), call, &run, "other bits with fewer threads");
    }
}

struct stop {
    size_t calls, at; /* the poll that asks to stop */
    size_t done;
    bool is_wrong;
};

static int poll_stop(void *context, size_t done)
{
    struct stop *stop = context;
    stop->is_wrong |= done < stop->done || stop->calls >= stop->at;
    stop->done = done;
    return ++stop->calls == stop->at;
}

/* Polls that stop the work at random moments, or never. */
static void check_polls(const struct call *call, const struct ddoq_isa *isa, const struct outputs *expected,
                        struct outputs *out)
{
    for (size_t i = 0; i < INTERRUPTS; i++) {
        struct stop stop = {.at = 1 + below(UINT64_C(1) << below(10))};
        struct ddoq_run run = {.isa = isa, .n_threads = below(4), .poll = {.call = poll_stop, .context = &stop}};
        long before = count_allocations();
        jump_clock(1 + below(UINT64_MAX));
        enum ddoq_status status = solve(call, &run, out);
        jump_clock(0);
        bool stopped = stop.calls >= stop.at;
        check(count_allocations() == before, call, &run, "memory left behind by an interrupt");
        check(!stop.is_wrong, call, &run, "polled after the stop, or fewer tasks done than before");
        check(status == (stopped ? DDOQ_INTERRUPTED : call->expected) ||
                  (call->expected != DDOQ_OK && status == call->expected),
              call, &run, "wrong status of an interrupt");
        run.poll = (struct ddoq_poll){0};
        if (stopped && call->resume)
            check(call->resume(&run, call, out->at) == DDOQ_OK, call, &run, "not taken to the end when resumed");
        if (!stopped)
            check(same(call, out, expected), call, &run, "other bits after polls");
    }
}

struct caller {
    const struct call *call;
    struct ddoq_run run;
    struct outputs out;
    enum ddoq_status status;
};

static void *call_core(void *argument)
{
    struct caller *caller = argument;
    caller->status = caller->call->run(&caller->run, caller->call, caller->out.at);
    return NULL;
}

/* The same inputs on several threads at once, each on another instruction set. */
static void check_callers(const struct call *call, const struct outputs *expected, size_t n_isas)
{
    struct caller callers[CALLERS];
    pthread_t threads[CALLERS];
    for (size_t i = 0; i < CALLERS; i++) {
        struct ddoq_run run = {.isa = ddoq_isa_at(i % n_isas), .n_threads = 1 + i};
        callers[i] = (struct caller){.call = call, .run = run, .out = take(call)};
        reset(call, &callers[i].out);
        if (pthread_create(&threads[i], NULL, call_core, &callers[i]))
            abort();
    }
    for (size_t i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        check(callers[i].status == call->expected, call, &callers[i].run, "wrong status beside other callers");
        check(same(call, &callers[i].out, &expected[i % n_isas]), call, &callers[i].run, "other bits beside others");
        release(call, &callers[i].out);
    }
}

static void check_call(const struct call *call)
{
    struct outputs expected[MAX_ISAS], out = take(call);
    size_t n_isas = 0;
    for (const struct ddoq_isa *isa; (isa = ddoq_isa_at(n_isas)); n_isas++) {
        const struct ddoq_run run = {.isa = isa, .n_threads = 1};
        expected[n_isas] = take(call);
        check(solve(call, &run, &expected[n_isas]) == call->expected, call, &run, "wrong status");
        if (n_isas == 2) /* both of x86-64 with fused multiply-adds */
            check(same(call, &expected[1], &expected[2]), call, &run, "other bits than AVX2");
        check_threads(call, isa, &expected[n_isas], &out);
        check_allocations(call, isa, &expected[n_isas], &out);
        check_starts(call, isa, &expected[n_isas], &out);
        check_polls(call, isa, &expected[n_isas], &out);
    }
    check_callers(call, expected, n_isas);
    for (size_t i = 0; i < n_isas; i++)
        release(call, &expected[i]);
    release(call, &out);
}

/* Sizes whose product no memory can hold: refused before anything is read. */
static void check_huge_sizes(void)
{
    const struct ddoq_run run = {.isa = ddoq_isa_at(0), .n_threads = 1};
    const struct call call = {.name = "huge sizes"};
    const size_t huge = SIZE_MAX / 4;
    double real[2] = {0}, loss;
    int64_t index[2] = {0}, starts[1] = {1}, offsets[2] = {0, INT64_C(1) << 40}, points[2] = {0, 1};
    uint8_t plain = 0;
    size_t failed;
    const struct ddoq_loss_args rows = {.n_rows = huge, .n_classes = 1, .logits = real, .weight = real, .loss = &loss};
    const struct ddoq_loss_args columns = {
        .n_rows = 1, .n_classes = huge, .logits = real, .weight = real, .loss = &loss};
    const struct ddoq_quantize_args rowful = {.X = real,
                                              .d = 1,
                                              .n_classes = 1,
                                              .rows = index,
                                              .row_offsets = offsets,
                                              .point_offsets = points,
                                              .n_init = 1,
                                              .n_starts = starts,
                                              .forms = &plain};
    const struct ddoq_quantize_args classes = {.X = real, .d = 1, .n_classes = huge};
    check(ddoq_gram(&run, DDOQ_FLOAT64, real, huge, 1, real) == DDOQ_NO_MEMORY, &call, &run, "gram");
    check(ddoq_assign(&run, DDOQ_FLOAT64, real, huge, real, huge / 64, 64, index, real) == DDOQ_NO_MEMORY, &call, &run,
          "assign");
    check(ddoq_weighted_loss(&run, &rows) == DDOQ_NO_MEMORY, &call, &run, "loss of many rows");
    check(ddoq_weighted_loss(&run, &columns) == DDOQ_NO_MEMORY, &call, &run, "loss of many classes");
    check(ddoq_quantize_classes(&run, &rowful, &failed) == DDOQ_NO_MEMORY, &call, &run, "a class of many rows");
    check(ddoq_quantize_classes(&run, &classes, &failed) == DDOQ_NO_MEMORY, &call, &run, "many classes");
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "driver ROUNDS SEED\n");
        return 2;
    }
    unsigned long long rounds = strtoull(argv[1], NULL, 10), first = strtoull(argv[2], NULL, 10);
    ddoq_load_isas();
    check_huge_sizes();
    for (seed = first; seed < first + rounds; seed++) {
        seed_random(seed);
        for (size_t i = 0; i < n_makers; i++) {
            struct call call = {.expected = DDOQ_OK};
            makers[i](&call);
            check_call(&call);
            free_call(&call);
        }
    }
    printf("%llu problems, %zu runs\n", rounds * n_makers, n_runs);
    return count_allocations() != 0;
}
