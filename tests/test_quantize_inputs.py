"""What the quantiser accepts and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fits import DTYPES, assert_identical, normal
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from ddoq import _check
from ddoq._check import as_samples
from ddoq.quantize import quantize, quantize_classes

# Kinds of input


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda X: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
        lambda X: X[::-1].copy()[::-1],
        lambda X: X.astype(X.dtype.newbyteorder(">")),
        lambda X: X.tolist(),
    ],
    ids=["fortran", "strided", "negative stride", "big endian", "list"],
)
def test_any_layout(change: Callable[[NDArray[Any]], Any]) -> None:
    X = normal(40, 6)
    assert_identical(quantize(change(X), 4, random_state=0), quantize(X, 4, random_state=0))


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "int64", "bool"])
def test_halves_and_integers_become_float32(dtype: str) -> None:
    X = (10 * normal(60, 8)).clip(0, 100).astype(dtype)
    q = quantize(X, 3, random_state=0)
    assert q.points.dtype == np.float32
    assert_identical(q, quantize(X.astype(np.float32), 3, random_state=0))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_memory_mapped(tmp_path: Path, dtype: str) -> None:
    X = normal(40, 6, dtype)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert_identical(quantize(mapped, 4, random_state=0), quantize(X, 4, random_state=0))


def test_torch_bfloat16_becomes_float32() -> None:
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(normal(60, 8)).bfloat16()
    q = quantize(X, 3, random_state=0)
    assert q.points.dtype == np.float32
    assert_identical(q, quantize(X.float().numpy(), 3, random_state=0))
    assert_identical(quantize(X.T.contiguous().T, 3, random_state=0), q)


@pytest.mark.parametrize("dtype", DTYPES)
def test_input_is_not_copied(tmp_path: Path, dtype: str) -> None:
    X = normal(40, 6, dtype)
    np.save(tmp_path / "X.npy", X)
    for same in (X, np.load(tmp_path / "X.npy", mmap_mode="r")):
        assert np.shares_memory(as_samples(same), same)


@pytest.mark.parametrize("dtype", DTYPES)
def test_input_is_not_written(dtype: str) -> None:
    X, w = normal(40, 6, dtype), np.ones(40)
    before = X.copy()
    X.setflags(write=False)
    w.setflags(write=False)
    quantize(X, 4, sample_weight=w, init=X[:4], refine="hartigan")
    assert_array_equal(X, before)


# Refusals


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros(5), r"X must have the shape \(samples, features\)"),
        (np.zeros((0, 3)), "X is empty"),
        (np.zeros((3, 0)), "X is empty"),
        ([[1.0, 2.0], [np.nan, 0.0]], r"X\[1, 0\] is nan"),
        ([[1.0, 2.0], [3.0, -np.inf]], r"X\[1, 1\] is -inf"),
        (np.full((3, 2), 1e30, dtype=np.float32), "overflow float32"),
        (np.full((3, 2), np.inf, dtype=np.float16), r"X\[0, 0\] is inf"),
    ],
)
def test_bad_samples(X: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(X, 1)


@pytest.mark.parametrize(
    "X", [np.zeros((3, 2), dtype=complex), np.array([["a"]]), [[None]], np.zeros((3, 2), np.longdouble)]
)
def test_samples_that_are_not_real_numbers(X: Any) -> None:
    with pytest.raises(TypeError, match="X must hold real numbers"):
        quantize(X, 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be at least 1"),
        ({"k": 2.0}, TypeError, "k must be an integer"),
        ({"k": True}, TypeError, "k must be an integer"),
        ({"k": 11}, ValueError, "k = 11 is above the 10 samples of positive weight: choose a smaller k"),
        ({"k": 10, "sample_weight": [0] + [1] * 9}, ValueError, "k = 10 is above the 9 samples of positive weight"),
        ({"sample_weight": np.ones(9)}, ValueError, r"sample_weight must have the shape \(10,\)"),
        ({"sample_weight": [1] * 9 + [-1]}, ValueError, r"sample_weight\[9\] is -1.0"),
        ({"sample_weight": [np.nan] + [1] * 9}, ValueError, r"sample_weight\[0\] is nan"),
        ({"sample_weight": np.zeros(10)}, ValueError, "above the 0 samples of positive weight"),
        ({"init": "kmeans"}, ValueError, "init must be"),
        ({"init": np.zeros((2, 3))}, ValueError, r"init must hold all starting points, shape \(2, 4\)"),
        ({"init": np.full((2, 4), np.nan)}, ValueError, r"init\[0\] has a NaN"),
        ({"init": np.zeros((2, 4)), "n_init": 2}, ValueError, "n_init is 2"),
        ({"n_init": 0}, ValueError, "n_init must be at least 1"),
        ({"init": "random", "n_init": 2**62}, ValueError, "too big"),  # at once, not after as many draws
        ({"k": 2**63}, ValueError, r"k must be below 2\*\*63"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
        ({"refine": "yes"}, ValueError, "refine must be"),
        ({"random_state": -1}, ValueError, "random_state must not be negative"),
        ({"random_state": "0"}, TypeError, "random_state must be"),
        ({"n_threads": 0}, ValueError, "n_threads"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        quantize(**{"X": normal(10, 4), "k": 2, **options})


def test_more_points_than_distinct_samples() -> None:
    X = [[0.0, 1.0], [-0.0, 1.0], [2.0, 3.0], [2.0, 3.0], [2.0, 4.0]]
    with pytest.raises(ValueError, match=r"k = 4 is above the 3 distinct samples \(of 5\): choose a smaller k"):
        quantize(X, 4)
    assert quantize(X, 3, random_state=0).distortion == 0.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"y": list("aaabb")}, ValueError, "y must have one label for each of the 6 rows"),
        ({"y": [0, 0, 0, 1, 1, np.nan]}, ValueError, r"y\[5\] is not finite"),
        ({"k": [1]}, ValueError, "k has 1 numbers of points for 2 classes"),
        ({"k": [1, 0]}, ValueError, r"k\[1\] must be at least 1"),
        ({"k": "2"}, TypeError, "k must be an integer or a sequence"),
        ({"k": [3, 4]}, ValueError, "k = 4 is above the 3 samples of positive weight of class 'dog'"),
        ({"k": 3}, ValueError, r"k = 3 is above the 2 distinct samples \(of 3\) of class 'dog'"),
        ({"sample_weight": [1, 1, 1, 0, 0, 0]}, ValueError, "above the 0 samples of positive weight of class 'dog'"),
        ({"X": [[0], [1], [2], [3], [np.inf], [5]]}, ValueError, r"X\[4, 0\] of class 'dog' is inf"),
        ({"init": np.zeros((3, 1))}, ValueError, r"init must hold all starting points, shape \(2, 1\)"),
        ({"random_state": [np.random.SeedSequence(0)]}, ValueError, "1 seed sequences for 2 classes"),
        ({"random_state": [0, 1]}, TypeError, "SeedSequence for each class"),
    ],
)
def test_bad_classes(options: dict[str, Any], error: type[Exception], message: str) -> None:
    valid = {"X": [[0.0], [1], [2], [3], [3], [5]], "y": ["cat"] * 3 + ["dog"] * 3, "k": 1}
    with pytest.raises(error, match=message):
        quantize_classes(**{**valid, **options})


def test_gram_matrix_that_does_not_fit() -> None:
    X = np.arange(6_000_000, dtype=np.float64)[:, None]
    y = np.repeat(["big", "small"], [5_000_000, 1_000_000])
    message = (
        r"5000000 samples of class 'big' takes 1\d{5}\.\d GiB.*use form=\"streaming\" or n_threads=1 or float32 or"
    )
    with pytest.raises(MemoryError, match=message):
        quantize_classes(X, y, 2, form="gram", n_threads=2)


@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("float64", 8)])
def test_memory_is_known_before_and_the_advice_helps(
    dtype: str, itemsize: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = normal(90, 5, dtype), np.repeat([0, 1, 2], [40, 20, 30])
    largest, next_largest = (n * ((n + 5) * itemsize + 8 * 2) for n in (40, 30))  # Gram matrix, centred copy, cell sums

    monkeypatch.setattr(_check, "available_memory", lambda: largest + next_largest)
    quantize_classes(X, y, 2, n_threads=2)
    monkeypatch.setattr(_check, "available_memory", lambda: largest + next_largest - 1)
    with pytest.raises(MemoryError, match=r'40 samples of class 0 .* use form="streaming" or n_threads=1 or'):
        quantize_classes(X, y, 2, n_threads=2)
    quantize_classes(X, y, 2, n_threads=1)
    quantize_classes(X, y, 2, n_threads=2, form="streaming")
    monkeypatch.setattr(_check, "available_memory", lambda: largest - 1)
    last = "float32 or fewer" if dtype == "float64" else "fewer samples"
    with pytest.raises(MemoryError, match=f'use form="streaming" or {last}'):
        quantize_classes(X, y, 2, n_threads=1)
    monkeypatch.setattr(_check, "available_memory", lambda: 1000)
    with pytest.raises(MemoryError, match=f"are free: use {last}"):
        quantize_classes(X, y, 2, n_threads=1)
    with pytest.raises(MemoryError, match=f"40 samples of class 0 takes .* are free: use {last}"):
        quantize_classes(X, y, 2, form="streaming")
