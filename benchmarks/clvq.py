"""Competitive learning: the blocked core against the plain sequential loop, and clocks and powers by W2.

    python benchmarks/clvq.py [--samples 4096]

The sequential loop is C compiled here by `cc -O3 -march=native -ffast-math`: k distances, one winner, one move for each
sample, in the data's float32. Both run on one thread, in turns; minimum and median of the runs. Results:
results/clvq.json.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from common import facts, save_result

from ddoq import _backend
from ddoq.clvq import OnlineQuantizer

SEQUENTIAL = """
#include <math.h>
#include <stddef.h>
#include <stdint.h>
void clvq(const float *X, size_t n, size_t d, size_t k, double b, double power, float *c, double *w, int64_t *winners)
{
    for (size_t i = 0; i < n; i++) {
        const float *x = X + i * d;
        float least = INFINITY;
        size_t win = 0;
        for (size_t j = 0; j < k; j++) {
            float sum = 0;
            for (size_t p = 0; p < d; p++)
                sum += (x[p] - c[j * d + p]) * (x[p] - c[j * d + p]);
            if (sum < least) {
                least = sum;
                win = j;
            }
        }
        double g = pow(1 + (double)i / b, -power);
        for (size_t p = 0; p < d; p++)
            c[win * d + p] = (float)((1 - g) * c[win * d + p] + g * x[p]);
        for (size_t j = 0; j < k; j++)
            w[j] *= 1 - g;
        w[win] += g;
        winners[i] = (int64_t)win;
    }
}
"""


def compile_sequential(folder: Path) -> ctypes.CDLL:
    (folder / "clvq.c").write_text(SEQUENTIAL)
    library = folder / "clvq.so"
    flags = ["-O3", "-march=native", "-ffast-math", "-fno-finite-math-only", "-shared", "-fPIC"]
    subprocess.run([os.environ.get("CC", "cc"), *flags, "-o", library, folder / "clvq.c", "-lm"], check=True)
    return ctypes.CDLL(str(library))


def sequential(library: ctypes.CDLL, X: np.ndarray, points: np.ndarray, winners: np.ndarray) -> np.ndarray:
    k, weights = len(points), np.full(len(points), 1 / len(points))
    sizes = [ctypes.c_size_t(size) for size in (*X.shape, k)]
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (X, points, weights, winners)]
    library.clvq(pointers[0], *sizes, ctypes.c_double(k), ctypes.c_double(1), *pointers[1:])
    return weights


def blocked(X: np.ndarray, points: np.ndarray, winners: np.ndarray) -> np.ndarray:
    k, weights = len(points), np.full(len(points), 1 / len(points))
    _backend.core.clvq(X, points, weights, np.zeros(k, np.int64), winners, float(k), 1.0, _backend.isa())
    return weights


def speed(n: int, d: int, k: int, runs: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    X, start = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(k, d)).astype(np.float32)
    times: dict[str, list[float]] = {"sequential": [], "blocked": []}
    points, winners = {}, {name: np.empty(n, np.int64) for name in times}
    with tempfile.TemporaryDirectory() as folder:
        library = compile_sequential(Path(folder))
        for _ in range(runs):
            for name in times:
                points[name] = start.copy()
                begin = time.perf_counter()
                if name == "blocked":
                    blocked(X, points[name], winners[name])
                else:
                    sequential(library, X, points[name], winners[name])
                times[name].append((time.perf_counter() - begin) / n * 1e6)
    return {
        "n": n,
        "d": d,
        "k": k,
        "microseconds_a_step": {m: {"min": min(t), "median": float(np.median(t))} for m, t in times.items()},
        "speedup_of_minima": min(times["sequential"]) / min(times["blocked"]),
        "winners_equal": float((winners["blocked"] == winners["sequential"]).mean()),
        "points_differ": float(np.abs(points["blocked"] - points["sequential"]).max()),
    }


def clocks(n: int, k: int) -> list[dict[str, object]]:
    """W2 and the online weights' error (total variation) for the Gaussians of 1 and 2 dimensions."""
    rows = []
    for d in (1, 2):
        X = np.random.default_rng(d).normal(size=(n, d)).astype(np.float32)
        for clock in ("global", "point"):
            for power in (0.5, 2 / 3, 1.0):
                stream = OnlineQuantizer(k, step=(k if clock == "global" else 1, power), clock=clock)
                stream.update(X)
                q = stream.quantization(X)
                rows.append(
                    {
                        "d": d,
                        "clock": clock,
                        "power": power,
                        "w2": float(np.sqrt(q.distortion)),
                        "online_weights_error": float(np.abs(stream.online_weights - q.weights).sum() / 2),
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4096, help="samples of the timed stream")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    shapes = ((768, 1000), (4096, 1000), (1024, 200))
    result: dict[str, object] = {"facts": facts()}
    result["speed"] = [speed(options.samples, d, k, options.runs) for d, k in shapes]
    result["clocks"] = clocks(n=40_000, k=20)
    for row in [*result["speed"], *result["clocks"]]:
        print(row)
    if not options.dry:
        save_result("clvq", result)


if __name__ == "__main__":
    main()
