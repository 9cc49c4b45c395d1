"""The compiled core by itself: kernels and fits on every instruction set against NumPy, threads, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from ddoq import _core as core

LENGTHS = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 97)
DTYPES = ("float32", "float64")
# Relative error of a product of up to 97 or 600 features accumulated in the dtype, with a factor of some units.
EPSILON = {"float32": 2e-6, "float64": 5e-15}

pytestmark = pytest.mark.parametrize("isa", core.isas())
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def normal(n: int, d: int, dtype: str, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng([n, d, seed]).normal(size=(n, d)).astype(dtype)


def n_uniforms(k: int) -> int:
    return 1 + (k - 1) * (2 + int(np.log(k)))


class Job:
    """Arguments of quantize_classes by name, outputs allocated; equal class sizes unless offsets are given."""

    def __init__(self, X: NDArray[Any], ks: list[int], isa: str, **changes: Any) -> None:
        n, C, K = len(X), len(ks), sum(ks)
        uniforms = np.random.default_rng(0).random(sum(n_uniforms(k) for k in ks))
        self.arguments: dict[str, Any] = {
            "X": X,
            "sample_weight": np.ones(n),
            "rows": np.arange(n),
            "row_offsets": np.arange(C + 1) * n // max(C, 1),
            "point_offsets": np.concatenate([[0], np.cumsum(ks)]).astype(np.int64),
            "n_init": 1,
            "n_starts": np.ones(C, dtype=np.int64),
            "uniforms": uniforms,
            "start_rows": None,
            "start_points": None,
            "max_iter": 300,
            "tol": 0.0,
            "forms": np.zeros(C, dtype=np.uint8),
            "n_threads": 1,
            "isa": isa,
            "points": np.full((K, X.shape[1]), np.nan, dtype=X.dtype),
            "weights": np.full(K, np.nan),
            "counts": np.full(K, -1),
            "labels": np.full(n, -1),
            "distortion": np.full(C, np.nan),
            "n_iter": np.full(C, -1),
            "progress": None,
        }
        assert set(changes) <= set(self.arguments)
        if changes.get("start_rows") is not None or changes.get("start_points") is not None:
            self.arguments["uniforms"] = None
        self.arguments |= changes
        if "n_starts" not in changes:
            self.arguments["n_starts"] = np.full(C, self.arguments["n_init"])
        if "rows" in changes:
            self.arguments["labels"] = np.full(len(changes["rows"]), -1)

    def __getattr__(self, name: str) -> Any:
        return self.arguments[name]

    def run(self) -> Job:
        core.quantize_classes(*self.arguments.values())
        return self

    def outputs(self) -> list[NDArray[Any]]:
        return [self.arguments[name] for name in ("points", "weights", "counts", "labels", "distortion", "n_iter")]


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


# Kernels


@dtypes
@pytest.mark.parametrize("n", LENGTHS)
def test_gram(n: int, dtype: str, isa: str) -> None:
    for d in (0, *LENGTHS, 255, 256, 257, 600):
        X, out = normal(n, d, dtype), np.full((n, n), np.nan, dtype=dtype)
        core.gram(X, out, isa)
        wide = X.astype(float)
        norms = np.linalg.norm(wide, axis=1)
        assert np.abs(out - wide @ wide.T).max() <= EPSILON[dtype] * np.outer(norms, norms).max()
        assert_array_equal(out, out.T)


@dtypes
def test_gram_of_integers_is_exact(dtype: str, isa: str) -> None:
    X = np.random.default_rng(0).integers(-9, 10, size=(200, 300))
    out = np.empty((200, 200), dtype=dtype)
    core.gram(X.astype(dtype), out, isa)
    assert_array_equal(out, X @ X.T)


@dtypes
def test_duplicate_rows_have_identical_products(dtype: str, isa: str) -> None:
    X = normal(97, 300, dtype)
    copies = np.array([1, 7, 33, 96])
    X[copies] = X[0]
    out = np.empty((97, 97), dtype=dtype)
    core.gram(X, out, isa)
    for i in copies:
        assert_array_equal(out[i], out[0])
        assert_array_equal(out[:, i], out[:, 0])
        assert out[i, i] + out[0, 0] - 2 * out[i, 0] == 0


@dtypes
@pytest.mark.parametrize("d", [0, *LENGTHS])
def test_assign(d: int, dtype: str, isa: str) -> None:
    for n in (0, 1, 17, 300):
        for k in (1, 2, 9):
            X, points = normal(n, d, dtype), normal(k, d, dtype, seed=1)
            labels, dist2 = np.full(n, -1), np.full(n, np.nan)
            core.assign(X, points, labels, dist2, 2, isa)
            squares = ((X[:, None].astype(float) - points.astype(float)) ** 2).sum(axis=2)
            assert_array_equal(labels, squares.argmin(axis=1))
            assert_allclose(dist2, squares.min(axis=1), rtol=1e-13)


@dtypes
def test_assign_gives_ties_to_the_lowest_index(dtype: str, isa: str) -> None:
    points = np.array([[5.0], [1.0], [-1.0], [1.0]], dtype=dtype)
    labels, dist2 = np.empty(3, dtype=np.int64), np.empty(3)
    core.assign(np.array([[0.0], [1.0], [3.0]], dtype=dtype), points, labels, dist2, 1, isa)
    assert_array_equal(labels, [1, 1, 0])
    assert_array_equal(dist2, [1.0, 0.0, 4.0])


@dtypes
@pytest.mark.parametrize("d", [31, 32, 33, 257, 600])
def test_assign_by_products_equals_direct_distances(d: int, dtype: str, isa: str) -> None:
    rng = np.random.default_rng(d)
    for n, k in ((400, 4), (400, 49), (1000, 145)):
        points = rng.integers(-2, 3, size=(k, d)).astype(dtype)
        points[k // 2 :] = points[: k - k // 2]  # the second of two equal points is never nearest
        points[-1] = 1e-3 + points[0]
        X = (
            points[rng.integers(k, size=n)]
            + rng.integers(-1, 2, size=(n, d)).astype(dtype)
            + np.dtype(dtype).type(1000)
        )
        X[: n // 2] -= np.dtype(dtype).type(1000)  # far from the points and among them
        labels, dist2 = np.empty(n, dtype=np.int64), np.empty(n)
        core.assign(X, points, labels, dist2, 2, isa)
        squares = ((X[:, None].astype(float) - points.astype(float)) ** 2).sum(axis=2)
        assert_array_equal(labels, squares.argmin(axis=1))
        assert_allclose(dist2, squares.min(axis=1), rtol=1e-13)


@dtypes
@pytest.mark.parametrize("scale", [1.0, 1e-21])
@pytest.mark.parametrize("d", [257, 784, 6272])
def test_assign_of_flat_samples_between_two_points_equals_direct_distances(
    d: int, scale: float, dtype: str, isa: str
) -> None:
    # all roundings of a product of flat samples are alike: they add up, and what underflows does
    rng = np.random.default_rng(d)
    n, level, apart = 400, rng.uniform(1, 2, 6) * np.repeat([1, -1], 3), 10 ** rng.uniform(-4, -2, 6)
    levels = scale * np.stack([level * (1 + apart), level * (1 - apart)], axis=1).reshape(12, 1)
    points = np.broadcast_to(levels, (12, d)).astype(dtype)
    near = np.finfo(dtype).eps * 10 ** rng.uniform(0, 4, n) * rng.choice([-1, 1], n)
    X = np.broadcast_to((scale * level[rng.integers(6, size=n)] * (1 + near))[:, None], (n, d)).astype(dtype)
    labels, dist2 = np.empty(n, dtype=np.int64), np.empty(n)
    core.assign(X, points, labels, dist2, 2, isa)
    squares = ((X[:, None].astype(float) - points.astype(float)) ** 2).sum(axis=2)
    assert_allclose(dist2, squares.min(axis=1), rtol=1e-13)
    assert_allclose(np.take_along_axis(squares, labels[:, None], axis=1)[:, 0], squares.min(axis=1), rtol=1e-13)


@dtypes
def test_assign_of_samples_that_are_not_finite_ends(dtype: str, isa: str) -> None:
    X, points = normal(50, 40, dtype), normal(6, 40, dtype, seed=1)
    X[3, 5], X[4, 6], X[5] = np.nan, np.inf, np.finfo(dtype).max
    labels, dist2 = np.full(50, -1), np.empty(50)
    core.assign(X, points, labels, dist2, 1, isa)
    assert ((labels >= 0) & (labels < 6)).all()
    assert np.isnan(dist2[3])
    assert dist2[4] == np.inf


# Quantisation


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
    own = squares[np.arange(200), job.labels] * job.counts[job.labels] / np.maximum(job.counts[job.labels] - 1, 1)
    others = squares * job.counts / (job.counts + 1)
    others[np.arange(200), job.labels] = np.inf
    assert np.all((others.min(axis=1) > own * (1 - 1e-4)) | (job.counts[job.labels] == 1))


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
    one = Job(X, ks, isa, **changes).run()
    for n_threads in (2, 3, 5, 100):
        many = Job(X, ks, isa, **changes, n_threads=n_threads).run()
        for a, b in zip(one.outputs(), many.outputs(), strict=True):
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
        alone.arguments |= {"forms": changes["forms"][c : c + 1], "uniforms": one.uniforms[first : first + count]}
        first += count
        alone.run()
        at = slice(sum(ks[:c]), sum(ks[: c + 1]))
        assert_array_equal(alone.points, one.points[at])
        assert_array_equal(alone.weights, one.weights[at])
        assert_array_equal(alone.labels, one.labels[sum(sizes[:c]) : sum(sizes[: c + 1])])


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


# Progress, interruption, threads


def slow_job(isa: str, **changes: Any) -> Job:
    """Many classes, half a second or more of work on one thread."""
    return Job(normal(2400, 2000, "float32"), [100] * 4, isa, **changes)


def test_progress_is_called_with_the_number_of_finished_classes(isa: str) -> None:
    calls: list[int] = []
    slow_job(isa, progress=calls.append).run()
    assert calls == sorted(calls)
    assert calls[-1] == 4


def test_an_exception_from_progress_stops_the_work(isa: str) -> None:
    def refuse(done: int) -> None:
        raise LookupError(f"enough after {done}")

    with pytest.raises(LookupError, match="enough after"):
        slow_job(isa, progress=refuse, n_threads=2).run()


def test_progress_is_not_called_again_after_its_exception(isa: str) -> None:
    # So many points that the work takes longer to stop than the time between two calls.
    X = normal(7000, 2, "float32")
    for last in range(1, 7):
        calls: list[int] = []

        def stop(done: int, calls: list[int] = calls, last: int = last) -> None:
            calls.append(done)
            if len(calls) >= last:
                raise LookupError(f"enough after {len(calls)}")

        forms = np.ones(1, dtype=np.uint8)
        with pytest.raises(LookupError, match=f"^enough after {last}$"):
            Job(X, [6500], isa, start_rows=np.arange(6500), forms=forms, progress=stop).run()


INTERRUPTED = """
import signal, sys
import numpy as np
from ddoq import _core as core

signal.signal(signal.SIGINT, signal.default_int_handler)  # the children of a background job ignore it
X, out = np.ones((12_000, 8_000), dtype=np.float32), np.empty((12_000, 12_000), dtype=np.float32)
print("ready", flush=True)
try:
    core.gram(X, out, sys.argv[1])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_is_heard_in_the_middle_of_a_product(isa: str) -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED, isa], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)  # work of ten seconds or more has begun
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        answer = process.stdout.readline()
        waited = time.monotonic() - sent
        process.kill()
    assert answer == "interrupted\n"
    assert waited < 5  # about 0.1 s on an idle machine


def test_work_completes_where_no_thread_can_be_started(isa: str) -> None:
    script = (
        "import sys, numpy as np\n"
        "from ddoq import _core as core\n"
        "labels, dist2 = np.empty(1000, dtype=np.int64), np.empty(1000)\n"
        "core.assign(np.ones((1000, 2)), np.ones((3, 2)), labels, dist2, 4, sys.argv[1])\n"
        "print(labels.sum(), dist2.sum(), flush=True)\n"
    )
    # A stack limit beyond the address space makes every pthread_create fail.
    command = f'ulimit -s {1 << 38} && exec "$0" -c "$1" "$2"'
    arguments = ["bash", "-c", command, sys.executable, script, isa]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "0 0.0\n", done.stderr
