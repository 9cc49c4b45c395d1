/* Blocks whose threads are fibers, and votes and exchanges among them. $EMULATOR_ORDER: 0 the threads in their order, 1
 * backwards, any other number a shuffle of each round by that seed. */
#include "emulator.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <random>
#include <vector>

namespace emulator
{
unsigned thread, block, threads, width, blocks;
double *dynamic_shared;

namespace
{
const size_t STACK = 256 << 10, SHARED = 48 << 10;

struct Fiber {
    jmp_buf here;
    std::vector<char> stack;
    ucontext_t first;
    bool started, done;
    unsigned round; /* of its warp's exchanges */
};

struct Barrier {
    unsigned arrived = 0, generation = 0;
};

std::vector<Fiber> fibers;
Barrier of_block, of_warp[32];
double given[32][2][32];
int votes[2];
unsigned vote_round[1024], progress;
jmp_buf scheduler;
const std::function<void()> *body;
std::mutex one_launch;

void finish_and_leave()
{
    (*body)();
    fibers[thread].done = true;
    progress++;
    _longjmp(scheduler, 1);
}

void yield()
{
    if (_setjmp(fibers[thread].here) == 0)
        _longjmp(scheduler, 1);
}

void wait(Barrier &barrier, unsigned members)
{
    unsigned generation = barrier.generation;
    progress++;
    if (++barrier.arrived == members) {
        barrier.arrived = 0;
        barrier.generation++;
        return;
    }
    while (barrier.generation == generation)
        yield();
    progress++;
}

unsigned living(unsigned first, unsigned last)
{
    unsigned count = 0;
    for (unsigned i = first; i < last; i++)
        count += !fibers[i].done;
    return count;
}

/* Fibers that have ended count as arrived, as threads do. */
void release(Barrier &barrier, unsigned first, unsigned last)
{
    if (barrier.arrived > 0 && barrier.arrived >= living(first, last)) {
        barrier.arrived = 0;
        barrier.generation++;
        progress++;
    }
}

void resume(unsigned which)
{
    thread = which;
    if (_setjmp(scheduler) != 0)
        return;
    if (fibers[which].started)
        _longjmp(fibers[which].here, 1);
    fibers[which].started = true;
    setcontext(&fibers[which].first);
}

void run_block(std::vector<unsigned> &order, std::mt19937 *shuffle)
{
    for (unsigned i = 0; i < threads; i++) {
        Fiber &fiber = fibers[i];
        fiber.started = fiber.done = false;
        fiber.round = vote_round[i] = 0;
        getcontext(&fiber.first);
        fiber.first.uc_stack.ss_sp = fiber.stack.data();
        fiber.first.uc_stack.ss_size = STACK;
        fiber.first.uc_link = nullptr;
        makecontext(&fiber.first, finish_and_leave, 0);
    }
    while (living(0, threads) > 0) {
        unsigned before = progress;
        if (shuffle)
            std::shuffle(order.begin(), order.end(), *shuffle);
        for (unsigned i : order)
            if (!fibers[i].done)
                resume(i);
        release(of_block, 0, threads);
        for (unsigned warp = 0; warp < threads / 32; warp++)
            release(of_warp[warp], warp * 32, warp * 32 + 32);
        if (progress == before) {
            fprintf(stderr, "emulator: the threads of block %u wait for each other\n", block);
            abort();
        }
    }
}
} // namespace

void barrier_block()
{
    wait(of_block, living(0, threads));
}

void barrier_warp()
{
    unsigned warp = thread / 32;
    wait(of_warp[warp], living(warp * 32, warp * 32 + 32));
}

const double *exchange(double value)
{
    double *slot = given[thread / 32][fibers[thread].round++ % 2];
    slot[thread % 32] = value;
    barrier_warp();
    return slot;
}

int vote(int value)
{
    int &sum = votes[vote_round[thread]++ % 2];
    sum += value != 0;
    barrier_block();
    int result = sum;
    barrier_block();
    sum = 0;
    barrier_block();
    return result;
}

/* Ends where the memory of the process does. */
static double *take_shared(size_t bytes)
{
    static char *memory;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), before = (SHARED + page - 1) / page * page;
    if (!memory) {
        memory = (char *)mmap(nullptr, before + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory + before, page, PROT_NONE))
            abort();
    }
    return (double *)(memory + before - (bytes + 15) / 16 * 16);
}

bool launch(dim3 grid, dim3 block_size, size_t shared_bytes, const std::function<void()> &kernel)
{
    const unsigned block_threads = block_size.x * block_size.y;
    std::lock_guard<std::mutex> guard(one_launch);
    if (grid.x == 0 || block_threads % 32 != 0 || shared_bytes > SHARED - 8192)
        return false;
    const char *chosen = getenv("EMULATOR_ORDER");
    unsigned order_of = chosen ? (unsigned)atoi(chosen) : 0;
    std::mt19937 random(order_of);
    std::vector<unsigned> order(block_threads);
    threads = block_threads;
    dynamic_shared = take_shared(shared_bytes);
    width = block_size.x;
    blocks = grid.x;
    fibers.resize(threads);
    for (unsigned i = 0; i < threads; i++) {
        order[i] = order_of == 1 ? threads - 1 - i : i;
        fibers[i].stack.resize(STACK);
    }
    body = &kernel;
    for (block = 0; block < blocks; block++) {
        memset(dynamic_shared, 0xff, shared_bytes);
        run_block(order, order_of > 1 ? &random : nullptr);
    }
    return true;
}
} // namespace emulator
