"""What the quantiser accepts and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fits import DTYPES, assert_identical, normal
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from ddoq.machine.backend import core
from ddoq.quantization import footprint, samples
from ddoq.quantization.forms import GRAM, SKETCH, STREAMING, forms_of
from ddoq.quantization.quantize import quantize, quantize_classes
from ddoq.quantization.samples import as_samples

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


@pytest.mark.parametrize("isa", core.isas())
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "options",
    [
        {"k": 7},
        {"k": 7, "refine": "hartigan"},
        {"k": 7, "max_iter": 1},
        {"k": 600},
        {"k": 7, "form": "streaming"},
        {"k": 7, "form": "streaming", "init": "random"},
        {"k": 3, "method": "clvq"},
    ],
    ids=str,
)
def test_halves_give_the_bits_of_float32(
    isa: str, kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDOQ_ISA", isa)
    wide = np.hstack([normal(600, 4095, "float32"), np.float32(2.0**-24) * np.arange(600, dtype=np.float32)[:, None]])
    if kind == "float16":
        halves = wide.astype(np.float16)
        full = halves.astype(np.float32)
    else:
        torch = pytest.importorskip("torch")
        halves = torch.from_numpy(wide).bfloat16()
        full = halves.float().numpy()
    for d in (4096, 45):  # in a sketch, which is for 512 samples of some weight and more, and not
        if d == 45:
            halves, full = halves[:, -45:], full[:, -45:]
        weight = None if "method" in options else np.arange(600) % 9 + (1 if options["k"] == 600 else 0)
        q = quantize(halves, **options, sample_weight=weight, random_state=0)
        assert q.points.dtype == np.float32
        assert_identical(q, quantize(full, **options, sample_weight=weight, random_state=0))


@pytest.mark.parametrize("isa", core.isas())
def test_every_half_widens_to_its_float32(isa: str) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    zero, labels, dist2 = np.zeros((1, 1), np.float32), np.empty(len(bits), np.int64), np.empty(len(bits))
    for halves, full in (
        (bits.view(np.float16), bits.view(np.float16).astype(np.float32)),
        (bits, (bits.astype(np.uint32) << 16).view(np.float32)),
    ):
        core.assign(halves[:, None], zero, labels, dist2, 1, isa)
        with np.errstate(invalid="ignore"):  # signalling NaN
            assert_array_equal(dist2, full.astype(np.float64) ** 2)
        assert np.isnan(core.largest(halves[:, None], 2, isa))
        for largest in (65504.0, np.inf):
            few = bits[np.abs(full) <= largest]
            greatest = core.largest(few.view(halves.dtype)[:, None], 2, isa)
            assert greatest == np.abs(full[np.abs(full) <= largest]).max()


@pytest.mark.parametrize("isa", core.isas())
@pytest.mark.parametrize("dtype", DTYPES)
def test_largest(isa: str, dtype: str) -> None:
    X = normal(700, 97, dtype)
    for i, value in ((3, 9.5), (600, -11.0), (0, -np.inf), (699, np.nan)):
        X[i, i % 97] = value
        assert_array_equal(core.largest(X, 3, isa), abs(value))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_input_is_not_copied(tmp_path: Path, dtype: str) -> None:
    X = normal(40, 6, dtype)
    np.save(tmp_path / "X.npy", X)
    for same in (X, np.load(tmp_path / "X.npy", mmap_mode="r")):
        assert np.shares_memory(as_samples(same, halves=True), same)


def test_bfloat16_is_not_copied() -> None:
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(normal(40, 6)).bfloat16()
    assert as_samples(X, halves=True).ctypes.data == X.data_ptr()
    assert_identical(quantize(X.T.contiguous().T, 3, random_state=0), quantize(X, 3, random_state=0))
    with pytest.raises(ValueError, match=r"X\[1, 0\] is inf"):
        quantize(torch.tensor([[0.0], [torch.inf]], dtype=torch.bfloat16), 1)
    with pytest.raises(ValueError, match="values up to 1e\\+30, whose squared distances overflow float32"):
        quantize(torch.tensor([[0.0], [1e30]], dtype=torch.bfloat16), 1)


@pytest.mark.parametrize("form", ["gram", "streaming"])
def test_halves_are_never_copied_whole(form: str, tmp_path: Path) -> None:
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float16, (400, 20_000))
    for row in X:
        row[:] = np.random.default_rng().normal(size=X.shape[1])
    program = (
        "import re, sys, numpy as np, ddoq\n"
        "def peak():\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024\n"
        "X = np.load(sys.argv[1], mmap_mode='r')\n"
        "ddoq.quantize(X[:50, :50], 2)\n"  # imports what is imported late
        "X.max()\n"  # its pages are in memory now
        "before = peak()\n"
        "ddoq.quantize(X, 40, form=sys.argv[2], random_state=0, n_threads=1)\n"
        "print(peak() - before, X.nbytes)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "X.npy", form], check=True, capture_output=True, text=True
    )
    grown, size = map(int, answer.stdout.split())
    # X is 16 MB, and would be 32 MB in float32. Gram form: points of 3.2 MB, a matrix of 0.6 MB. Streaming: panels of
    # 38 MB, points, the same in panels, candidates, sums of 6.4 MB of the cells and of 10 MB of the rows: 69 MB
    assert grown < (size / 2 if form == "gram" else 5 * size)


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
        ({"k": 0}, ValueError, "k must be an integer of at least 1"),
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
        ({"n_init": 0}, ValueError, "n_init must be an integer of at least 1"),
        ({"init": "random", "n_init": 2**62}, ValueError, "too big"),  # at once, not after as many draws
        ({"k": 2**63}, ValueError, r"k must be below 2\*\*63"),
        ({"max_iter": 0}, ValueError, "max_iter must be an integer of at least 1"),
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
        ({"k": [1, 0]}, ValueError, r"k\[1\] must be an integer of at least 1"),
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
    # Gram matrix, panels, cell sums, vectors of each sample, point and feature
    largest, next_largest = (
        (n * n + (n + 48) * 5) * itemsize + 8 * (2 * n + 13 * n + 7 * 2 + 1) + (8 + 5 * itemsize) * 5 for n in (40, 30)
    )

    monkeypatch.setattr(footprint, "available_memory", lambda: largest + next_largest)
    quantize_classes(X, y, 2, n_threads=2)
    monkeypatch.setattr(footprint, "available_memory", lambda: largest + next_largest - 1)
    with pytest.raises(MemoryError, match=r'40 samples of class 0 .* use form="streaming" or n_threads=1 or'):
        quantize_classes(X, y, 2, n_threads=2)
    with pytest.raises(MemoryError, match='use form="streaming", refine="none" or n_threads=1 or'):
        quantize_classes(X, y, 2, n_threads=2, refine="hartigan")
    quantize_classes(X, y, 2, n_threads=1)
    quantize_classes(X, y, 2, n_threads=2, form="streaming")
    quantize_classes(X, y, 2, n_threads=2, form="streaming", refine="none")
    monkeypatch.setattr(footprint, "available_memory", lambda: largest - 1)
    last = "float32 or fewer" if dtype == "float64" else "fewer samples"
    with pytest.raises(MemoryError, match=f'use form="streaming" or {last}'):
        quantize_classes(X, y, 2, n_threads=1)
    monkeypatch.setattr(footprint, "available_memory", lambda: 1000)
    with pytest.raises(MemoryError, match=f"are free: use {last}"):
        quantize_classes(X, y, 2, n_threads=1)
    with pytest.raises(MemoryError, match=f"40 samples of class 0 takes .* are free: use {last}"):
        quantize_classes(X, y, 2, form="streaming")


@pytest.mark.parametrize(
    ("n", "d", "k", "form"), [(4000, 50, 400, GRAM), (4000, 6000, 60, SKETCH), (30_000, 300, 50, STREAMING)]
)
def test_memory_taken_is_the_memory_foretold(n: int, d: int, k: int, form: int) -> None:
    refine = "auto" if form == SKETCH else "none"
    program = (
        "import re, sys, numpy as np, ddoq\n"
        "n, d, k, refine = *map(int, sys.argv[1:4]), sys.argv[4]\n"
        "X = np.random.default_rng(0).random(size=(n, d), dtype='float32')\n"
        "ddoq.quantize(X[:50, :50], 2)\n"  # imports what is imported late
        "def peak(field):\n"
        "    return int(re.search(field + r':\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024\n"
        "before = peak('VmRSS')\n"
        "q = ddoq.quantize(X, k, refine=refine, random_state=0, n_threads=1)\n"
        "print(peak('VmHWM') - before - q.points.nbytes)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, *map(str, (n, d, k)), refine], check=True, capture_output=True, text=True
    )
    sizes, points = np.array([n]), np.array([k])
    assert forms_of("auto", refine, sizes, points, d).tolist() == [form]
    foretold = footprint.form_bytes(np.array([form], np.uint8), sizes, points, d, 4)[0]
    # rows of halves that are widened, and whole panels, are foretold of every type and number
    assert 0.75 * foretold < int(answer.stdout) < 1.1 * foretold


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int64", "uint64", ">i4", "float64", "U3"])
@pytest.mark.parametrize("labels", [[3, 1, 1, 7], [5], [120, 119], [0, 2, 0]])
def test_classes_of_any_type_are_the_sorted_distinct_labels(labels: list[int], dtype: str) -> None:
    y = np.array(labels).astype(dtype)
    classes, index = samples.as_classes(y, len(y))
    assert_array_equal(classes, np.unique(y), strict=True)
    assert_array_equal(classes[index], y)
    assert index.dtype == np.int64


def test_classes_of_extreme_labels() -> None:
    for y in (np.array([-(2**63), 2**63 - 1, 5]), np.array([2**64 - 1, 2**64 - 2], dtype=np.uint64)):
        classes, index = samples.as_classes(y, len(y))
        assert_array_equal(classes, np.sort(y))
        assert_array_equal(classes[index], y)
