/* The greatest absolute value of a matrix: whether all of it is finite, in one pass at the speed of memory. */
#include <stdatomic.h>
#include <string.h>

#include "cpu/panels.h"
#include "cpu/parallel.h"

#define BLOCK_BYTES ((size_t)1 << 18) /* of a task: tens of microseconds at the speed of memory */

struct search {
    struct ddoq_rows x;
    uint64_t (*magnitude)(size_t n, const void *x);
    size_t rows; /* in one block */
    atomic_ullong most;
};

static enum ddoq_status search_block(void *context, size_t block, struct ddoq_crew *crew)
{
    (void)crew;
    struct search *m = context;
    const struct ddoq_rows *x = &m->x;
    size_t begin = block * m->rows, n = ddoq_smaller(m->rows, x->n - begin) * x->d;
    unsigned long long found = m->magnitude(n, ddoq_row(x, begin)), most = atomic_load(&m->most);
    while (found > most && !atomic_compare_exchange_weak(&m->most, &most, found))
        continue;
    return DDOQ_OK;
}

enum ddoq_status ddoq_largest(const struct ddoq_run *run, enum ddoq_type type, const void *X, size_t n, size_t d,
                              double *largest)
{
    struct search m = {.x = ddoq_rows_of(run->isa, type, X, n, d)};
    size_t bytes = d * ddoq_item(&m.x), failed;
    m.magnitude = m.x.widen ? run->isa->half.magnitude : m.x.kernels->vector.magnitude;
    m.rows = bytes < BLOCK_BYTES && bytes > 0 ? BLOCK_BYTES / bytes : 1;
    size_t blocks = bytes > 0 ? n / m.rows + (n % m.rows != 0) : 0; /* there may be 2^60 rows of nothing */
    enum ddoq_status status = ddoq_run_tasks(blocks, run, search_block, &m, &failed);
    uint64_t bits = atomic_load(&m.most);
    if (m.x.widen) {
        uint16_t half = (uint16_t)bits;
        float value;
        m.x.widen(1, &half, &value);
        *largest = (double)value;
    } else if (type == DDOQ_FLOAT32) {
        uint32_t low = (uint32_t)bits;
        float value;
        memcpy(&value, &low, sizeof value);
        *largest = (double)value;
    } else {
        memcpy(largest, &bits, sizeof bits);
    }
    return status;
}
