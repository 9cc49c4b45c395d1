/* Kernels for what every machine of the architecture runs: SSE2 on x86-64, NEON on AArch64. */
#define ISA_NAME baseline
#define VECTOR_BYTES 16
#define TILE_ROWS 3
#include "cpu/kernels_isa.h"
