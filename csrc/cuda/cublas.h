/* cuBLAS as a table of symbols, filled at its first use: no link to it, so that the module imports without it. The
 * functions are those of cublas_api.h of CUDA 12 and 13, which is not needed to build; status 0 is success. */
#ifndef DDOQ_CUDA_CUBLAS_H
#define DDOQ_CUDA_CUBLAS_H

#include "cuda/device.h"

enum { DDOQ_CUBLAS_OP_N, DDOQ_CUBLAS_OP_T };
enum { DDOQ_CUBLAS_COMPUTE_32F = 68, DDOQ_CUBLAS_GEMM_DEFAULT = -1 };

typedef struct cublasContext *ddoq_cublas_handle;

struct ddoq_cublas {
    int (*create)(ddoq_cublas_handle *handle);
    int (*destroy)(ddoq_cublas_handle handle);
    int (*version)(ddoq_cublas_handle handle, int *version);
    int (*set_stream)(ddoq_cublas_handle handle, cudaStream_t stream);
    int (*set_workspace)(ddoq_cublas_handle handle, void *workspace, size_t bytes);
    /* c = alpha op(a) op(b) + beta c, column-major. */
    int (*gemm)(ddoq_cublas_handle handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a,
                cudaDataType type_a, int lda, const void *b, cudaDataType type_b, int ldb, const void *beta, void *c,
                cudaDataType type_c, int ldc, int compute, int algorithm);
    const char *(*status_name)(int status);
};

/* Loads cuBLAS, unless that is done: what the process has loaded already, else the first of the paths that will do,
 * else what the system's loader finds. 0, or -1 with what each attempt said. Once loaded it stays. */
int ddoq_cublas_load(const char *const *paths, size_t n_paths, struct ddoq_cuda_error *error);

/* NULL where it is not loaded. */
const struct ddoq_cublas *ddoq_cublas_loaded(void);

/* Records a failed call of cuBLAS; 0 where it did not fail. */
int ddoq_cublas_check(struct ddoq_cuda_error *error, int status, const char *call, const char *file, int line);

#define DDOQ_CUBLAS_TRY(call)                                                                                          \
    do {                                                                                                               \
        if (ddoq_cublas_check(error, (call), #call, __FILE__, __LINE__))                                               \
            goto cleanup;                                                                                              \
    } while (0)

#endif
