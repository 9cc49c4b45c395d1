"""Competitive learning: the blocked C against the sequential reference, by hand, and what it refuses."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from ddoq.machine import backend
from ddoq.quantization import reference
from ddoq.quantization.online import OnlineQuantizer
from ddoq.quantization.options import Clock
from ddoq.quantization.quantize import quantize, quantize_classes

DTYPES = ("float32", "float64")
POINTS = 1e-5  # of the largest |x|

# a busy machine is no reason to fail
laws = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(params=backend.core.isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force each instruction set that this machine has."""
    monkeypatch.setenv("DDOQ_ISA", request.param)
    return str(request.param)


def normal(n: int, d: int, dtype: str = "float64", seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng([n, d, seed]).normal(size=(n, d)).astype(dtype)


@pytest.mark.parametrize("clock", ["global", "point"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (63, 3, 2), (64, 17, 5), (65, 300, 31), (500, 40, 33)])
def test_steps_are_the_sequential_ones(n: int, d: int, k: int, dtype: str, clock: str, isa: str) -> None:
    for offset in (0, 100):
        X, start = normal(n, d, dtype) + np.array(offset, dtype), normal(k, d, dtype, seed=1) + np.array(offset, dtype)
        for step in ((float(k), 1.0), (1.0, 0.5), (3.0, 2 / 3)):
            points, weights, wins, winners = reference.clvq(X, start, step=step, per_point=clock == "point")
            mine, mine_weights = start.copy(), np.full(k, 1 / k)
            mine_wins, mine_winners = np.zeros(k, dtype=np.int64), np.full(n, -1)
            core_weights = mine_weights if clock == "global" else None
            backend.core.clvq(X, mine, core_weights, mine_wins, mine_winners, *step, None, None, None, 1, isa)
            assert_array_equal(mine_winners, winners)
            assert_array_equal(mine_wins, wins)
            assert_allclose(mine, points, rtol=0, atol=POINTS * np.abs(X).max())
            assert_allclose(mine_weights, weights, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_samples_that_drift(n_threads: int, isa: str) -> None:
    X, k = normal(672, 300, "float32"), 240  # enough for threads
    X += np.repeat(np.arange(7, dtype=np.float32) * 10_000, 96)[:, None]  # products less the first mean would be noise
    start = X[::2][:k].copy()
    points, weights, _, winners = reference.clvq(X, start, step=(1.0, 0.2), per_point=False)
    mine, mine_weights, mine_winners = start.copy(), np.full(k, 1 / k), np.full(len(X), -1)
    wins = np.zeros(k, dtype=np.int64)
    backend.core.clvq(X, mine, mine_weights, wins, mine_winners, 1.0, 0.2, None, None, None, n_threads, isa)
    assert_array_equal(mine_winners, winners)
    assert_allclose(mine, points, rtol=0, atol=POINTS * np.abs(X).max())
    assert_allclose(mine_weights, weights, rtol=1e-12, atol=1e-15)


def test_by_hand(isa: str) -> None:
    # points 0 and 8; steps 1, 2/3, 1/2: 2 replaces 0; 5 is as near to 2 as to 8, so 2 -> 4; 10 draws 8 to 9
    stream = OnlineQuantizer(2)
    stream.update([[0.0], [8.0], [2.0], [5.0], [10.0]])
    assert_allclose(stream.points, [[4.0], [9.0]], rtol=1e-6)
    assert_allclose(stream.online_weights, [0.5, 0.5], rtol=1e-12)


@pytest.mark.parametrize("clock", ["global", "point"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (64, 17, 5), (65, 3, 31), (300, 40, 12)])
def test_means_are_those_of_the_sequential_steps(n: int, d: int, k: int, dtype: str, clock: Clock, isa: str) -> None:
    X, start = normal(n, d, dtype), normal(k, d, dtype, seed=1)
    for step in ((float(k), 1.0), (1.0, 0.5)):
        points, weights = reference.averaged_clvq(X, start, step=step, per_point=clock == "point")
        stream = OnlineQuantizer(k, step=step, clock=clock, average=True)
        stream.update(np.concatenate([start, X]))
        assert_allclose(stream.points, points, rtol=0, atol=POINTS * np.abs(X).max())
        if clock == "global":
            assert_allclose(stream.online_weights, weights, rtol=1e-12, atol=1e-15)


def test_means_by_hand(isa: str) -> None:
    # points 0 and 8, step 1 always: 2 replaces 0, 3 replaces 2, 10 replaces 8: 2, 3, 3 and 8, 8, 10 over all steps
    clocks: tuple[Clock, Clock] = ("global", "point")
    global_clock, point_clock = (OnlineQuantizer(2, step=(1, 0), clock=clock, average=True) for clock in clocks)
    for stream in (global_clock, point_clock):
        stream.update([[0.0], [8.0]])
        assert_array_equal(stream.points, [[0.0], [8.0]])
        stream.update([[2.0], [3.0], [10.0]])
    assert_allclose(global_clock.points, [[8 / 3], [26 / 3]], rtol=1e-6)
    assert_allclose(global_clock.online_weights, [2 / 3, 1 / 3], rtol=1e-12)
    assert_allclose(point_clock.points, [[2.5], [10.0]], rtol=1e-6)
    assert_allclose(point_clock.online_weights, [2 / 3, 1 / 3], rtol=1e-12)


def test_means_are_what_is_given_and_never_what_is_learnt_from() -> None:
    X = normal(500, 3)
    plain, mean = (OnlineQuantizer(4, step=(4, 0.6), average=average) for average in (False, True))
    for stream in (plain, mean):
        stream.update(X)
    assert_array_equal(mean._points, plain.points)
    assert np.abs(mean.points - plain.points).max() > 1e-3
    q = mean.quantization(X)
    assert_array_equal(q.points, mean.points)
    assert_array_equal(q.labels, reference.assign(X, mean.points)[0])
    again = OnlineQuantizer.from_quantization(q, average=True)
    assert_allclose(again.points, q.points, rtol=1e-12)
    assert_allclose(again.online_weights, q.weights, rtol=1e-12)


@pytest.mark.parametrize("clock", ["global", "point"])
def test_means_are_nearer_than_the_last_points(clock: Clock) -> None:
    X, grid = np.random.default_rng(3).normal(size=(100_000, 1)), [-1.7241, -0.7646, 0.0, 0.7646, 1.7241]
    off = []
    for average in (False, True):
        stream = OnlineQuantizer(5, step=(5.0 if clock == "global" else 1.0, 0.5), clock=clock, average=average)
        stream.update(X)
        off.append(np.linalg.norm(np.sort(stream.points[:, 0]) - grid))
    assert off[1] < 0.6 * off[0]  # over six seeds and both clocks 0.16 to 0.56 of it


def test_threads_do_not_change_the_bits(isa: str) -> None:
    X = normal(640, 700, "float32")  # 560 points of 700 features are enough for threads, with a margin
    serial, parallel = (OnlineQuantizer(560, average=True, n_threads=n) for n in (1, 3))
    for stream in (serial, parallel):
        stream.update(np.concatenate([X, X + 1]))
    assert_array_equal(serial.points, parallel.points)
    assert_array_equal(serial.online_weights, parallel.online_weights)


@pytest.mark.parametrize("clock", ["global", "point"])
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_cut_of_the_stream_gives_the_same(dtype: str, average: bool, clock: Clock, isa: str) -> None:
    X = np.repeat(normal(300, 20, dtype), 2, axis=0)
    whole = OnlineQuantizer(7, clock=clock, average=average)
    whole.update(X)
    for seed in range(4):
        cuts = np.sort(np.random.default_rng(seed).integers(1, len(X), size=25 * seed))
        stream = OnlineQuantizer(7, clock=clock, average=average)
        for batch in np.split(X, np.unique(cuts)):
            stream.update(batch)
        assert_allclose(stream.points, whole.points, rtol=0, atol=POINTS * np.abs(X).max())
        assert_allclose(stream.online_weights, whole.online_weights, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("clock", ["global", "point"])
def test_laws(clock: Clock) -> None:
    X = normal(900, 3) + 5
    stream = OnlineQuantizer(12, clock=clock)
    stream.update(X)
    q = stream.quantization(X)
    for weights in (stream.online_weights, q.weights):
        assert_allclose(weights.sum(), 1, rtol=1e-12)
        assert weights.min() >= 0
    assert (q.points >= X.min(axis=0)).all()
    assert (q.points <= X.max(axis=0)).all()
    labels, dist2 = reference.assign(X, q.points)
    assert_array_equal(q.labels, labels)
    assert_array_equal(q.counts, np.bincount(labels, minlength=12))
    assert_allclose(q.distortion, dist2.mean(), rtol=1e-12)
    assert q.n_iter == 888


class Stream(NamedTuple):
    X: NDArray[Any]
    k: int
    clock: Clock
    step: tuple[float, float]

    def run(self, X: NDArray[Any]) -> OnlineQuantizer:
        stream = OnlineQuantizer(self.k, clock=self.clock, step=self.step)
        stream.update(X)
        return stream


@st.composite
def streams(draw: st.DrawFn, generic: bool = False) -> Stream:
    """Any data; or `generic` ones: float64, no ties, so that no rounding can decide between two points."""
    n, d = draw(st.integers(1, 200)), draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if not generic and draw(st.booleans()):
        X = rng.integers(-2, 3, size=(n, d)).astype(float)
    else:
        X = (rng.normal(size=(n, d)) + draw(st.sampled_from([0.0, 5.0]))) * draw(st.sampled_from([1.0, 1e-3, 1e3]))
    X = X.astype("float64" if generic else draw(st.sampled_from(DTYPES)))
    k = draw(st.integers(1, len(np.unique(X, axis=0))))
    step = draw(st.floats(0.5, 50)), draw(st.floats(0, 1))
    return Stream(X, k, draw(st.sampled_from(["global", "point"])), step)


@laws
@given(streams())
def test_points_stay_among_the_samples_and_the_weights_sum_to_one(case: Stream) -> None:
    stream = case.run(case.X)
    slack = 1e-6 * np.abs(case.X).max()
    assert (stream.points >= case.X.min(axis=0) - slack).all()
    assert (stream.points <= case.X.max(axis=0) + slack).all()
    assert stream.online_weights.min() >= 0
    assert_allclose(stream.online_weights.sum(), 1, rtol=1e-9)
    assert stream.steps == len(case.X) - case.k


@laws
@given(streams(generic=True), st.randoms(use_true_random=False))
def test_order_of_the_start_permutes_the_points_alone(case: Stream, random: Any) -> None:
    order = np.array(random.sample(range(case.k), case.k))
    stream, permuted = case.run(case.X), case.run(np.concatenate([case.X[: case.k][order], case.X[case.k :]]))
    assert_allclose(permuted.points, stream.points[order], rtol=0, atol=1e-9 * np.abs(case.X).max())
    assert_allclose(permuted.online_weights, stream.online_weights[order], rtol=1e-9, atol=1e-15)


@laws
@given(streams(generic=True), st.sampled_from([1e-3, 0.7, 30.0]), st.sampled_from([-3.0, 0.0, 10.0]))
def test_points_move_and_scale_with_the_samples(case: Stream, scale: float, shift: float) -> None:
    shift *= float(np.abs(case.X).max())
    stream, moved = case.run(case.X), case.run(case.X * scale + shift)
    size = np.abs(case.X * scale + shift).max() + abs(shift)
    assert_allclose(moved.points, stream.points * scale + shift, rtol=0, atol=1e-9 * size)
    assert_allclose(moved.online_weights, stream.online_weights, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("clock", ["global", "point"])
@pytest.mark.parametrize(
    ("k", "points", "least"),
    [
        (1, [0.0], 1.0),
        (2, [-0.7979, 0.7979], 0.3634),
        (3, [-1.2240, 0.0, 1.2240], 0.1902),
        (5, [-1.7241, -0.7646, 0.0, 0.7646, 1.7241], 0.0799),
    ],
)
def test_reaches_the_normal_distribution_s_optimal_grids(
    k: int, points: list[float], least: float, clock: Clock
) -> None:
    X = np.random.default_rng(5).normal(size=(200_000, 1))
    stream = OnlineQuantizer(k, step=(float(k) if clock == "global" else 1.0, 3 / 4), clock=clock)
    stream.update(X)
    q = stream.quantization(X)
    # the last step is about (200,000 / k)^(-3/4) = 5e-4 and the points' noise of its square root; over six seeds and
    # both clocks they were 0.045 off at most, and the distortion, the sample's own noise included, 1.1 %
    assert_allclose(np.sort(q.points[:, 0]), points, rtol=0, atol=0.06)
    assert_allclose(q.distortion, least, rtol=0.02)


@pytest.mark.parametrize("method", ["clvq", "minibatch"])
def test_methods_of_quantize_classes(method: Any) -> None:
    X, y = np.concatenate([normal(90, 4), normal(43, 4) + 9]), np.repeat(["a", "b"], [90, 43])
    done: list[int] = []
    q = quantize_classes(X, y, [5, 4], method=method, random_state=3, progress=done.append)
    assert done == [1, 2]
    for c, name in enumerate(("a", "b")):
        rows = X[y == name]
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(3, spawn_key=(c,))))
        order = rng.permutation(len(rows))
        if method == "clvq":
            start, rest = rows[order[: len(q[c].points)]], rows[order[len(q[c].points) :]]
            points = reference.clvq(rest, start, step=(float(len(start)), 1.0))[0]
        else:
            k = len(q[c].points)
            model = MiniBatchKMeans(k, random_state=0, batch_size=10 * k, n_init="auto")
            for first in range(0, len(rows), 10 * k):
                model.partial_fit(rows[order[first : first + 10 * k]])
            points = model.cluster_centers_
        assert_allclose(q[c].points, points, atol=1e-5)
        labels, dist2 = reference.assign(rows, q[c].points)
        assert_array_equal(q[c].labels, labels)
        assert_array_equal(q[c].weights, np.bincount(labels, minlength=len(points)) / len(rows))
        assert_allclose(q[c].distortion, dist2.mean(), rtol=1e-12)


@pytest.mark.parametrize("clock", ["global", "point"])
@pytest.mark.parametrize("step", [None, (3.0, 2 / 3)])
@pytest.mark.parametrize("average", [False, True])
def test_step_and_clock_of_quantize(step: tuple[float, float] | None, clock: Clock, average: bool) -> None:
    X = normal(120, 5)
    q = quantize(X, 6, method="clvq", step=step, clock=clock, average=average, random_state=1)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(1).spawn(1)[0]))
    stream = OnlineQuantizer(6, step=step, clock=clock, average=average)
    stream.update(X[rng.permutation(120)])
    assert_array_equal(q.points, stream.points)
    both = quantize_classes(X, np.zeros(120), 6, method="clvq", step=step, clock=clock, average=average, random_state=1)
    assert_array_equal(both.points, stream.points)


def test_methods_refuse_what_they_would_ignore() -> None:
    for options in ({"sample_weight": np.ones(9)}, {"n_init": 2}, {"init": np.ones((2, 3))}, {"refine": "none"}):
        with pytest.raises(ValueError, match='are for method="lloyd"'):
            quantize(normal(9, 3), 2, method="clvq", **options)
    for method in ("lloyd", "minibatch"):
        for options in ({"step": (2.0, 1.0)}, {"clock": "point"}, {"average": True}):
            with pytest.raises(ValueError, match=f"step, clock and average are for method=\"clvq\", not '{method}'"):
                quantize(normal(9, 3), 2, method=method, **options)
            with pytest.raises(ValueError, match="step, clock and average are for"):
                quantize_classes(normal(9, 3), np.zeros(9), 2, method=method, **options)
    with pytest.raises(ValueError, match="step must be"):
        quantize(normal(9, 3), 2, method="clvq", step=(0.0, 1.0))
    with pytest.raises(ValueError, match="method must be"):
        quantize(normal(9, 3), 2, method="em")  # type: ignore[arg-type]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="k must be an integer of at least 1"):
        OnlineQuantizer(0)
    with pytest.raises(ValueError, match="clock must be"):
        OnlineQuantizer(2, clock="mine")  # type: ignore[arg-type]
    for step in ((0, 1), (1, 2), (float("nan"), 1), (1, -1)):
        with pytest.raises(ValueError, match="step must be"):
            OnlineQuantizer(2, step=step)
    assert OnlineQuantizer(2**40).steps == 0  # takes no memory before there are as many samples
    stream = OnlineQuantizer(2)
    with pytest.raises(ValueError, match="no points yet: update with at least k = 2 distinct"):
        _ = stream.points
    stream.update([[1.0, 2.0]])
    stream.update([[1.0, 2.0]])
    with pytest.raises(ValueError, match="no points yet"):
        _ = stream.online_weights
    with pytest.raises(ValueError, match=r"X has 1 features, but the first batch had 2"):
        stream.update([[1.0]])
    with pytest.raises(ValueError, match=r"X\[0, 1\] is nan"):
        stream.update([[1.0, float("nan")]])
    narrow = OnlineQuantizer(1)
    narrow.update(np.ones((1, 2), dtype=np.float32))
    for value, match in ((1e300, r"X\[0, 1\] is inf"), (1e30, "overflow float32")):
        with pytest.raises(ValueError, match=match):
            narrow.update([[1.0, value]])
        with pytest.raises(ValueError, match=match):
            narrow.quantization([[1.0, value]])


def test_the_core_refuses_what_it_cannot_trust() -> None:
    isa = backend.core.isas()[0]
    X, points, weights = np.ones((3, 2)), np.ones((2, 2)), np.ones(2)
    wins, winners = np.zeros(2, dtype=np.int64), np.zeros(3, dtype=np.int64)
    good = [X, points, weights, wins, winners, 1.0, 1.0, np.zeros((2, 2)), wins.copy(), np.zeros(2), 1, isa]
    backend.core.clvq(*[a.copy() if isinstance(a, np.ndarray) else a for a in good])
    for at, value, match in [
        (1, np.ones((2, 3)), "points must have size 2 along axis 1"),
        (1, np.ones((0, 2)), "must have size 0"),
        (2, np.ones(3), "weights must have size 2"),
        (3, np.array([0, -1]), r"wins\[1\] = -1"),
        (4, winners[:2], "winners must have size 3"),
        (5, 0.0, "b must be finite and positive"),
        (6, float("inf"), "power must be finite"),
        (7, np.zeros((2, 3)), "sums must have size 2 along axis 1"),
        (8, np.array([0, -1]), r"summed\[1\] = -1"),
        (9, np.zeros(3), "weight_sums must have size 2"),
        (1, X[:2], "output points shares memory with X"),
    ]:
        with pytest.raises(ValueError, match=match):
            backend.core.clvq(*good[:at], value, *good[at + 1 :])
