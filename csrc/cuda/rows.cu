/* Kernels over the samples' rows. */
#include <stdint.h>

/* out (n, bytes) = the rows of x, of so many bytes each, whose numbers are in index (n). One block a row. */
__global__ void gather_rows(const char *x, const int64_t *index, size_t words, char *out)
{
    const uint16_t *from = (const uint16_t *)x + (size_t)index[blockIdx.x] * words;
    uint16_t *to = (uint16_t *)out + blockIdx.x * words;
    for (size_t i = threadIdx.x; i < words; i += blockDim.x)
        to[i] = from[i];
}
