"""The full assignment, which all weights, labels and distortions come from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from fits import DTYPES, normal
from numpy.testing import assert_allclose, assert_array_equal
from tolerances import DISTORTION

from ddoq import OnlineQuantizer, w2
from ddoq.quantization import reference
from ddoq.quantization.assign import assign, cells
from ddoq.quantization.quantize import quantize, quantize_classes


@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_and_squares_are_those_of_the_reference(dtype: str) -> None:
    X, points = normal(200, 7).astype(dtype), normal(9, 7, seed=1).astype(dtype)
    labels, squares = assign(X, points)
    expected_labels, expected_squares = reference.assign(X, points)
    assert labels.dtype == np.int64
    assert squares.dtype == np.float64
    assert_array_equal(labels, expected_labels)
    assert_allclose(squares, expected_squares, rtol=DISTORTION[dtype])


def test_the_lowest_point_wins_ties_for_any_number_of_threads() -> None:
    X, points = np.array([[0.0], [1.0], [2.0]]), np.array([[2.0], [0.0], [0.0]])
    for n_threads in (None, 1, 3):
        labels, squares = assign(X, points, n_threads)
        assert_array_equal(labels, [1, 0, 0])
        assert_array_equal(squares, [0, 1, 0])


def test_halves_are_assigned_as_float32() -> None:
    X, points = normal(50, 5).astype(np.float16), normal(4, 5, seed=1).astype(np.float32)
    for of_halves, expected in zip(assign(X, points), assign(X.astype(np.float32), points), strict=True):
        assert_array_equal(of_halves, expected)


def test_cells_by_hand() -> None:
    points = np.array([[1.0], [100.0], [8.0]])
    quantization = cells(np.array([[0.0], [2.0], [4.0], [8.0]]), points, n_iter=5)
    assert quantization.points is points
    assert_array_equal(quantization.labels, [0, 0, 0, 2])
    assert_array_equal(quantization.counts, [3, 0, 1])
    assert_array_equal(quantization.weights, [0.75, 0, 0.25])  # a point that no sample is nearest to has no weight
    assert quantization.distortion == (1 + 1 + 9 + 0) / 4
    assert quantization.n_iter == 5


def test_distortion_of_cells_is_the_square_of_w2() -> None:
    X, points = normal(300, 4), normal(6, 4, seed=1)
    assert math.isclose(cells(X, points).distortion, w2(X, points) ** 2, rel_tol=1e-12)


def test_every_function_gives_the_same_cells_to_the_same_points() -> None:
    X = normal(120, 3)
    fit = quantize(X, 5, random_state=0, refine="none", tol=0)
    online = OnlineQuantizer.from_quantization(fit).quantization(X)
    for quantization in (cells(X, fit.points), online):
        assert_array_equal(quantization.labels, fit.labels)
        assert_array_equal(quantization.counts, fit.counts)
        assert_allclose(quantization.weights, fit.weights, rtol=1e-12)
        assert_allclose(quantization.distortion, fit.distortion, rtol=1e-10)


@pytest.mark.parametrize("options", [{}, {"form": "streaming"}, {"form": "gram", "refine": "hartigan"}])
def test_samples_of_weight_zero_have_the_nearest_points_of_their_class(options: dict[str, Any]) -> None:
    X, y = normal(90, 3), np.arange(90) % 2
    weights = np.where(np.arange(90) < 30, 0.0, 1.0)
    q = quantize_classes(X, y, [3, 4], sample_weight=weights, random_state=0, **options)
    for c in range(2):
        assert_array_equal(q[c].labels[:15], assign(X[y == c][:15], q[c].points)[0])
    assert q.counts.sum() == 60
