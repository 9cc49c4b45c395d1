/* Loading of cuBLAS. Of the sonames, 13 goes with the runtime that this module holds; 12 is what a process with an
 * older PyTorch has loaded, and its functions are the same. */
#include "cuda/cublas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *const SONAMES[] = {"libcublas.so.13", "libcublas.so.12"};
enum { N_SONAMES = sizeof SONAMES / sizeof *SONAMES };

/* Written once, under the lock; whoever has seen it loaded reads a table that changes no more. */
static struct ddoq_cublas table;
static bool is_loaded;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void append(char *text, size_t size, const char *part)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s%s", used ? "; " : "", part);
}

/* Fills the table from a library; says in text what it lacks. */
static bool fill(void *library, const char *path, char *text, size_t size)
{
    struct ddoq_cublas found;
    const struct {
        void *at;
        const char *name;
    } symbols[] = {
        {&found.create, "cublasCreate_v2"},
        {&found.destroy, "cublasDestroy_v2"},
        {&found.version, "cublasGetVersion_v2"},
        {&found.set_stream, "cublasSetStream_v2"},
        {&found.set_workspace, "cublasSetWorkspace_v2"},
        {&found.gemm, "cublasGemmEx"},
        {&found.status_name, "cublasGetStatusString"},
    };
    _Static_assert(sizeof symbols / sizeof *symbols * sizeof(void *) == sizeof table, "every function has its symbol");
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol) {
            char part[512];
            snprintf(part, sizeof part, "%.380s has no %s", path, symbols[i].name);
            append(text, size, part);
            return false;
        }
        memcpy(symbols[i].at, &symbol, sizeof symbol);
    }
    table = found;
    return true;
}

static bool try_library(const char *path, int flags, char *text, size_t size)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | flags);
    if (!library) {
        const char *problem = dlerror();
        if (!(flags & RTLD_NOLOAD))
            append(text, size, problem ? problem : path);
        return false;
    }
    if (fill(library, path, text, size))
        return true; /* never closed: the table points into it */
    dlclose(library);
    return false;
}

static bool load(const char *const *paths, size_t n_paths, char *text, size_t size)
{
    for (size_t i = 0; i < N_SONAMES; i++)
        if (try_library(SONAMES[i], RTLD_NOLOAD, text, size))
            return true;
    for (size_t i = 0; i < n_paths; i++)
        if (try_library(paths[i], 0, text, size))
            return true;
    for (size_t i = 0; i < N_SONAMES; i++)
        if (try_library(SONAMES[i], 0, text, size))
            return true;
    return false;
}

int ddoq_cublas_load(const char *const *paths, size_t n_paths, struct ddoq_cuda_error *error)
{
    char text[sizeof error->text] = "";
    pthread_mutex_lock(&lock);
    if (!is_loaded)
        is_loaded = load(paths, n_paths, text, sizeof text);
    bool done = is_loaded;
    pthread_mutex_unlock(&lock);
    if (done)
        return 0;
    error->status = DDOQ_CUDA_NO_LIBRARY;
    memcpy(error->text, text, sizeof text);
    return -1;
}

const struct ddoq_cublas *ddoq_cublas_loaded(void)
{
    pthread_mutex_lock(&lock);
    const struct ddoq_cublas *loaded = is_loaded ? &table : NULL;
    pthread_mutex_unlock(&lock);
    return loaded;
}

int ddoq_cublas_check(struct ddoq_cuda_error *error, int status, const char *call, const char *file, int line)
{
    enum { NOT_ALLOCATED = 3 };
    if (status == 0)
        return 0;
    if (error->status == DDOQ_CUDA_OK) {
        const char *name = strrchr(file, '/'), *what = table.status_name(status);
        error->status = status == NOT_ALLOCATED ? DDOQ_CUDA_NO_MEMORY : DDOQ_CUDA_FAILED;
        snprintf(error->text, sizeof error->text, "%s (%s:%d: %.200s)", what ? what : "cuBLAS", name ? name + 1 : file,
                 line, call);
    }
    return -1;
}
