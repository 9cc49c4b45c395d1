"""Laws of optimal quantisation, on drawn data: normal ones, and small integers full of ties and duplicates."""

from __future__ import annotations

from itertools import pairwise
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from tolerances import DISTORTION, EQUIVARIANCE, NEAREST, NORMAL_GRID, NORMAL_POINTS, POINTS, TRANSPORT, WEIGHTS

from ddoq.quantization import reference
from ddoq.quantization.quantize import quantize
from ddoq.quantization.result import Quantization
from ddoq.quantization.transport import w2

# a busy machine is no reason to fail
laws = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


class Case(NamedTuple):
    X: NDArray[Any]
    w: NDArray[np.float64]
    k: int
    seed: int

    @property
    def dtype(self) -> str:
        return str(self.X.dtype)

    @property
    def size(self) -> float:
        return max(float(np.abs(self.X).max()), 1e-3)

    def fit(self, **options: Any) -> Quantization:
        return quantize(self.X, self.k, **{"sample_weight": self.w, "random_state": self.seed, **options})


@st.composite
def cases(draw: st.DrawFn, generic: bool = False) -> Case:
    """Any data; or `generic` ones: float64, no ties, in which no rounding can decide between two cells."""
    n, d, seed = draw(st.integers(1, 60)), draw(st.integers(1, 20)), draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    if not generic and draw(st.booleans()):
        X = rng.integers(-2, 3, size=(n, d)).astype(float)
    else:
        X = (rng.normal(size=(n, d)) + draw(st.sampled_from([0.0, 5.0]))) * draw(st.sampled_from([1.0, 1e-3, 1e3]))
    w = rng.uniform(0.05, 4.0, size=n) if draw(st.booleans()) else np.ones(n)
    X = X.astype("float64" if generic else draw(st.sampled_from(["float32", "float64"])))
    k = draw(st.integers(1, len(np.unique(X, axis=0))))
    return Case(X, w, k, seed)


@laws
@given(cases(), st.sampled_from(["none", "hartigan", "auto"]))
def test_a_fit_is_stationary(case: Case, refine: Any) -> None:
    X, w, k = case.X.astype(np.float64), case.w, case.k
    q = case.fit(refine=refine)
    mass = np.where(q.labels == np.arange(k)[:, None], w, 0.0)
    assert_array_equal(q.counts, np.bincount(q.labels, minlength=k))
    assert q.counts.min() > 0
    assert_allclose(q.points, mass @ X / mass.sum(axis=1)[:, None], rtol=0, atol=POINTS[case.dtype] * case.size)
    assert_allclose(q.weights, mass.sum(axis=1) / w.sum(), rtol=WEIGHTS)
    assert_allclose(q.weights.sum(), 1.0, rtol=WEIGHTS)
    squares = ((X - q.points.astype(np.float64)[q.labels]) ** 2).sum(axis=1)
    assert_allclose(q.distortion, w @ squares / w.sum(), rtol=WEIGHTS, atol=WEIGHTS * case.size**2)
    nearest = reference.assign(X, q.points)[1]
    assert (squares <= nearest + NEAREST[case.dtype] * X.shape[1] * case.size**2).all()


@laws
@given(cases())
def test_distortion_never_rises(case: Case) -> None:
    start = case.X[np.random.default_rng(case.seed).choice(len(case.X), case.k, replace=False)]
    slack = 1 + DISTORTION[case.dtype]
    floor = NEAREST[case.dtype] * case.X.shape[1] * case.size**2
    steps = [case.fit(init=start, refine="none", max_iter=m) for m in (1, 2, 3, 4, 6, 300)]
    for before, after in pairwise(steps):
        assert after.distortion <= before.distortion * slack + floor
    for lloyd, m in zip(steps, (1, 2, 3, 4, 6, 300), strict=True):
        moved = case.fit(init=start, refine="hartigan", max_iter=m)
        assert moved.distortion <= lloyd.distortion * slack + floor


@laws
@given(cases(generic=True), st.sampled_from([0.25, 3.0, -1.7]), st.sampled_from([0.0, 1.0, -4.0]))
def test_scaling_and_translation(case: Case, scale: float, shift: float) -> None:
    # from given rows: greedy seeding has true ties (either of two neighbours), which rounding decides
    rows = np.random.default_rng(case.seed).choice(len(case.X), case.k, replace=False)
    X = case.X * scale + shift * case.size
    q, moved = case.fit(init=case.X[rows]), case._replace(X=X).fit(init=X[rows])
    size = case.size * (abs(scale) + abs(shift))
    assert_array_equal(moved.labels, q.labels)
    assert_array_equal(moved.counts, q.counts)
    expected = q.points * scale + shift * case.size
    assert_allclose(moved.points, expected, rtol=0, atol=EQUIVARIANCE * size)
    assert_allclose(
        moved.distortion,
        q.distortion * scale**2,
        rtol=EQUIVARIANCE,
        atol=(EQUIVARIANCE * size) ** 2,
    )


@laws
@given(cases())
def test_scaling_by_a_power_of_two_is_exact(case: Case) -> None:
    q, scaled = case.fit(), case._replace(X=case.X * 4).fit()
    assert_array_equal(scaled.labels, q.labels)
    assert_array_equal(scaled.points, q.points * 4)
    assert scaled.distortion == q.distortion * 16


@laws
@given(cases(generic=True))
def test_order_of_the_samples_does_not_matter(case: Case) -> None:
    rng = np.random.default_rng(case.seed)
    order = rng.permutation(len(case.X))
    start = case.X[rng.choice(len(case.X), case.k, replace=False)]
    q = case.fit(init=start, refine="none")
    shuffled = case._replace(X=case.X[order], w=case.w[order]).fit(init=start, refine="none")
    assert_array_equal(shuffled.labels, q.labels[order])
    assert_allclose(shuffled.points, q.points, rtol=0, atol=POINTS[case.dtype] * case.size)
    assert_allclose(shuffled.distortion, q.distortion, rtol=DISTORTION[case.dtype], atol=WEIGHTS * case.size**2)


@laws
@given(cases())
def test_distortion_is_the_squared_transport_distance(case: Case) -> None:
    q = case.fit()
    floor = NEAREST[case.dtype] * case.X.shape[1] * case.size**2
    voronoi = w2(case.X, q.points, sample_weight=case.w)
    exact = w2(case.X, q.points, q.weights, sample_weight=case.w)
    uniform = w2(case.X, q.points, np.ones(case.k), sample_weight=case.w)
    assert_allclose(voronoi**2, q.distortion, rtol=TRANSPORT, atol=floor)
    assert_allclose(exact**2, q.distortion, rtol=TRANSPORT, atol=floor)
    assert exact**2 <= uniform**2 * (1 + TRANSPORT) + floor


@pytest.mark.parametrize(
    ("k", "error", "points", "weights"),
    [
        (1, 1.0, [0.0], [1.0]),
        (2, 0.3634, [-0.7979, 0.7979], [0.5, 0.5]),
        (3, 0.1902, [-1.2240, 0.0, 1.2240], [0.2703, 0.4595, 0.2703]),
        (4, 0.1175, [-1.5104, -0.4528, 0.4528, 1.5104], [0.1631, 0.3369, 0.3369, 0.1631]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_optimal_grids_of_the_normal_distribution(
    dtype: str, k: int, error: float, points: list[float], weights: list[float]
) -> None:
    normal = NormalDist()
    n = 2000
    X = np.array([[normal.inv_cdf((i + 0.5) / n)] for i in range(n)], dtype=dtype)
    q = quantize(X, k, random_state=0)
    order = np.argsort(q.points[:, 0])
    assert_allclose(q.distortion, error, rtol=0, atol=NORMAL_GRID)
    assert_allclose(q.points[order, 0], points, rtol=0, atol=NORMAL_POINTS)
    assert_allclose(q.weights[order], weights, rtol=0, atol=NORMAL_GRID)
