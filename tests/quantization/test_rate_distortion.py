"""Rate-distortion curves against the fits they stand for, and against numbers found by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ddoq import quantize_classes, rate_distortion
from ddoq.machine import backend
from ddoq.quantization.forms import GRAM, GRAM_MOVES, SKETCH, STREAMING


def ragged(dtype: str) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(260, 7)) + 5).astype(dtype)
    return X, np.repeat(["b", "a", "c"], [150, 80, 30]), rng.uniform(0, 2, 260) * (np.arange(260) % 11 > 0)


def test_by_hand() -> None:
    curve = rate_distortion([[0.0], [1.0], [2.0], [9.0]], k=[1, 2, 3, 4], random_state=0)
    assert curve.classes.tolist() == [None]
    assert curve.distortion.tolist() == [[12.5, 0.5, 0.125, 0.0]]
    assert curve.w2[0, 1] ** 2 == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_each_value_is_that_of_its_own_call(dtype: str, init: Any, n_threads: int) -> None:
    X, y, w = ragged(dtype)
    options: Any = {"sample_weight": w, "init": init, "n_init": 3, "random_state": 4}
    curve = rate_distortion(X, y, [5, 1, 20, 2, 5], n_threads=n_threads, **options)
    assert curve.classes.tolist() == ["a", "b", "c"]
    for j, k in enumerate(curve.k.tolist()):
        assert_array_equal(curve.distortion[:, j], quantize_classes(X, y, k, **options).distortion)


@pytest.mark.parametrize(
    ("n", "d", "k", "forms"),
    [
        (900, 1024, [2, 60, 17], [SKETCH] * 3),
        (600, 1024, [2, 35, 60, 100, 39], [GRAM_MOVES, GRAM_MOVES, GRAM, GRAM, GRAM_MOVES]),
        (4200, 2, [2, 100, 42, 300], [STREAMING] * 4),
        (4200, 2, [2, 42, 100], [GRAM_MOVES] * 3),
        (4200, 1024, [2, 42], [SKETCH] * 2),
    ],
)
def test_all_numbers_of_points_have_one_form(
    n: int, d: int, k: list[int], forms: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Core:
        def __init__(self) -> None:
            self.forms: list[int] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(core, name)

        def quantize_classes(self, *arguments: Any) -> None:
            self.forms += arguments[12].tolist()
            arguments[19][:] = 1

    core, spy = backend.core, Core()
    monkeypatch.setattr(backend, "core", spy)
    X = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    rate_distortion(np.tile(X, (1, d // 2)), k=k, random_state=0)
    assert spy.forms == forms


def test_one_sketch_for_all_numbers_of_points() -> None:
    # there are 640 features and 608 samples in the sketch of 2 points, 512 and 840 in that of 60 and in that of both
    X, options = np.random.default_rng(0).normal(size=(950, 3072)).astype(np.float32), {"max_iter": 2, "n_init": 1}
    both = rate_distortion(X, k=[2, 60], random_state=0, **options).distortion[0]  # type: ignore[arg-type]
    alone = [rate_distortion(X, k=[k], random_state=0, **options).distortion[0, 0] for k in (2, 60)]  # type: ignore[arg-type]
    assert both[0] != alone[0]
    assert both[1] == alone[1]


@pytest.mark.parametrize(
    ("k", "error", "match"),
    [
        ([], TypeError, "at least one"),
        (3, TypeError, "sequence"),
        ([1, 0], ValueError, r"k\[1\] must be an integer of at least 1"),
        ([1, 4, 2], ValueError, "3 samples of positive weight of class 'b'"),
    ],
)
def test_bad_k(k: Any, error: type[Exception], match: str) -> None:
    X = np.arange(8.0)[:, None]
    with pytest.raises(error, match=match):
        rate_distortion(X, list("aaaaabbb"), k)


def test_starting_points_are_refused() -> None:
    with pytest.raises(ValueError, match="starting points fit one number"):
        rate_distortion([[0.0], [1.0]], k=[1], init=[[0.0]])  # type: ignore[arg-type]


def test_a_bad_value_names_its_class() -> None:
    with pytest.raises(ValueError, match=r"X\[2, 0\] of class 'b'"):
        rate_distortion([[0.0], [1.0], [np.nan]], ["a", "a", "b"], [1])


def test_plot_has_a_line_for_each_class_and_leaves_zeros_out() -> None:
    pytest.importorskip("matplotlib")
    X, y = np.arange(50.0)[:, None], np.arange(50) % 25
    axes = rate_distortion(X, y, [2, 1]).plot()
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [line.get_xdata().tolist() for line in axes.get_lines()] == [[1]] * 25
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [str(c) for c in range(25)]
