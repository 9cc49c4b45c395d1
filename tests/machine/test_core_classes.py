"""The call of the core that quantises classes: Lloyd, seeds, moves, empty cells, restarts, threads, scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from test_core import EPSILON, LENGTHS, Job, dtypes, n_uniforms, normal

from ddoq import _core as core

pytestmark = pytest.mark.parametrize("isa", core.isas())


def plain_lloyd(X: NDArray[Any], w: NDArray[Any], points: NDArray[Any], max_iter: int = 300) -> tuple[Any, ...]:
    """Textbook Lloyd on coordinates, in float64, without empty cells: labels, points, iterations."""
    X, points, labels, n_iter = X.astype(float), points.astype(float), np.full(len(X), -1), 0
    while n_iter < max_iter:
        n_iter += 1
        before, labels = labels, ((X[:, None] - points) ** 2).sum(axis=2).argmin(axis=1)
        if np.array_equal(before, labels):
            break
        points = np.stack([np.average(X[labels == j], axis=0, weights=w[labels == j]) for j in range(len(points))])
    return labels, points, n_iter


def blobs(dtype: str, d: int = 5, seed: int = 0) -> NDArray[Any]:
    """40 samples round each of four corners."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(40, d)) + corner for corner in 9.0 * np.eye(4, d)]).astype(dtype)


@dtypes
@pytest.mark.parametrize("d", LENGTHS)
def test_lloyd_is_the_textbook_s(d: int, dtype: str, isa: str) -> None:
    for n in LENGTHS:
        k = max(1, n // 6)
        X, w = normal(n, d, dtype), np.random.default_rng(n).uniform(0.5, 3.0, size=n)
        start = np.random.default_rng(d).choice(n, size=k, replace=False)
        labels, points, _ = plain_lloyd(X, w, X[start])
        job = Job(X, [k], isa, sample_weight=w, start_rows=start).run()
        assert_array_equal(job.labels, labels)
        assert_allclose(job.points, points, rtol=0, atol=4 * EPSILON[dtype])
        squares = ((X.astype(float) - job.points[labels].astype(float)) ** 2).sum(axis=1)
        assert_allclose(job.distortion, np.average(squares, weights=w), rtol=1e-12, atol=1e-30)
        assert_allclose(job.weights, np.bincount(labels, weights=w, minlength=k) / w.sum(), rtol=1e-12)
        assert_array_equal(job.counts, np.bincount(labels, minlength=k))
        again = Job(X, [k], isa, sample_weight=w, start_points=np.ascontiguousarray(X[start])).run()
        assert_array_equal(again.labels, labels)


@dtypes
@pytest.mark.parametrize("max_iter", [1, 2])
def test_labels_belong_to_the_points_when_iterations_run_out(max_iter: int, dtype: str, isa: str) -> None:
    X = normal(90, 4, dtype)
    start = np.arange(7)
    _, points, n_iter = plain_lloyd(X, np.ones(90), X[start], max_iter)
    job = Job(X, [7], isa, start_rows=start, max_iter=max_iter).run()
    assert_array_equal(job.n_iter, [n_iter])
    assert_allclose(job.points, points, rtol=0, atol=4 * EPSILON[dtype])
    squares = ((X[:, None].astype(float) - job.points) ** 2).sum(axis=2)
    assert_array_equal(job.labels, squares.argmin(axis=1))


@dtypes
def test_greedy_seeding_by_hand(dtype: str, isa: str) -> None:
    # Weights 1, 2, 1: u 0.3 draws the second sample. Masses from there: 1 * 1, 0, 1 * 9: u 0.05 and 0.5 draw samples 0
    # and 2, and 2 is better.
    X = np.array([[0.0], [1.0], [4.0]], dtype=dtype)
    job = Job(X, [2], isa, sample_weight=np.array([1.0, 2.0, 1.0]), uniforms=np.array([0.3, 0.05, 0.5]), max_iter=1)
    job.run()
    assert_array_equal(job.labels, [0, 0, 1])
    assert_allclose(job.points, [[2.0 / 3.0], [4.0]], rtol=1e-6)
    assert_array_equal(job.weights, [0.75, 0.25])


@dtypes
def test_seeding_never_draws_a_sample_at_distance_zero(dtype: str, isa: str) -> None:
    X = np.repeat(normal(9, 40, dtype), 11, axis=0)
    for u in (0.0, 0.5, np.nextafter(1.0, 0.0)):
        job = Job(X, [9], isa, uniforms=np.full(n_uniforms(9), u)).run()
        assert_array_equal(job.counts, [11] * 9)
        assert job.distortion[0] <= 1e-28 if dtype == "float64" else job.distortion[0] == 0


@dtypes
def test_single_point_moves_reach_a_better_partition(dtype: str, isa: str) -> None:
    X = normal(200, 60, dtype)
    start = np.arange(10)
    lloyd = Job(X, [10], isa, start_rows=start).run()
    job = Job(X, [10], isa, start_rows=start, forms=np.ones(1, dtype=np.uint8)).run()
    assert job.distortion[0] < 0.995 * lloyd.distortion[0]
    means = np.stack([X[job.labels == j].astype(float).mean(axis=0) for j in range(10)])
    assert_allclose(job.points, means, rtol=0, atol=4 * EPSILON[dtype])
    squares = ((X[:, None].astype(float) - means) ** 2).sum(axis=2)
    to_own = squares[np.arange(200), job.labels] * job.counts[job.labels] / np.maximum(job.counts[job.labels] - 1, 1)
    others = squares * job.counts / (job.counts + 1)
    others[np.arange(200), job.labels] = np.inf
    assert np.all((others.min(axis=1) > to_own * (1 - 1e-4)) | (job.counts[job.labels] == 1))


@dtypes
def test_empty_cells_take_the_farthest_samples(dtype: str, isa: str) -> None:
    X = np.array([[0.0], [1.0], [2.0], [7.0], [9.0]], dtype=dtype)
    starts = np.array([[1.0], [50.0], [60.0]], dtype=dtype)
    job = Job(X, [3], isa, start_points=starts, max_iter=1).run()
    assert_array_equal(job.points, [[1.0], [9.0], [7.0]])
    assert_array_equal(job.labels, [0, 0, 0, 2, 1])


@dtypes
def test_fewer_distinct_rows_than_points_still_ends(dtype: str, isa: str) -> None:
    X = np.repeat(normal(2, 3, dtype), 5, axis=0)
    for form in (0, 1, 3):
        job = Job(X, [4], isa, forms=np.array([form], dtype=np.uint8)).run()
        assert job.counts.sum() == 10
        assert_allclose(job.points[job.labels], X, rtol=1e-6)
        assert np.isfinite(job.points).all()


def test_distinct_rows_that_float32_products_can_not_tell_apart(isa: str) -> None:
    X = np.array([[0.0], [1e-3], [2e-3], [1e4]], dtype=np.float32)
    job = Job(X, [4], isa).run()
    assert_array_equal(job.counts, [1] * 4)
    assert job.distortion[0] == 0


@dtypes
def test_best_restart_is_kept(dtype: str, isa: str) -> None:
    X = normal(120, 3, dtype)
    starts = np.stack([np.random.default_rng(i).choice(120, size=8, replace=False) for i in range(6)])
    single = [Job(X, [8], isa, start_rows=start).run() for start in starts]
    best = int(np.argmin([job.distortion[0] for job in single]))
    job = Job(X, [8], isa, start_rows=starts.ravel(), n_init=6).run()
    for mine, theirs in zip(job.outputs(), single[best].outputs(), strict=True):
        assert_array_equal(mine, theirs)


@dtypes
def test_classes_are_independent_and_bits_do_not_depend_on_threads(dtype: str, isa: str) -> None:
    X = normal(233, 37, dtype)
    ks, sizes = [3, 1, 8, 5], [60, 1, 102, 70]
    changes = {
        "rows": np.random.default_rng(0).permutation(233),
        "row_offsets": np.concatenate([[0], np.cumsum(sizes)]),
        "sample_weight": np.random.default_rng(1).uniform(0.1, 2.0, size=233),
        "forms": np.array([0, 1, 3, 0], dtype=np.uint8),
    }
    serial = Job(X, ks, isa, **changes).run()
    for n_threads in (2, 3, 5, 100):
        parallel = Job(X, ks, isa, **changes, n_threads=n_threads).run()
        for a, b in zip(serial.outputs(), parallel.outputs(), strict=True):
            assert_array_equal(a, b)
    first = 0
    for c, k in enumerate(ks):
        rows = changes["rows"][sum(sizes[:c]) : sum(sizes[: c + 1])]
        count = n_uniforms(k)
        alone = Job(
            X,
            [k],
            isa,
            **changes | {"rows": rows, "row_offsets": np.array([0, sizes[c]])},
        )
        alone.arguments |= {"forms": changes["forms"][c : c + 1], "uniforms": serial.uniforms[first : first + count]}
        first += count
        alone.run()
        at = slice(sum(ks[:c]), sum(ks[: c + 1]))
        assert_array_equal(alone.points, serial.points[at])
        assert_array_equal(alone.weights, serial.weights[at])
        assert_array_equal(alone.labels, serial.labels[sum(sizes[:c]) : sum(sizes[: c + 1])])


@dtypes
def test_assign_bits_do_not_depend_on_threads(dtype: str, isa: str) -> None:
    X, points = normal(1500, 9, dtype), normal(20, 9, dtype, seed=1)
    results = []
    for n_threads in (1, 2, 3, 5):
        labels, dist2 = np.empty(1500, dtype=np.int64), np.empty(1500)
        core.assign(X, points, labels, dist2, n_threads, isa)
        results.append((labels, dist2))
    for labels, dist2 in results[1:]:
        assert_array_equal(labels, results[0][0])
        assert_array_equal(dist2, results[0][1])


@dtypes
@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_the_scale_of_the_weights_changes_nothing(scale: float, dtype: str, isa: str) -> None:
    X, w = normal(80, 6, dtype), 2.0 ** np.random.default_rng(0).integers(-3, 4, size=80)
    forms = np.ones(1, dtype=np.uint8)
    expected = Job(X, [5], isa, sample_weight=w, forms=forms).run()
    scaled = Job(X, [5], isa, sample_weight=w * 2.0 ** np.round(np.log2(scale)), forms=forms).run()
    for a, b in zip(expected.outputs(), scaled.outputs(), strict=True):
        assert_array_equal(a, b)


@dtypes
def test_a_vanishing_weight_is_no_trouble(dtype: str, isa: str) -> None:
    X, w = normal(9, 3, dtype), np.ones(9)
    w[4] = 5e-324
    for k in (2, 9):
        job = Job(X, [k], isa, sample_weight=w).run()
        assert np.isfinite(job.points).all()
        assert job.counts.min() > 0


@dtypes
def test_a_large_offset_changes_nothing(dtype: str, isa: str) -> None:
    X = blobs(dtype)
    moved = np.round(X * 8) / 8 + np.array(8192, dtype=dtype)  # exact in both types
    job = Job(moved, [4], isa, start_rows=np.array([0, 40, 80, 120])).run()
    assert_array_equal(job.labels, np.repeat(np.arange(4), 40))


def test_no_class_at_all(isa: str) -> None:
    Job(np.ones((2, 2)), [], isa, rows=np.array([], dtype=np.int64), row_offsets=np.array([0]), n_threads=4).run()
