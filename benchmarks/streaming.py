"""An iteration of Lloyd over one big class: ddoq's streaming form against faiss, scikit-learn and scikit-learn-intelex.

    python benchmarks/streaming.py [--cells "100000 x 512, k 64"] [--methods ddoq faiss]     # resumes row by row

Data: overlapping blobs in float32, as many as points (centres of norm about 4, noise of variance 1 in each feature,
seed 0), so that no library's labels stay within the iterations timed. Every library starts from the same k samples, has
the same 2 threads, and runs without a tolerance. Time of an iteration: that of 12 iterations less that of 2, over 10,
the least of three runs of each; so reading, packing and the final assignment are not in it. The whole time of 2
iterations, with all of that, stands beside it. Share of the peak: 2 n d k operations in that time over the machine's
best peak of multiply-adds, which is taken before and after each row; a row is measured again when the machine is not
as free as it has been (peak.py), and one that stays uneven says so. Distortion: after 12 iterations, mean squared
distance to the nearest point, computed for all in the same way. Results: results/streaming.json.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads of one library must not spin beside the next

import time
from collections.abc import Callable
from functools import partial

import faiss
import numpy as np
from common import entry, facts, load_result, save_result
from peak import measured
from sklearn.cluster import KMeans
from sklearnex.cluster import KMeans as IntelKMeans
from threadpoolctl import threadpool_limits

import ddoq

THREADS, FEW, MANY, RUNS = 2, 2, 12, 3
PACKAGES = ("numpy", "scikit-learn", "scikit-learn-intelex", "faiss-cpu")
CELLS = {
    f"{n} x {d}, k {k}": (n, d, k)
    for n, d, k in ((100_000, 512, 64), (100_000, 512, 256), (60_000, 768, 1000), (1_000_000, 128, 256))
}


def blobs(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples (n, d) and the starting points (k, d) that all libraries have."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((k, d), dtype=np.float32) * np.float32(4 / np.sqrt(d))
    X = rng.standard_normal((n, d), dtype=np.float32)
    for begin in range(0, n, 10_000):
        part = X[begin : begin + 10_000]
        part += centres[rng.integers(k, size=len(part))]
    return X, X[rng.choice(n, size=k, replace=False)]


def ours(X: np.ndarray, start: np.ndarray, n_iter: int) -> tuple[np.ndarray, int]:
    q = ddoq.quantize(X, len(start), form="streaming", init=start, max_iter=n_iter, tol=0, n_threads=THREADS)
    return q.points, q.n_iter


def with_faiss(X: np.ndarray, start: np.ndarray, n_iter: int) -> tuple[np.ndarray, int]:
    faiss.omp_set_num_threads(THREADS)
    options = {"min_points_per_centroid": 1, "max_points_per_centroid": len(X)}
    kmeans = faiss.Kmeans(X.shape[1], len(start), niter=n_iter, **options)
    kmeans.train(X, init_centroids=start)
    return kmeans.centroids, len(kmeans.obj)


def with_scikit_learn(X: np.ndarray, start: np.ndarray, n_iter: int, estimator: type) -> tuple[np.ndarray, int]:
    with threadpool_limits(THREADS):
        fitted = estimator(len(start), init=start, n_init=1, max_iter=n_iter, tol=0, algorithm="lloyd").fit(X)
    return fitted.cluster_centers_, fitted.n_iter_


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, int]]] = {
    "ddoq": ours,
    "faiss": with_faiss,
    "scikit-learn": lambda X, start, n_iter: with_scikit_learn(X, start, n_iter, KMeans),
    "scikit-learn-intelex": lambda X, start, n_iter: with_scikit_learn(X, start, n_iter, IntelKMeans),
}


def measure(name: str, X: np.ndarray, start: np.ndarray) -> dict[str, object]:
    seconds: dict[int, list[float]] = {FEW: [], MANY: []}
    for n_iter in (FEW, MANY) * RUNS:
        begin = time.perf_counter()
        points, done = METHODS[name](X, start, n_iter)
        seconds[n_iter].append(time.perf_counter() - begin)
        if done != n_iter:
            raise SystemExit(f"{name} stopped after {done} iterations of {n_iter}")
    iteration = (min(seconds[MANY]) - min(seconds[FEW])) / (MANY - FEW)
    return {
        "iteration_milliseconds": round(1e3 * iteration, 1),
        "milliseconds_of_2_iterations": round(1e3 * min(seconds[FEW]), 1),
        "gflops": round(2 * X.size * len(start) / iteration / 1e9, 1),
        "distortion": ddoq.w2(X, points.astype(np.float32)) ** 2,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS))
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    here, result = facts(PACKAGES), load_result("streaming")
    isa, machine = here["instruction_set"], entry(result, here)
    for cell in options.cells:
        rows = machine["cells"].setdefault(cell, {})
        missing = [method for method in options.methods if method not in rows]
        X, start = blobs(*CELLS[cell]) if missing else (np.empty(0), np.empty(0))
        for method in options.methods:
            if method in missing:
                row = measured(partial(measure, method, X, start), machine, isa, THREADS)
                rows[method] = {**row, "share_of_peak": round(row["gflops"] / machine["peak_gflops"], 3)}
                save_result("streaming", result)
            row = rows[method]
            note = "" if row["even"] else "  (the machine was uneven)"
            print(
                f"{isa}  {cell:24s}{method:22s}{row['iteration_milliseconds']:9.1f} ms an iteration "
                f"{100 * row['share_of_peak']:5.1f} % of the peak {row['distortion']:12.5f}{note}",
                flush=True,
            )


if __name__ == "__main__":
    main()
