"""The machine's peak of fused multiply-adds, measured beside every timed row: a busy machine shows in it."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

FLAGS = {"avx2": ["-mavx2", "-DVECTOR_BYTES=32"], "avx512": ["-mavx512f", "-DVECTOR_BYTES=64"]}
TOLERANCE = 0.05  # of the best peak: what a row's own may lack


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
    """GF/s of all threads together in float32, the best of ten runs: new threads share a processor for the first."""
    library = _library(isa)

    def once(_: int) -> float:
        return float(library.peak(ctypes.c_float(0.001)))

    with ThreadPoolExecutor(threads) as pool:
        return max(sum(pool.map(once, range(threads))) for _ in range(10))


def measured(run: Callable[[], dict[str, Any]], machine: dict[str, Any], isa: str, threads: int) -> dict[str, Any]:
    """The row that `run` gives, and whether the machine was free for it.

    It is when the peak before and after is within 5 % of the machine's best so far, which `machine` keeps: a load that
    lasts lowers both alike. Waits for that, and measures again, a few times; a row that stays uneven says so.
    """

    def peak() -> float:
        found = peak_gflops(isa, threads)
        machine["peak_gflops"] = round(max(found, machine["peak_gflops"]), 1)
        return found

    machine.setdefault("peak_gflops", round(max(peak_gflops(isa, threads) for _ in range(5)), 1))
    for _ in range(3):
        for _ in range(10):
            if peak() >= (1 - TOLERANCE) * machine["peak_gflops"]:
                break
            time.sleep(1)
        before = peak()
        row = run()
        worst = min(before, peak())
        even = worst >= (1 - TOLERANCE) * machine["peak_gflops"]
        if even:
            break
    return {**row, "peak_gflops": round(worst, 1), "even": even}
