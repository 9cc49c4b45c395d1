/* Kernels for x86-64 with AVX-512 F, DQ, BW and VL; the build compiles this file alone with their flags. */
#if defined(__x86_64__)
#    define ISA_NAME avx512
#    define VECTOR_BYTES 64
#    define TILE_ROWS 8 /* 24 of 32 registers are accumulators */
#    include "cpu/kernels/isa.h"
#endif
