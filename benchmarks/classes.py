"""All classes quantised, whole job: ddoq against faiss, scikit-learn and scikit-learn-intelex, time and distortion.

    python benchmarks/classes.py WORK [--cells synthetic] [--k 10]     # resumes cell by cell

Data: ImageNette's latents through TAEF2 at 112 px (10 classes, d 6,272; WORK/run, made by benchmarks/imagenette.py) and
20 synthetic classes of 1,300 x 4,096 (64 blobs each, float32), and the first 1,024 features of both. Every library has
the same 2 threads and one start per class (greedy k-means++; faiss, which has none, its random rows and niter 25, both
with its own threads and with two classes side by side). Our own rows: the default, and `refine="none"` (Lloyd alone,
what the others do). Time: the least and the median of repeated runs, for 5 runs or 20 s. A cell is measured again when
the machine's peak of multiply-adds, taken before and after it, changes by more than 5 %; a cell that stays uneven says
so. Distortion: mean over classes of the weighted mean squared distance to the nearest point, computed for all in the
same way. Results: results/classes.json.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads of one library must not spin beside the next

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
from common import facts, load_result, save_result
from peak import peak_gflops
from sklearn.cluster import KMeans
from sklearnex.cluster import KMeans as IntelKMeans
from threadpoolctl import threadpool_limits

import ddoq
from ddoq.encode import read_latents
from ddoq.run import Run

THREADS = 2
CELLS = ("imagenette", "imagenette, 1024 features", "synthetic", "synthetic, 1024 features")
Classes = list[np.ndarray]
Points = list[np.ndarray]


def imagenette(work: Path) -> Classes:
    run = Run.open(work / "run")
    return [read_latents(run, c)[0].astype(np.float32) for c in range(10)]


def synthetic() -> Classes:
    rng = np.random.default_rng(0)
    classes = []
    for _ in range(20):
        centres = rng.normal(size=(64, 4096)).astype(np.float32)
        noise = rng.normal(size=(1300, 4096)).astype(np.float32)
        classes.append(centres[rng.integers(64, size=1300)] + noise)
    return classes


def ours(classes: Classes, k: int, seed: int, refine: str) -> Points:
    X, y = np.concatenate(classes), np.repeat(np.arange(len(classes)), [len(c) for c in classes])
    start = time.perf_counter()
    q = ddoq.quantize_classes(X, y, k, refine=refine, random_state=seed, n_threads=THREADS)
    seconds.append(time.perf_counter() - start)
    return [q[c].points for c in range(len(q))]


def timed(fit: Callable[[np.ndarray], np.ndarray], classes: Classes, workers: int = 1) -> Points:
    start = time.perf_counter()
    if workers == 1:
        points = [fit(X) for X in classes]
    else:
        with ThreadPoolExecutor(workers) as pool:
            points = list(pool.map(fit, classes))
    seconds.append(time.perf_counter() - start)
    return points


def with_faiss(classes: Classes, k: int, seed: int, side_by_side: bool) -> Points:
    def fit(X: np.ndarray) -> np.ndarray:
        if side_by_side:
            faiss.omp_set_num_threads(1)  # of this thread
        kmeans = faiss.Kmeans(X.shape[1], k, niter=25, seed=seed + 1, min_points_per_centroid=1)
        kmeans.train(X)
        return kmeans.centroids

    faiss.omp_set_num_threads(THREADS)
    return timed(fit, classes, THREADS if side_by_side else 1)


def with_scikit_learn(classes: Classes, k: int, seed: int, estimator: type) -> Points:
    with threadpool_limits(THREADS):
        return timed(lambda X: estimator(k, n_init=1, random_state=seed).fit(X).cluster_centers_, classes)


METHODS: dict[str, Callable[[Classes, int, int], Points]] = {
    "ddoq": lambda classes, k, seed: ours(classes, k, seed, "auto"),
    'ddoq, refine="none"': lambda classes, k, seed: ours(classes, k, seed, "none"),
    "faiss": lambda classes, k, seed: with_faiss(classes, k, seed, False),
    "faiss, two classes side by side": lambda classes, k, seed: with_faiss(classes, k, seed, True),
    "scikit-learn": lambda classes, k, seed: with_scikit_learn(classes, k, seed, KMeans),
    "scikit-learn-intelex": lambda classes, k, seed: with_scikit_learn(classes, k, seed, IntelKMeans),
}
seconds: list[float] = []  # of the runs of the row being measured


def measure(method: Callable[[Classes, int, int], Points], classes: Classes, k: int) -> dict[str, object]:
    """Time and distortion of one row, measured again while the machine is uneven."""
    isa = str(ddoq.info()["isa"])
    for _ in range(3):
        seconds.clear()
        before = peak_gflops(isa, THREADS)
        distortions: list[float] = []
        while len(seconds) < 5 and sum(seconds) < 20:
            points = method(classes, k, len(seconds))
            squares = [ddoq.w2(X, p.astype(np.float32)) ** 2 for X, p in zip(classes, points, strict=True)]
            distortions.append(statistics.fmean(squares))
        after = peak_gflops(isa, THREADS)
        even = abs(after - before) <= 0.05 * max(before, after)
        if even:
            break
    return {
        "milliseconds_min": round(1e3 * min(seconds), 1),
        "milliseconds_median": round(1e3 * statistics.median(seconds), 1),
        "runs": len(seconds),
        "distortion": statistics.fmean(distortions),
        "peak_gflops": round(before, 1),
        "even": even,
    }


def data_sets(work: Path, cells: list[str]) -> Iterator[tuple[str, Classes]]:
    for make in (lambda: imagenette(work), synthetic):
        names = [cell for cell in cells if cell.startswith("synthetic") == (make is synthetic)]
        classes = make() if names else []
        for name in names:
            yield name, [np.ascontiguousarray(X[:, :1024]) for X in classes] if "1024" in name else classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder with ImageNette's run")
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS))
    parser.add_argument("--k", type=int, nargs="*", default=[10, 50, 200])
    options = parser.parse_args()
    isa = ddoq.info()["isa"]
    result = load_result("classes")
    machine = result.setdefault(f"{facts()['cpu']}, {isa}", {"facts": facts(), "cells": {}})
    for name, classes in data_sets(options.work, options.cells):
        for k in options.k:
            rows = machine["cells"].setdefault(f"{name}, k {k}", {})
            for method, run in METHODS.items():
                if method not in rows:
                    rows[method] = measure(run, classes, k)
                    save_result("classes", result)
                row = rows[method]
                note = "" if row["even"] else "  (the machine was uneven)"
                print(
                    f"{isa}  {name}, k {k:3d}  {method:32s}{row['milliseconds_min']:9.1f} ms "
                    f"{row['distortion']:10.2f}{note}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
