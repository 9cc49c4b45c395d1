"""What the benchmarks of whole classes share: the data, ddoq and the other libraries with the same two threads.

Data: ImageNette's latents through TAEF2 at 112 px (10 classes, d 6,272; a run made by benchmarks/imagenette.py) and 20
synthetic classes of 1,300 x 4,096 (64 blobs each, float32), and the first 1,024 features of both. Starts of a class:
ddoq's default number of greedy k-means++, one of it for both scikit-learns, one of random rows for faiss (its default;
its k-means++ is slower). faiss runs niter 25, the others to their own convergence; ddoq returns weights and labels too.
Needs `pip install faiss-cpu scikit-learn-intelex`.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # idle threads must not spin beside the next ones; classes.py refines it

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import faiss
import numpy as np
from sklearn.cluster import KMeans
from sklearnex.cluster import KMeans as IntelKMeans
from threadpoolctl import threadpool_info, threadpool_limits

import ddoq
from ddoq.stages.latents import read_latents
from ddoq.storage.run import Run

THREADS = 2
CELLS = ("imagenette", "imagenette, 1024 features", "synthetic", "synthetic, 1024 features")
PACKAGES = ("numpy", "scikit-learn", "scikit-learn-intelex", "faiss-cpu")
SLOWING = ("OPENBLAS_", "GOTO_", "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_PROC_BIND", "GOMP_", "FAISS_")
Classes = list[np.ndarray]
Points = list[np.ndarray]
Method = Callable[[Classes, int, int], tuple[Points, float]]  # (classes, k, seed) to each class's points, and seconds


def check_environment() -> None:
    """Refuse settings that slow a peer down."""
    found = sorted(name for name in os.environ if name.startswith(SLOWING))
    if found:
        raise SystemExit(f"unset {', '.join(found)}: they choose kernels or threads of the other libraries")
    if len(os.sched_getaffinity(0)) < THREADS:
        raise SystemExit(f"this process may use one processor: {THREADS} threads need {THREADS}")


def blas_kernels() -> dict[str, str]:
    """What each library's BLAS has chosen for this processor."""
    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return {
        Path(library["filepath"]).parent.name.removesuffix(".libs"): (
            f"{library['internal_api']} {library['version']}, kernels for {library['architecture']}"
        )
        for library in blas
    }


def imagenette(run: Path) -> tuple[list[str], Classes]:
    """Names and latents of all classes of a run."""
    opened = Run.open(run)
    names = opened.manifest["class_names"]
    return names, [read_latents(opened, c)[0].astype(np.float32) for c in range(len(names))]


def synthetic() -> Classes:
    rng = np.random.default_rng(0)
    classes = []
    for _ in range(20):
        centres = rng.normal(size=(64, 4096)).astype(np.float32)
        noise = rng.normal(size=(1300, 4096)).astype(np.float32)
        classes.append(centres[rng.integers(64, size=1300)] + noise)
    return classes


def data_sets(work: Path, cells: list[str]) -> Iterator[tuple[str, Classes]]:
    """Each wanted cell's classes, made only if wanted."""
    for kind in ("imagenette", "synthetic"):
        names = [cell for cell in cells if cell.split(",")[0] == kind]
        classes: Classes = []
        if names:
            classes = imagenette(work / "run")[1] if kind == "imagenette" else synthetic()
        for name in names:
            yield name, features(classes, name)


def features(classes: Classes, cell: str) -> Classes:
    return [np.ascontiguousarray(X[:, :1024]) for X in classes] if "1024" in cell else classes


def with_ddoq(refine: str) -> Method:
    def method(classes: Classes, k: int, seed: int) -> tuple[Points, float]:
        X, y = np.concatenate(classes), np.repeat(np.arange(len(classes)), [len(c) for c in classes])
        start = time.perf_counter()
        q = ddoq.quantize_classes(X, y, k, refine=refine, random_state=seed, n_threads=THREADS)
        return [q[c].points for c in range(len(q))], time.perf_counter() - start

    return method


def with_faiss(side_by_side: bool, init: int = faiss.ClusteringInitMethod_RANDOM) -> Method:
    def method(classes: Classes, k: int, seed: int) -> tuple[Points, float]:
        def fit(c: int, X: np.ndarray) -> np.ndarray:
            options = {"niter": 25, "seed": 1 + 100 * seed + c, "min_points_per_centroid": 1, "init_method": init}
            kmeans = faiss.Kmeans(X.shape[1], k, **options)
            kmeans.train(X)
            return np.asarray(kmeans.centroids)

        faiss.omp_set_num_threads(THREADS)
        one_thread = partial(faiss.omp_set_num_threads, 1)  # of the thread that calls it
        return timed(fit, classes, one_thread if side_by_side else None)

    return method


def with_scikit_learn(side_by_side: bool) -> Method:
    def method(classes: Classes, k: int, seed: int) -> tuple[Points, float]:
        def fit(c: int, X: np.ndarray) -> np.ndarray:
            return np.asarray(KMeans(k, n_init=1, random_state=100 * seed + c).fit(X).cluster_centers_)

        with threadpool_limits(1 if side_by_side else THREADS):
            one_thread = partial(threadpool_limits, 1)  # OpenMP's limit is of the thread that calls it
            return timed(fit, classes, one_thread if side_by_side else None)

    return method


def with_intelex(classes: Classes, k: int, seed: int) -> tuple[Points, float]:
    def fit(c: int, X: np.ndarray) -> np.ndarray:
        kmeans = IntelKMeans(k, n_init=1, random_state=100 * seed + c, n_jobs=THREADS).fit(X)
        if not hasattr(kmeans, "_onedal_estimator"):
            raise SystemExit("scikit-learn-intelex called scikit-learn itself: its figures would be scikit-learn's")
        return np.asarray(kmeans.cluster_centers_)

    with threadpool_limits(THREADS):
        return timed(fit, classes)


def timed(
    fit: Callable[[int, np.ndarray], np.ndarray], classes: Classes, side_by_side: Callable[[], object] | None = None
) -> tuple[Points, float]:
    """Fit the classes in turn, or two at a time in threads that first call `side_by_side`."""
    start = time.perf_counter()
    if side_by_side is None:
        points = [fit(c, X) for c, X in enumerate(classes)]
    else:
        with ThreadPoolExecutor(THREADS, initializer=side_by_side) as pool:
            points = list(pool.map(fit, range(len(classes)), classes))
    return points, time.perf_counter() - start


def distortions(classes: Classes, points: Points) -> list[float]:
    """Of each class: mean squared distance to the nearest point, computed for all libraries in the same way."""
    return [float(ddoq.w2(X, p.astype(np.float32)) ** 2) for X, p in zip(classes, points, strict=True)]
