/* Which instruction sets this machine runs, worst to best; written once, at load. */
#include "cpu/kernels/table.h"

static const struct ddoq_isa *table[3];
static size_t n_isas;

void ddoq_load_isas(void)
{
    size_t n = 0;
    table[n++] = &ddoq_isa_baseline;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        table[n++] = &ddoq_isa_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        table[n++] = &ddoq_isa_avx512;
#endif
    n_isas = n;
}

const struct ddoq_isa *ddoq_isa_at(size_t i)
{
    return i < n_isas ? table[i] : NULL;
}

const char *ddoq_isa_name(const struct ddoq_isa *isa)
{
    return isa->name;
}
