/* GF/s of fused multiply-adds in registers on the calling thread: what no product can exceed. VECTOR_BYTES by -D. */
#include <stdint.h>
#include <time.h>

#define ACCUMULATORS (VECTOR_BYTES == 64 ? 24 : 12)
#define STEPS 4000000

typedef float vector __attribute__((vector_size(VECTOR_BYTES)));

double peak(float seed)
{
    vector sum[ACCUMULATORS], a = (vector){0} + 0.999f, b = (vector){0} + seed;
    struct timespec begin, end;
    for (int i = 0; i < ACCUMULATORS; i++)
        sum[i] = b * (float)i;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int64_t step = 0; step < STEPS; step++) {
#pragma GCC unroll 24
        for (int i = 0; i < ACCUMULATORS; i++)
            sum[i] = sum[i] * a + b;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
    volatile float used = 0; /* or the loop would be removed */
    for (int i = 0; i < ACCUMULATORS; i++)
        used += sum[i][0];
    return 2.0 * STEPS * ACCUMULATORS * (VECTOR_BYTES / sizeof(float)) / seconds / 1e9;
}
