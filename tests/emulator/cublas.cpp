/* As much of cuBLAS as ddoq calls, on the CPU. */
#include <stdlib.h>

#include <vector>

#include <library_types.h>

#include "emulator.h"

extern "C" {

int cublasCreate_v2(void **handle)
{
    *handle = malloc(1);
    return 0;
}

int cublasDestroy_v2(void *handle)
{
    free(handle);
    return 0;
}

int cublasGetVersion_v2(void *, int *version)
{
    *version = 130000;
    return 0;
}

int cublasSetStream_v2(void *, cudaStream_t)
{
    return 0;
}

int cublasSetWorkspace_v2(void *, void *, size_t)
{
    return 0;
}

const char *cublasGetStatusString(int)
{
    return "emulated failure";
}
}

static float element(const void *matrix, cudaDataType type, size_t at)
{
    unsigned short bits;
    if (type == CUDA_R_32F)
        return ((const float *)matrix)[at];
    memcpy(&bits, (const unsigned short *)matrix + at, sizeof bits);
    return type == CUDA_R_16F ? emulator::widen_float16(bits) : __uint_as_float((unsigned)bits << 16);
}

/* op(a) is transposed and op(b) is not, as ddoq calls it. Products in float, summed in the order of the features. */
extern "C" int cublasGemmEx(void *, int op_a, int op_b, int m, int n, int k, const void *, const void *a,
                            cudaDataType type_a, int lda, const void *b, cudaDataType type_b, int ldb, const void *,
                            void *c, cudaDataType type_c, int ldc, int compute, int)
{
    if (op_a != 1 || op_b != 0 || type_c != CUDA_R_32F || compute != 68 || lda < k || ldb < k || ldc < m)
        return 7; /* CUBLAS_STATUS_INVALID_VALUE */
    if (getenv("EMULATOR_NO_PRODUCT"))
        return 13; /* CUBLAS_STATUS_EXECUTION_FAILED */
    std::vector<float> left((size_t)m * (size_t)k), right((size_t)n * (size_t)k);
    for (size_t i = 0; i < (size_t)m; i++)
        for (size_t p = 0; p < (size_t)k; p++)
            left[i * (size_t)k + p] = element(a, type_a, i * (size_t)lda + p);
    for (size_t j = 0; j < (size_t)n; j++)
        for (size_t p = 0; p < (size_t)k; p++)
            right[j * (size_t)k + p] = element(b, type_b, j * (size_t)ldb + p);
    for (size_t j = 0; j < (size_t)n; j++) {
        for (size_t i = 0; i < (size_t)m; i++) {
            float sum = 0;
            for (size_t p = 0; p < (size_t)k; p++)
                sum += left[i * (size_t)k + p] * right[j * (size_t)k + p];
            ((float *)c)[j * (size_t)ldc + i] = sum;
        }
    }
    return 0;
}
