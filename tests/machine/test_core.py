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
