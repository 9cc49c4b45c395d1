/* Kernels for what every machine of the architecture runs: SSE2 on x86-64, NEON on AArch64 (not run on one yet: the
 * test workflow's arm64 job is to show it). */
#define ISA_NAME baseline
#define VECTOR_BYTES 16
#if defined(__aarch64__)
#    define TILE_ROWS 6 /* 18 of 32 registers are accumulators */
#else
#    define TILE_ROWS 3
#endif
#include "cpu/kernels/isa.h"
