"""W2 by hand, against an independent linear programme, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import linprog
from tolerances import HAND, TRANSPORT

from ddoq.quantization import transport
from ddoq.quantization.quantize import quantize
from ddoq.quantization.transport import barycentre, w2

LINE, POINTS = np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([[1.0], [5.0]])


def test_voronoi_weights_by_hand() -> None:
    assert w2(LINE, POINTS) == 1.0
    # masses 1 0 0 3 and a point exactly on a sample: (1 * 1 + 3 * 0) / 4
    assert w2(LINE, [[1.0], [6.0]], sample_weight=[1, 0, 0, 3]) == 0.5


@pytest.mark.parametrize(
    ("weights", "sample_weight", "squared"),
    [
        ([0.5, 0.5], None, 1.0),
        ([3.0, 1.0], None, (1 + 1 + 9 + 1) / 4),
        ([0.0, 7.0], None, (25 + 9 + 1 + 1) / 4),
        ([0.25, 0.75], [1, 0, 0, 3], 0.25 * 1 + 0.75 * 1),
        ([1, 1], [1, 0, 0, 3], 0.25 * 1 + 0.25 * 25 + 0.5 * 1),
    ],
)
def test_given_weights_by_hand(weights: Any, sample_weight: Any, squared: float) -> None:
    assert_allclose(w2(LINE, POINTS, weights, sample_weight=sample_weight) ** 2, squared, rtol=HAND)


@pytest.mark.parametrize("unit", [5e-324, 1e-300, 1e308])
def test_masses_in_any_unit(unit: float) -> None:
    masses = [unit, 0.0, unit, unit]  # in the greatest unit their sum overflows
    assert_allclose(w2(LINE, [[1.0]], sample_weight=masses) ** 2, (1 + 9 + 25) / 3, rtol=HAND)
    # the sample at 2 goes to its neighbours: 1/12 to 0, which then has 1/3, and 2/12 to 4, which gives 1/12 to 6
    assert_allclose(w2(LINE, LINE, masses) ** 2, 4 * (1 / 12 + 2 / 12 + 1 / 12), rtol=HAND)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_given_weights_against_a_linear_programme(dtype: str) -> None:
    rng = np.random.default_rng(0)
    n, k = 23, 7
    X, points = rng.normal(size=(n, 5)).astype(dtype), rng.normal(size=(k, 5)).astype(dtype)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(k))
    costs = ((X[:, None].astype(float) - points) ** 2).sum(axis=2)
    rows, columns = np.kron(np.eye(n), np.ones(k)), np.kron(np.ones(n), np.eye(k))
    plan = linprog(costs.ravel(), A_eq=np.concatenate([rows, columns]), b_eq=np.concatenate([a, b]))
    assert_allclose(w2(X, points, b, sample_weight=a) ** 2, plan.fun, rtol=TRANSPORT)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_is_the_root_of_the_distortion(dtype: str) -> None:
    X = np.random.default_rng(1).normal(size=(300, 12)).astype(dtype) + 3
    q = quantize(X, 10, random_state=0)
    assert_allclose(w2(X, q.points), math.sqrt(q.distortion), rtol=TRANSPORT)
    assert_allclose(w2(X, q.points, q.weights), math.sqrt(q.distortion), rtol=TRANSPORT)


def test_kinds_of_input_may_differ() -> None:
    integers = LINE.astype(np.int64)
    assert w2(np.asfortranarray(integers), POINTS.astype(np.float16)) == 1.0
    assert w2(LINE.astype(np.float32), POINTS) == 1.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"points": [[1.0, 2.0]]}, ValueError, "X has 1 features and points has 2"),
        ({"points": [1.0]}, ValueError, "points must have the shape"),
        ({"points": [[1.0], [np.nan]]}, ValueError, r"points\[1, 0\] is nan"),
        ({"points": [["a"]]}, TypeError, "points must hold real numbers"),
        ({"X": [[0.0], [np.inf]]}, ValueError, r"X\[1, 0\] is inf"),
        ({"weights": [1.0]}, ValueError, r"weights must have the shape \(2,\)"),
        ({"weights": [1.0, -0.5]}, ValueError, r"weights\[1\] is -0.5"),
        ({"weights": [0.0, 0.0]}, ValueError, "weights are all zero"),
        ({"sample_weight": [0, 0, 0, 0]}, ValueError, "sample_weight are all zero"),
        ({"sample_weight": [1, 2]}, ValueError, r"sample_weight must have the shape \(4,\)"),
    ],
)
def test_bad_input(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        w2(**{"X": LINE, "points": POINTS, **arguments})


@pytest.mark.filterwarnings(
    "ignore:numItermax reached:UserWarning"
)  # the error is asked for here, the warning comes with it
def test_a_transport_that_is_not_optimal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_PIVOTS", 1)
    rng = np.random.default_rng(0)
    X, points = rng.normal(size=(50, 3)), rng.normal(size=(9, 3))
    with pytest.raises(RuntimeError, match="between 50 samples and 9 points failed"):
        w2(X, points, np.ones(9))
    with pytest.raises(RuntimeError, match="between 50 samples and 9 points failed"):
        barycentre(X, points)


# ---- the barycentre --------------------------------------------------------------------------------------------------


def test_barycentre_by_hand() -> None:
    assert_allclose(barycentre(LINE, [[0.5], [2.5]]), [[1.0], [5.0]], rtol=HAND)
    # masses 3 1 1 1: half of all lies at 0, and the other point gets the mean of the rest
    assert_allclose(barycentre(LINE, [[0.5], [2.5]], sample_weight=[3, 1, 1, 1]), [[0.0], [4.0]], atol=HAND)


def test_barycentre_is_a_fixed_point_of_equal_masses_and_keeps_the_mean() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(200, 2)) ** 3 + 7
    points = barycentre(X, X[:8])
    assert_allclose(points.mean(axis=0), X.mean(axis=0), rtol=1e-9)
    assert_allclose(barycentre(X, points), points, rtol=1e-5)
    uniform = np.ones(8)
    assert w2(X, points, uniform) < w2(X, X[:8], uniform)


def test_barycentre_is_equivariant() -> None:
    X = np.random.default_rng(4).normal(size=(60, 3))
    assert_allclose(barycentre(100 * X + 5, 100 * X[:4] + 5), 100 * barycentre(X, X[:4]) + 5, rtol=1e-6)


@pytest.mark.parametrize("k", [2, 5, 7])  # a tenth of the samples lies apart, which is no multiple of 1 / k
def test_the_quantiser_is_nearer_than_the_barycentre(k: int) -> None:
    """Figure 3 of the talk: fixed weights cost something, most where the masses differ."""
    rng = np.random.default_rng(5)
    X = np.concatenate([rng.normal(size=(270, 2)), rng.normal(size=(30, 2)) / 5 + 6])
    q = quantize(X, k, n_init=5, random_state=0)
    uniform = np.ones(k)
    between = w2(X, barycentre(X, q.points), uniform)
    assert w2(X, q.points) < 0.9 * between
    assert between <= w2(X, q.points, uniform) * (1 + TRANSPORT)


def test_bad_barycentre() -> None:
    with pytest.raises(ValueError, match="start has 2: they must match"):
        barycentre(LINE, [[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"start\[0, 0\] is nan"):
        barycentre(LINE, [[np.nan]])
