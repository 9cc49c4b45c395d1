/* A draw is the first index whose cumulative sum exceeds u * total, so that a sample at distance zero is never drawn
 * while another is left. Where all distances are zero, the lowest index that is not a seed yet is taken. */
#include "cpu/draws.h"

#include <stdbool.h>

double ddoq_accumulate(size_t n, const double *w, const double *value, double *cumulative)
{
    double total = 0;
    for (size_t i = 0; i < n; i++)
        cumulative[i] = total += value ? w[i] * value[i] : w[i];
    return total;
}

size_t ddoq_draw(size_t n, const double *cumulative, double u)
{
    double threshold = u * cumulative[n - 1];
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (cumulative[middle] > threshold)
            high = middle;
        else
            low = middle + 1;
    }
    if (low == n)
        for (low = n - 1; low > 0 && cumulative[low] == cumulative[low - 1];)
            low--;
    return low;
}

size_t ddoq_first_free(size_t n, const int64_t *seeds, size_t n_seeds)
{
    for (size_t i = 0; i < n; i++) {
        bool taken = false;
        for (size_t j = 0; j < n_seeds && !taken; j++)
            taken = seeds[j] == (int64_t)i;
        if (!taken)
            return i;
    }
    return 0;
}
