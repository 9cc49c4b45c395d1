#include "cpu/sums.h"

#include <string.h>

#define FEATURES 2048 /* their sums fit into L1 */
#define POLL_ROWS 64  /* between two looks at the crew: tens of microseconds */

void ddoq_sort_by_cell(size_t n, const int64_t *cell, size_t k, int64_t *order, int64_t *begin)
{
    memset(begin, 0, (k + 1) * sizeof *begin);
    for (size_t i = 0; i < n; i++)
        if (cell[i] >= 0)
            begin[cell[i] + 1]++;
    for (size_t j = 0; j < k; j++)
        begin[j + 1] += begin[j];
    for (size_t i = 0; i < n; i++)
        if (cell[i] >= 0)
            order[begin[cell[i]]++] = (int64_t)i;
    memmove(begin + 1, begin, k * sizeof *begin); /* each is now the next one's */
    begin[0] = 0;
}

enum ddoq_status ddoq_sum_rows(const struct ddoq_rows *x, const double *w, const int64_t *list, size_t n_list,
                               void *widened, double *out, struct ddoq_crew *crew)
{
    size_t item = x->kernels->item;
    for (size_t first = 0; first < x->d; first += FEATURES) {
        size_t depth = ddoq_smaller(FEATURES, x->d - first);
        memset(out + first, 0, depth * sizeof *out);
        for (size_t i = 0; i < n_list; i += DDOQ_SUM_ROWS) {
            const void *rows[DDOQ_SUM_ROWS];
            double weights[DDOQ_SUM_ROWS];
            size_t count = ddoq_smaller(DDOQ_SUM_ROWS, n_list - i);
            if (i % POLL_ROWS == 0 && ddoq_stopped(crew))
                return DDOQ_INTERRUPTED;
            for (size_t r = 0; r < count; r++) {
                size_t row = list ? (size_t)list[i + r] : i + r;
                char *scratch = widened ? (char *)widened + r * depth * item : NULL;
                rows[r] = ddoq_features(x, row, first, depth, scratch);
                weights[r] = w[row];
            }
            x->kernels->vector.add_rows(depth, count, weights, rows, out + first);
        }
    }
    return DDOQ_OK;
}
