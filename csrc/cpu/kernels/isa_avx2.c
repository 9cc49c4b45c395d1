/* Kernels for x86-64 with AVX2 and FMA; the build compiles this file alone with -mavx2 -mfma. */
#if defined(__x86_64__)
#    define ISA_NAME avx2
#    define VECTOR_BYTES 32
#    define TILE_ROWS 4 /* 12 of 16 registers are accumulators */
#    include "cpu/kernels/isa.h"
#endif
