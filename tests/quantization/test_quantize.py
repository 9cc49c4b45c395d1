"""The quantiser against its reference and scikit-learn, on every instruction set."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fits import DTYPES, assert_identical, normal
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from tolerances import DISTORTION, GRAM, POINTS, SKLEARN_INERTIA, WEIGHTS

from ddoq.machine import backend
from ddoq.quantization import reference
from ddoq.quantization.quantize import quantize
from ddoq.quantization.result import Quantization

LENGTHS = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 97)


@pytest.fixture(params=backend.core.isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force each instruction set that this machine has."""
    monkeypatch.setenv("DDOQ_ISA", request.param)
    return str(request.param)


def draws(seed: int, k: int, n_init: int | None = None) -> NDArray[np.float64]:
    """The uniform numbers that `random_state=seed` gives the only class."""
    stream = np.random.SeedSequence(seed, spawn_key=(0,))
    per_start = 1 + (k - 1) * reference.n_trials(k)
    return np.random.Generator(np.random.PCG64(stream)).random((n_init or (8 if k <= 16 else 4), per_start))


def assert_same_fit(q: Quantization, fit: reference.Fit, X: NDArray[Any]) -> None:
    dtype = str(q.points.dtype)
    size = np.abs(X.astype(np.float64)).max()
    assert_array_equal(q.labels, fit.labels)
    assert_array_equal(q.counts, fit.counts)
    assert q.n_iter == fit.n_iter
    assert_allclose(q.points, fit.points, rtol=0, atol=POINTS[dtype] * size)
    assert_allclose(q.weights, fit.weights, rtol=WEIGHTS)
    assert_allclose(q.distortion, fit.distortion, rtol=DISTORTION[dtype], atol=(POINTS[dtype] * size) ** 2 * X.shape[1])


# The rungs: reference -> every instruction set


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", LENGTHS)
def test_gram(n: int, dtype: str, isa: str) -> None:
    for d in LENGTHS:
        X = normal(n, d, dtype)
        G = np.empty((n, n), dtype=dtype)
        backend.core.gram(X, G, isa)
        norms = np.linalg.norm(X.astype(np.float64), axis=1)
        assert np.abs(G - reference.gram(X)).max() <= GRAM[dtype] * np.outer(norms, norms).max()
        assert_array_equal(G, G.T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", LENGTHS)
def test_assign(n: int, dtype: str, isa: str) -> None:
    for d in (1, 3, 8, 17, 33, 97):
        for k in (1, 2, 9, 16, 31):
            X, points = normal(n, d, dtype), normal(k, d, dtype, seed=1)
            labels, distances = np.empty(n, dtype=np.int64), np.empty(n)
            backend.core.assign(X, points, labels, distances, 2, isa)
            expected, squares = reference.assign(X, points)
            assert_array_equal(labels, expected)
            assert_allclose(distances, squares, rtol=WEIGHTS)


@pytest.mark.parametrize("refine", ["none", "hartigan"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", LENGTHS)
def test_every_number_of_samples(n: int, dtype: str, refine: Any, isa: str) -> None:
    for d in (1, 8, 33):
        X = normal(n, d, dtype)
        for k in (1, min(n, 2), max(1, n // 4)):
            q = quantize(X, k, refine=refine, random_state=3)
            fit = reference.quantize_class(X, np.ones(n), k, uniforms=draws(3, k), use_hartigan=refine == "hartigan")
            assert_same_fit(q, fit, X)
            assert q.points.dtype == dtype
        all_points = quantize(X, n, refine=refine, random_state=3)
        assert_array_equal(all_points.points[all_points.labels], X)
        assert_array_equal(all_points.counts, np.ones(n))
        assert all_points.distortion == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", LENGTHS)
def test_every_number_of_features(d: int, dtype: str, isa: str) -> None:
    X = normal(70, d, dtype)
    w = np.random.default_rng(d).uniform(0.1, 5.0, size=70)
    for k in (3, 8, 9, 17):
        q = quantize(X, k, sample_weight=w, refine="hartigan", random_state=d)
        fit = reference.quantize_class(X, w, k, uniforms=draws(d, k), use_hartigan=True)
        assert_same_fit(q, fit, X)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_best_start_is_kept(dtype: str, isa: str) -> None:
    X, w = normal(70, 12, dtype), np.random.default_rng(0).uniform(0.1, 5.0, size=70)
    for n_init in (2, 3, 7):
        q = quantize(X, 9, sample_weight=w, refine="none", n_init=n_init, random_state=2)
        assert_same_fit(q, reference.quantize_class(X, w, 9, uniforms=draws(2, 9, n_init)), X)


@pytest.mark.parametrize("max_iter", [1, 2, 3])
@pytest.mark.parametrize("refine", ["none", "hartigan"])
def test_few_iterations(max_iter: int, refine: Any, isa: str) -> None:
    X = normal(80, 5)
    start = normal(12, 5, seed=1)
    q = quantize(X, 12, init=start, max_iter=max_iter, refine=refine)
    fit = reference.quantize_class(
        X, np.ones(80), 12, start_points=start, max_iter=max_iter, use_hartigan=refine == "hartigan"
    )
    assert_same_fit(q, fit, X)


def test_random_start(isa: str) -> None:
    X, w = normal(50, 4), np.random.default_rng(0).uniform(0.5, 2.0, size=50)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(7, spawn_key=(0,))))
    rows = [rng.choice(50, size=6, replace=False, p=w / w.sum()) for _ in range(3)]
    q = quantize(X, 6, sample_weight=w, init="random", n_init=3, random_state=7, refine="none")
    assert_same_fit(q, reference.quantize_class(X, w, 6, start_rows=rows), X)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_offset(dtype: str, isa: str) -> None:
    X = (1e4 + normal(90, 12)).astype(dtype)
    q = quantize(X, 6, refine="hartigan", random_state=1)
    assert_same_fit(q, reference.quantize_class(X, np.ones(90), 6, uniforms=draws(1, 6), use_hartigan=True), X)


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_cells_are_relocated(dtype: str, isa: str) -> None:
    X = normal(60, 3, dtype)
    start = np.concatenate([X[:4], np.full((3, 3), 100.0), X[:1]]).astype(dtype)
    q = quantize(X, 8, init=start, refine="none")
    assert_same_fit(q, reference.quantize_class(X, np.ones(60), 8, start_points=start), X)
    assert q.counts.min() > 0


def test_ties_go_to_the_lowest_index(isa: str) -> None:
    # 0 is as near to -1 as to 1
    q = quantize([[-1.0], [0.0], [1.0]], 2, init=[[-1.0], [1.0]], max_iter=1, refine="none")
    assert_array_equal(q.labels, [0, 0, 1])
    assert_array_equal(quantize([[-1.0], [0.0], [1.0]], 2, init=[[1.0], [-1.0]], refine="none").labels, [1, 0, 0])


@pytest.mark.parametrize("refine", ["none", "hartigan"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_duplicates(dtype: str, refine: Any, isa: str) -> None:
    distinct = normal(6, 11, dtype)
    X = np.repeat(distinct, [1, 2, 3, 4, 5, 9], axis=0)[np.random.default_rng(0).permutation(24)]
    for seed in range(10):
        q = quantize(X, 6, random_state=seed, refine=refine)  # as many points as distinct rows: it must find them all
        assert_array_equal(np.sort(q.counts), [1, 2, 3, 4, 5, 9])
        assert_allclose(q.points[q.labels], X, rtol=0, atol=POINTS[dtype] * np.abs(X).max())
        for k in (1, 2, 4):
            labels = quantize(X, k, random_state=seed, refine=refine).labels
            _, first, inverse = np.unique(X, axis=0, return_index=True, return_inverse=True)
            if refine == "none":  # single moves may part duplicates
                assert_array_equal(labels, labels[first][inverse.ravel()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_the_gram_matrix_can_not_tell_apart(dtype: str, isa: str) -> None:
    # squared distances of 1e-6 vanish beside the squared norm 1e8 in float32, and cells must not stay empty for it
    X = np.array([[0.0], [1e-3], [2e-3], [3e-3], [1e4]], dtype=dtype)
    for seed in range(5):
        q = quantize(X, 5, random_state=seed)
        assert_array_equal(q.counts, [1] * 5)
        assert_array_equal(q.points[q.labels], X)
        assert q.distortion == 0.0


# Against scikit-learn


def assert_same_as_scikit_learn(X: NDArray[Any], k: int, seed: int, **options: Any) -> None:
    rng = np.random.default_rng(seed)
    start = X[rng.choice(len(X), k, replace=False)]
    start = (start + 0.01 * X.std() * rng.normal(size=start.shape)).astype(X.dtype)  # pixels are integers: no ties
    peer = KMeans(k, init=start, n_init=1, tol=0, algorithm="lloyd", **options).fit(X)
    q = quantize(X, k, init=start, refine="none", **options)
    assert_array_equal(q.labels, peer.labels_)
    assert_allclose(q.distortion * len(X), peer.inertia_, rtol=SKLEARN_INERTIA)
    assert_allclose(q.points, peer.cluster_centers_, rtol=0, atol=1e-5 * np.abs(X).max())
    assert q.n_iter == peer.n_iter_


@pytest.mark.parametrize("k", [1, 10, 50])
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_labels_as_scikit_learn_on_digits(dtype: str, k: int, isa: str) -> None:
    X, y = load_digits(return_X_y=True)
    for c in (0, 3, 8):
        assert_same_as_scikit_learn(X[y == c].astype(dtype), k, seed=c)


@pytest.mark.parametrize("max_iter", [1, 2, 5])
def test_same_labels_as_scikit_learn_when_iterations_run_out(max_iter: int) -> None:
    assert_same_as_scikit_learn(load_digits().data, 30, seed=0, max_iter=max_iter)


@pytest.mark.parametrize("k", [10, 50])
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_labels_as_scikit_learn_on_mnist(data_file: Callable[[str], Path], dtype: str, k: int) -> None:
    pixels, components = mnist_classes(data_file("mnist/mnist.npz"))
    assert_same_as_scikit_learn(pixels.astype(dtype), k, seed=1)
    assert_same_as_scikit_learn(components.astype(dtype), k, seed=7)


@cache
def mnist_classes(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pixels of the first ones, principal components of the first sevens."""
    with np.load(path) as mnist:
        X, y = mnist["x_train"].reshape(-1, 784) / 255, mnist["y_train"]
    return X[y == 1][:3000], PCA(40, svd_solver="covariance_eigh").fit_transform(X[y == 7][:2500])


# Weights


def test_weights_are_repeats() -> None:
    X, times = normal(40, 6), np.random.default_rng(0).integers(1, 5, size=40)
    start = X[:7]
    q = quantize(X, 7, sample_weight=times, init=start, refine="none")
    repeated = quantize(np.repeat(X, times, axis=0), 7, init=start, refine="none")
    assert_array_equal(np.repeat(q.labels, times), repeated.labels)
    assert_allclose(q.points, repeated.points, rtol=0, atol=POINTS["float64"] * np.abs(X).max())
    assert_allclose(q.weights, repeated.weights, rtol=WEIGHTS)
    assert_allclose(q.distortion, repeated.distortion, rtol=DISTORTION["float64"])


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_unit_weights_are_none_and_scale_does_not_matter(init: Any) -> None:
    X, w = normal(60, 6), np.random.default_rng(0).uniform(size=60)
    options: dict[str, Any] = {"init": init, "random_state": 5, "refine": "hartigan"}
    assert_identical(quantize(X, 4, **options), quantize(X, 4, sample_weight=np.ones(60), **options))
    assert_identical(quantize(X, 4, sample_weight=w, **options), quantize(X, 4, sample_weight=4 * w, **options))


def test_zero_weights_are_left_out_but_labelled(isa: str) -> None:
    X, far = normal(50, 6), 1e3 * normal(8, 6)
    mixed = np.concatenate([far[:3], X, far[3:]])
    w = np.concatenate([np.zeros(3), np.ones(50), np.zeros(5)])
    q, without = quantize(mixed, 5, sample_weight=w, random_state=1), quantize(X, 5, random_state=1)
    assert_array_equal(q.points, without.points)
    assert_array_equal(q.counts, without.counts)
    assert q.distortion == without.distortion
    assert_array_equal(q.labels, reference.assign(mixed, q.points)[0])


def test_tiny_and_huge_weights_together(isa: str) -> None:
    X, w = normal(60, 4), 10.0 ** np.random.default_rng(0).integers(-20, 20, size=60)
    q = quantize(X, 5, sample_weight=w, refine="hartigan", random_state=0)
    assert np.isfinite(q.points).all()
    assert q.counts.min() >= 1
    assert_allclose(q.weights.sum(), 1.0, rtol=WEIGHTS)


# Starts and streams


@pytest.mark.parametrize("dtype", DTYPES)
def test_restart_at_the_optimum_stays_and_init_is_not_touched(dtype: str, isa: str) -> None:
    X = normal(80, 6, dtype)
    first = quantize(X, 5, random_state=0, refine="none")
    start = first.points.copy()
    again = quantize(X, 5, init=start, refine="none")
    assert_array_equal(again.labels, first.labels)
    assert_array_equal(again.points, first.points)
    assert again.n_iter == 2
    assert_array_equal(start, first.points)
    assert not np.shares_memory(again.points, start)


def test_more_starts_are_never_worse() -> None:
    X = normal(100, 10)
    distortions = [quantize(X, 8, n_init=n, random_state=0, refine="none").distortion for n in (1, 2, 5, 20)]
    assert distortions == sorted(distortions, reverse=True)
    assert distortions[-1] < distortions[0]


def test_refines_by_itself_from_15_samples_a_point() -> None:
    X = normal(30, 20)
    lloyd, moved = (quantize(X, 2, refine=refine, random_state=1) for refine in ("none", "hartigan"))
    assert moved.distortion < lloyd.distortion
    assert_identical(quantize(X, 2, random_state=1), moved)
    assert_identical(quantize(X[:29], 2, random_state=1), quantize(X[:29], 2, random_state=1, refine="none"))


def test_kinds_of_random_state() -> None:
    X = normal(60, 3)

    def points(seed: Any) -> NDArray[Any]:
        return quantize(X, 9, random_state=seed).points

    assert_array_equal(points(4), points(np.random.SeedSequence(4)))
    assert_array_equal(points(4), points(np.int64(4)))
    assert not np.array_equal(points(4), points(5))
    assert not np.array_equal(points(None), points(None))
    for make in (np.random.default_rng, np.random.RandomState):
        assert_array_equal(points(make(4)), points(make(4)))
        drawn = make(4)
        assert not np.array_equal(points(drawn), points(drawn))
