"""Competitive learning: the blocked core against the plain sequential loop, and clocks and powers by W2.

    DDOQ_ISA=avx2 python benchmarks/clvq.py [--samples 4096]

Speed: the sequential loop is C compiled here by `cc -O3 -march=native -ffast-math`: k distances, one winner, one move
for each sample, in the data's float32, on one thread, which is all it can use; the core runs on one and on two, in
turns with it; minimum and median of the runs, and the machine's peak of multiply-adds beside them.

Clocks: W2 between the normal distribution of one and two dimensions and the points after one pass over 40,000 samples,
by a quadrature of its density, and its ratio to the optimal points' W2: of one dimension Max's (1960, as published on
quantize.maths-fi.com), of two the best of 15 starts of Lloyd's iterations on the quadrature. Beside it the error of the
online weights, in total variation from the masses of the points' cells. Means over the seeds. Results:
results/clvq.json, for each instruction set.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from common import facts, load_result, save_result
from peak import peak_gflops

import ddoq
from ddoq.machine import backend
from ddoq.quantization.online import OnlineQuantizer

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


def blocked(X: np.ndarray, points: np.ndarray, winners: np.ndarray, n_threads: int) -> np.ndarray:
    k, weights = len(points), np.full(len(points), 1 / len(points))
    backend.core.clvq(
        X, points, weights, np.zeros(k, np.int64), winners, float(k), 1.0, None, None, None, n_threads, backend.isa()
    )
    return weights


def speed(n: int, d: int, k: int, runs: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    X, start = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(k, d)).astype(np.float32)
    names = {"sequential": 0, "blocked, 1 thread": 1, "blocked, 2 threads": 2}
    times: dict[str, list[float]] = {name: [] for name in names}
    points, winners = {}, {name: np.empty(n, np.int64) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        library = compile_sequential(Path(folder))
        for _ in range(runs):
            for name, threads in names.items():
                points[name] = start.copy()
                begin = time.perf_counter()
                if threads:
                    blocked(X, points[name], winners[name], threads)
                else:
                    sequential(library, X, points[name], winners[name])
                times[name].append((time.perf_counter() - begin) / n * 1e6)
    least = {name: min(each) for name, each in times.items()}
    return {
        "n": n,
        "d": d,
        "k": k,
        "peak_gflops": {threads: peak_gflops(backend.isa(), threads) for threads in (1, 2)},
        "microseconds_a_step": {m: {"min": min(t), "median": float(np.median(t))} for m, t in times.items()},
        "speedup_of_minima": {name: least["sequential"] / least[name] for name in least if name != "sequential"},
        "winners_equal": float((winners["blocked, 2 threads"] == winners["sequential"]).mean()),
        "points_differ": float(np.abs(points["blocked, 2 threads"] - points["sequential"]).max()),
    }


class Normal:
    """The normal distribution on a square grid of step h, whose cells each add their own variance, h^2 / 12 a feature.

    >>> round(Normal(1).w2(np.zeros((1, 1))) ** 2, 4)
    1.0
    """

    def __init__(self, d: int) -> None:
        axis, self.h = np.linspace(-5, 5, 20_001 if d == 1 else 201, retstep=True)
        self.nodes = np.stack(np.meshgrid(*[axis] * d), axis=-1).reshape(-1, d)
        density = np.exp(-(self.nodes**2).sum(axis=1) / 2)
        self.mass = density / density.sum()

    def cells(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels, dist2 = np.empty(len(self.nodes), np.int64), np.empty(len(self.nodes))
        points = np.ascontiguousarray(points, dtype=float)
        backend.core.assign(self.nodes, points, labels, dist2, 2, backend.isa())
        return labels, dist2

    def w2(self, points: np.ndarray) -> float:
        return float(np.sqrt(self.mass @ self.cells(points)[1] + self.nodes.shape[1] * self.h**2 / 12))

    def least_w2(self, k: int, starts: int = 15, iterations: int = 150) -> float:
        best = np.inf
        for seed in range(starts):
            points = np.random.default_rng(seed).normal(size=(k, self.nodes.shape[1]))
            for _ in range(iterations):
                labels = self.cells(points)[0]
                masses = np.bincount(labels, self.mass, k)
                for p in range(points.shape[1]):
                    moved = np.bincount(labels, self.mass * self.nodes[:, p], k)
                    points[:, p] = np.where(masses > 0, moved / np.maximum(masses, 1e-300), points[:, p])
            best = min(best, self.w2(points))
        return best


MAX_1960 = {2: 0.3634, 5: 0.0799, 10: 0.0229, 20: 0.00620}  # distortions of the normal distribution's optimal points


def clocks(n: int, seeds: int) -> list[dict[str, object]]:
    rows = []
    for d, k in ((1, 5), (1, 20), (2, 5), (2, 20)):
        normal = Normal(d)
        least = MAX_1960[k] ** 0.5 if d == 1 else normal.least_w2(k)
        for clock, power, average in itertools.product(("global", "point"), (1 / 2, 2 / 3, 1.0), (False, True)):
            w2, error = [], []
            for seed in range(seeds):
                X = np.random.default_rng([d, seed]).normal(size=(n, d))
                stream = OnlineQuantizer(k, step=(k if clock == "global" else 1, power), clock=clock, average=average)
                stream.update(X)
                points = stream.points
                masses = np.bincount(normal.cells(points)[0], normal.mass, k)
                w2.append(normal.w2(points))
                error.append(np.abs(stream.online_weights - masses).sum() / 2)
            rows.append(
                {
                    "d": d,
                    "k": k,
                    "clock": clock,
                    "power": round(power, 3),
                    "average": average,
                    "n": n,
                    "seeds": seeds,
                    "w2": float(np.mean(w2)),
                    "least_w2": least,
                    "w2_over_least": float(np.mean(w2) / least),
                    "online_weights_error": float(np.mean(error)),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4096, help="samples of the timed stream")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--part", choices=("speed", "clocks"), help="default: both")
    options = parser.parse_args()
    result = load_result("clvq")
    machine = result.setdefault(f"{facts()['cpu']}, {ddoq.info()['isa']}", {})
    machine["facts"] = facts()
    if options.part != "clocks":
        machine["speed"] = [
            speed(options.samples, d, k, options.runs) for d, k in ((768, 1000), (4096, 1000), (1024, 200))
        ]
    if options.part != "speed":
        machine["clocks"] = clocks(n=40_000, seeds=5)
    for row in [*machine.get("speed", []), *machine.get("clocks", [])]:
        print(row)
    save_result("clvq", result)


if __name__ == "__main__":
    main()
