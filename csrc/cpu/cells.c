#include "cpu/cells.h"

#include <string.h>

#include "classes.h"

void ddoq_count_cells(size_t n, const int64_t *cell, size_t k, int64_t *count)
{
    memset(count, 0, k * sizeof *count);
    for (size_t i = 0; i < n; i++)
        count[cell[i]]++;
}

size_t ddoq_farthest(size_t n, const double *dist2, const int64_t *cell, const int64_t *count)
{
    size_t found = n;
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        if (dist2[i] > most && count[cell[i]] > 1) {
            most = dist2[i];
            found = i;
        }
    }
    return found;
}

double ddoq_sum_of_squares(size_t n, const double *w, const double *dist2)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += w[i] * dist2[i];
    return sum;
}

void ddoq_write_cells(const struct ddoq_quantize_args *args, size_t c, const int64_t *label, const double *w,
                      const double *dist2)
{
    size_t n = ddoq_class_size(args, c), k = ddoq_class_points(args, c);
    double *weights = args->weights + args->point_offsets[c], total = 0;
    memcpy(args->labels + args->row_offsets[c], label, n * sizeof *label);
    ddoq_count_cells(n, label, k, args->counts + args->point_offsets[c]);
    memset(weights, 0, k * sizeof *weights);
    for (size_t i = 0; i < n; i++) {
        weights[label[i]] += w[i];
        total += w[i];
    }
    for (size_t j = 0; j < k; j++)
        weights[j] /= total;
    args->distortion[c] = ddoq_sum_of_squares(n, w, dist2) / total;
}
