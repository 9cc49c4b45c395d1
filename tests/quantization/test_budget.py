"""Sharing points over classes: against every allocation of tiny problems, and what must hold of any."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddoq import quantize_classes
from ddoq.quantization.budget import convex_curve, grid, share


def exact_curve(x: Any) -> Any:
    """Least distortion of sorted samples on a line for 1 to n points: over all cuts into runs."""
    n = len(x)

    def least(k: int) -> float:
        cuts = itertools.combinations(range(1, n), k - 1)
        return min(sum(part.var() * len(part) for part in np.split(x, list(cut))) for cut in cuts) / n

    return np.array([least(k) for k in range(1, n + 1)])


def total(curves: Any, mass: Any, k: Any) -> float:
    return float(sum(m * curve[j - 1] for m, curve, j in zip(mass, curves, k, strict=True)))


@pytest.mark.parametrize("seed", range(10))
def test_no_allocation_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 7, size=3)
    exact = [exact_curve(np.sort(rng.normal(size=n) * 3**c)) for c, n in enumerate(sizes)]
    curves = [convex_curve(np.arange(1, len(curve) + 1), curve) for curve in exact]
    mass = rng.uniform(0.1, 2, 3)
    for budget in range(3, int(sizes.sum()) + 1):
        options = itertools.product(*(range(1, n + 1) for n in sizes))
        least = min(total(curves, mass, k) for k in options if sum(k) == budget)
        k = share(curves, mass, budget)
        assert k.sum() == budget
        assert_allclose(total(curves, mass, k), least, atol=1e-12)


def test_curve_is_convex_and_does_not_rise() -> None:
    k = np.array([1, 2, 4, 8, 16])
    curve = convex_curve(k, np.array([9.0, 8.0, 2.0, 2.5, 0.0]))
    assert curve.shape == (16,)
    assert (np.diff(curve) <= 0).all()
    assert (np.diff(curve, 2) >= -1e-12).all()
    assert_allclose(curve[[0, 1, 3, 15]], [9.0, (9 + 8 * (2 / 3) ** 2) / 2, 2.0, 0.0])


def test_a_power_law_is_met_between_measurements() -> None:
    assert_allclose(convex_curve(np.array([1, 16]), np.array([4.0, 0.25])), 4 / np.arange(1, 17))


def test_a_class_of_equal_samples_has_a_curve_of_zeros() -> None:
    assert_array_equal(convex_curve(np.array([1]), np.array([0.0])), [0.0])


def test_grid() -> None:
    assert [grid(n).tolist() for n in (1, 2, 4, 13)] == [[1], [1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 6, 8, 11, 13]]


def test_ragged_classes_spend_the_whole_budget_where_it_pays() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(100, 3)), 10 * rng.normal(size=(100, 3)), np.zeros((20, 3)), [[1, 2, 3]]])
    y = np.repeat([0, 1, 2, 3], [100, 100, 20, 1])
    fits = [quantize_classes(X, y, budget=40, random_state=1, n_threads=n) for n in (1, 2)]
    k = np.diff(fits[0].offsets)
    assert k.sum() == 40
    assert k[2] == k[3] == 1
    assert k[1] > k[0]
    assert_array_equal(fits[0].points, fits[1].points)
    assert_array_equal(fits[0].points, quantize_classes(X, y, k, random_state=1).points)
    assert np.diff(quantize_classes(X, y, budget=202, random_state=1).offsets).tolist() == [100, 100, 1, 1]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({}, TypeError, "either k or budget"),
        ({"k": 1, "budget": 2}, TypeError, "either k or budget"),
        ({"budget": 1}, ValueError, "below one point for each of the 2"),
        ({"budget": 4}, ValueError, "above the 3 distinct"),
        ({"budget": 2.5}, TypeError, "budget must be an integer"),
        ({"budget": 2, "init": [[0.0], [1.0]]}, ValueError, "with a budget"),
        ({"budget": 2, "sample_weight": [1, 1, 1, 0]}, ValueError, "0 samples of positive weight of class 'b'"),
    ],
)
def test_errors(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        quantize_classes([[0.0], [1.0], [1.0], [5.0]], list("aaab"), **options)
