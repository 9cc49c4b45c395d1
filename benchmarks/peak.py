"""The machine's peak of fused multiply-adds, measured beside every timed cell: a busy machine shows in it."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

FLAGS = {"avx2": ["-mavx2", "-DVECTOR_BYTES=32"], "avx512": ["-mavx512f", "-DVECTOR_BYTES=64"]}


@cache
def _library(isa: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peak.so"
        source = Path(__file__).with_name("peak.c")
        options = ["-O2", "-std=gnu11", "-mfma", "-ffp-contract=fast", "-shared", "-fPIC", *FLAGS[isa]]
        subprocess.run(["cc", *options, "-o", path, source], check=True)
        library = ctypes.CDLL(str(path))
    library.peak.restype = ctypes.c_double
    return library


def peak_gflops(isa: str, threads: int) -> float:
    """GF/s of all threads together in float32, the best of three runs."""
    library = _library(isa)

    def once(_: int) -> float:
        return float(library.peak(ctypes.c_float(0.001)))

    with ThreadPoolExecutor(threads) as pool:
        return max(sum(pool.map(once, range(threads))) for _ in range(3))
