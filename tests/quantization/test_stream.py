"""The streaming form by hand, against its reference, scikit-learn and the Gram form, on every instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fits import DTYPES, assert_identical, normal
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from tolerances import DISTORTION, HAND, POINTS, SKLEARN_INERTIA, WEIGHTS

from ddoq import OptimalQuantizer, rate_distortion
from ddoq.machine import backend
from ddoq.quantization import reference
from ddoq.quantization.forms import GRAM, GRAM_MOVES, SKETCH, STREAMING, forms_of
from ddoq.quantization.quantize import quantize, quantize_classes
from ddoq.quantization.result import Quantization

# Round a lane, a panel (6, 12, 24 and 48 samples) and a block (96), and more than one task of an update.
LENGTHS = (1, 2, 3, 7, 8, 9, 15, 17, 23, 24, 25, 47, 48, 49, 95, 96, 97, 193, 400)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(params=backend.core.isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force each instruction set that this machine has."""
    monkeypatch.setenv("DDOQ_ISA", request.param)
    return str(request.param)


def stream(X: Any, k: int, **options: Any) -> Quantization:
    return quantize(X, k, form="streaming", **options)


def blobs(n: int, d: int, n_blobs: int, dtype: str, spread: float = 1.0, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng([n, d, seed])
    centres = rng.normal(size=(n_blobs, d))
    return (centres[rng.integers(n_blobs, size=n)] + spread * rng.normal(size=(n, d))).astype(dtype)


def draws(seed: int, k: int, n_init: int = 1) -> NDArray[np.float64]:
    """The uniform numbers that `random_state=seed` gives the only class."""
    stream = np.random.SeedSequence(seed, spawn_key=(0,))
    return np.random.Generator(np.random.PCG64(stream)).random((n_init, 1 + (k - 1) * reference.n_trials(k)))


def assert_same_fit(q: Quantization, fit: reference.Fit, X: NDArray[Any]) -> None:
    dtype = str(q.points.dtype)
    size = np.abs(X.astype(np.float64)).max()
    assert_array_equal(q.labels, fit.labels)
    assert_array_equal(q.counts, fit.counts)
    assert q.n_iter == fit.n_iter
    assert_allclose(q.points, fit.points, rtol=0, atol=POINTS[dtype] * size)
    assert_allclose(q.weights, fit.weights, rtol=WEIGHTS)
    assert_allclose(q.distortion, fit.distortion, rtol=DISTORTION[dtype], atol=(POINTS[dtype] * size) ** 2 * X.shape[1])


# By hand


@dtypes
def test_weighted_line_by_hand(dtype: str, isa: str) -> None:
    # from 0 and 10: cells {0, 1, 2} of masses 1, 1, 2 and {10} of mass 4; means 5/4 and 10; then the labels stay
    X = np.array([[0], [1], [2], [10]], dtype=dtype)
    q = stream(X, 2, sample_weight=[1, 1, 2, 4], init=X[[0, 3]])
    assert_allclose(q.points, [[1.25], [10]], rtol=HAND)
    assert_allclose(q.weights, [0.5, 0.5], rtol=HAND)
    assert_allclose(q.distortion, 11 / 32, rtol=HAND)
    assert q.labels.tolist() == [0, 0, 0, 1]
    assert q.n_iter == 2


@dtypes
def test_tolerance_by_hand(dtype: str, isa: str) -> None:
    # variance 5/4; points 0 and 1 (cells {0} and {1, 2, 3}), then 0 and 2 (the tie goes to cell 0), then 1/2 and 5/2;
    # the squared shifts are 1 = 0.8 x 5/4 and 1/2 = 0.4 x 5/4, and then the labels stay
    X = np.array([[0], [1], [2], [3]], dtype=dtype)
    for tol, n_iter in ((0.0, 3), (0.39, 3), (0.41, 2), (0.79, 2), (0.81, 1)):
        q = stream(X, 2, init=X[:2], tol=tol)
        assert q.n_iter == n_iter
        assert q.labels.tolist() == [0, 0, 1, 1]
        assert_allclose(q.points[:, 0], [0, 2] if n_iter == 1 else [0.5, 2.5], rtol=HAND)
        assert_same_fit(q, reference.quantize_class(X, np.ones(4), 2, start_points=X[:2], tol=tol), X)


@dtypes
def test_empty_cells_take_the_farthest_samples(dtype: str, isa: str) -> None:
    X = np.array([[0.0], [1.0], [2.0], [7.0], [9.0]], dtype=dtype)
    q = stream(X, 3, init=[[1.0], [50.0], [60.0]], max_iter=1)
    assert_array_equal(q.points, [[1.0], [9.0], [7.0]])
    assert_array_equal(q.labels, [0, 0, 0, 2, 1])


def test_ties_go_to_the_lowest_index(isa: str) -> None:
    X = np.array([[-2.0], [0.0], [2.0], [-8.0], [8.0]], dtype=np.float32)
    assert stream(X, 3, init=[[2.0], [-2.0], [8.0]], max_iter=1).points[:, 0].tolist() == [1.0, -5.0, 8.0]
    assert stream(X, 3, init=[[-2.0], [8.0], [2.0]], max_iter=1).points[1:, 0].tolist() == [8.0, 2.0]


# Against the reference


@dtypes
@pytest.mark.parametrize("n", LENGTHS)
def test_every_number_of_samples(n: int, dtype: str, isa: str) -> None:
    for d in (1, 8, 33):
        X = normal(n, d, dtype)
        for k in sorted({1, min(n, 2), max(1, n // 9)}):
            q = stream(X, k, random_state=3)
            assert_same_fit(q, reference.quantize_class(X, np.ones(n), k, uniforms=draws(3, k), tol=1e-4), X)
            assert q.points.dtype == dtype


@dtypes
@pytest.mark.parametrize("d", [1, 2, 3, 5, 15, 16, 17, 97, 255, 256, 257, 513, 600])
def test_every_number_of_features(d: int, dtype: str, isa: str) -> None:
    X = blobs(230, d, 12, dtype)
    w = np.random.default_rng(d).uniform(0.1, 5.0, size=230)
    for k in (3, 8, 9, 17, 49):
        q = stream(X, k, sample_weight=w, random_state=d)
        assert_same_fit(q, reference.quantize_class(X, w, k, uniforms=draws(d, k), tol=1e-4), X)


@dtypes
def test_the_best_start_is_kept(dtype: str, isa: str) -> None:
    X, w = normal(300, 12, dtype), np.random.default_rng(0).uniform(0.1, 5.0, size=300)
    for n_init in (2, 3, 7):
        q = stream(X, 9, sample_weight=w, n_init=n_init, random_state=2, tol=0)
        assert_same_fit(q, reference.quantize_class(X, w, 9, uniforms=draws(2, 9, n_init), tol=0), X)


@dtypes
def test_random_rows_as_start(dtype: str, isa: str) -> None:
    X, w = normal(200, 6, dtype), np.random.default_rng(0).uniform(0.1, 5.0, size=200)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(4, spawn_key=(0,))))
    rows = [rng.choice(200, size=7, replace=False, p=w / w.sum()) for _ in range(3)]
    q = stream(X, 7, sample_weight=w, init="random", n_init=3, random_state=4, tol=0)
    assert_same_fit(q, reference.quantize_class(X, w, 7, start_rows=np.array(rows), tol=0), X)


@dtypes
@pytest.mark.parametrize("max_iter", [1, 2, 3])
def test_stopped_by_max_iter(max_iter: int, dtype: str, isa: str) -> None:
    X, start = normal(300, 6, dtype), normal(12, 6, dtype, seed=1)
    q = stream(X, 12, init=start, max_iter=max_iter)
    assert_same_fit(
        q, reference.quantize_class(X, np.ones(300), 12, start_points=start, max_iter=max_iter, tol=1e-4), X
    )


@dtypes
def test_a_large_offset_costs_no_accuracy(dtype: str, isa: str) -> None:
    X = blobs(500, 20, 8, dtype) + np.array(1e3 if dtype == "float32" else 1e6, dtype=dtype)
    q = stream(X, 8, random_state=0)
    assert_same_fit(q, reference.quantize_class(X, np.ones(500), 8, uniforms=draws(0, 8), tol=1e-4), X)


@dtypes
def test_many_empty_cells(dtype: str, isa: str) -> None:
    X = normal(250, 4, dtype)
    start = np.concatenate([X[:3], np.full((30, 4), 1e3) + normal(30, 4)]).astype(dtype)
    w = np.random.default_rng(1).uniform(0.5, 2, size=250)
    for max_iter in (1, 2, 300):
        q = stream(X, 33, sample_weight=w, init=start, max_iter=max_iter, tol=0)
        fit = reference.quantize_class(X, w, 33, start_points=start, max_iter=max_iter, tol=0)
        assert_same_fit(q, fit, X)
    assert (q.counts > 0).all()


@dtypes
@pytest.mark.parametrize("lightest", [1e-6, 1e-20, 1e-60])
def test_means_of_light_samples_that_heavy_ones_have_left(lightest: float, dtype: str, isa: str) -> None:
    # from -3, 0 and 3 the middle takes two of the heavy samples, which then go to the outer points' other two
    for seed in range(10):
        rng = np.random.default_rng(seed)
        X = np.concatenate([[-1.6, -1.0, 1.0, 1.6], rng.uniform(-0.5, 0.5, 42)])[:, None]
        X = np.concatenate([X + 0.02 * rng.random(X.shape), rng.normal(size=(46, 2)) / 50], axis=1).astype(dtype)
        w = np.concatenate([rng.uniform(0.5, 1, 4), lightest ** rng.uniform(0.6, 1, 42)])
        start = np.array([[-3, 0, 0], [0, 0, 0], [3, 0, 0]], dtype=dtype)
        order = rng.permutation(46)
        X, w = X[order], w[order]
        for max_iter in (1, 2, 3, 300):
            q = stream(X, 3, sample_weight=w, init=start, max_iter=max_iter, tol=0)
            fit = reference.quantize_class(X, w, 3, start_points=start, max_iter=max_iter, tol=0)
            assert_same_fit(q, fit, X)


@dtypes
def test_as_many_points_as_distinct_samples(dtype: str, isa: str) -> None:
    X = np.repeat(normal(40, 3, dtype), 2, axis=0)
    q = stream(X, 40, random_state=0)
    assert_array_equal(q.points[q.labels], X)
    assert_array_equal(q.counts, np.full(40, 2))
    assert q.distortion == 0


# Against scikit-learn and the Gram form


@dtypes
@pytest.mark.parametrize(("n", "d", "k"), [(3000, 10, 20), (2000, 70, 64), (500, 300, 31), (1000, 3, 1)])
@pytest.mark.parametrize("tol", [0.0, 1e-4, 1e-2])
def test_scikit_learn_from_the_same_start(n: int, d: int, k: int, tol: float, dtype: str) -> None:
    X = blobs(n, d, k, dtype)
    w = np.random.default_rng(0).uniform(0.1, 3, size=n)
    start = X[np.random.default_rng(1).choice(n, size=k, replace=False)]
    for weight in (None, w):
        q = stream(X, k, sample_weight=weight, init=start, tol=tol)
        theirs = KMeans(k, init=start, n_init=1, tol=tol).fit(X, sample_weight=weight)
        assert_array_equal(q.labels, theirs.labels_)
        assert_allclose(q.distortion * (n if weight is None else w.sum()), theirs.inertia_, rtol=SKLEARN_INERTIA)
        assert q.n_iter == theirs.n_iter_


@dtypes
def test_scikit_learn_with_empty_cells(dtype: str) -> None:
    X = blobs(800, 5, 10, dtype)
    start = np.concatenate([X[:10], X[:1] + 100]).astype(dtype)
    q, theirs = stream(X, 11, init=start), KMeans(11, init=start, n_init=1).fit(X)
    assert_array_equal(q.labels, theirs.labels_)
    assert q.n_iter == theirs.n_iter_


@dtypes
@pytest.mark.parametrize("init", ["k-means++", "random", "points"])
def test_same_fit_as_the_gram_form(init: str, dtype: str, isa: str) -> None:
    X = blobs(900, 40, 20, dtype)
    w = np.random.default_rng(0).uniform(0.1, 3, size=900)
    start: Any = X[:17] if init == "points" else init
    options: dict[str, Any] = {"sample_weight": w, "init": start, "refine": "none", "n_init": 1, "random_state": 1}
    a, b = quantize(X, 17, form="gram", **options), stream(X, 17, tol=0, **options)
    assert_array_equal(a.labels, b.labels)
    assert a.n_iter == b.n_iter
    assert_allclose(a.points, b.points, rtol=0, atol=POINTS[dtype] * np.abs(X).max())
    assert_allclose(a.distortion, b.distortion, rtol=DISTORTION[dtype])


@dtypes
def test_integer_weights_are_repeats(dtype: str, isa: str) -> None:
    X, start = normal(200, 9, dtype), normal(10, 9, dtype, seed=1)
    times = np.random.default_rng(0).integers(0, 4, size=200)
    a = stream(X, 10, sample_weight=times, init=start, tol=0)
    b = stream(np.repeat(X, times, axis=0), 10, init=start, tol=0)
    assert_array_equal(np.repeat(a.labels, times), b.labels)
    assert_allclose(a.points, b.points, rtol=0, atol=POINTS[dtype] * 5)
    assert_allclose(a.distortion, b.distortion, rtol=DISTORTION[dtype])
    assert_array_equal(a.labels, reference.assign(X, a.points)[0])  # of samples without weight too


# The same bits


@dtypes
def test_same_bits_for_any_number_of_threads(dtype: str, isa: str) -> None:
    X, w = normal(3000, 40, dtype), np.random.default_rng(0).uniform(0.1, 3, size=3000)
    one = stream(X, 60, sample_weight=w, random_state=0, n_init=2, n_threads=1)
    for n_threads in (2, 3, 8):
        assert_identical(one, stream(X, 60, sample_weight=w, random_state=0, n_init=2, n_threads=n_threads))


@pytest.mark.skipif(len(backend.core.isas()) < 3, reason="this machine has one instruction set with FMA")
@dtypes
def test_same_bits_with_avx2_and_avx512(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for n, d, k in ((7, 3, 2), (500, 33, 9), (1000, 300, 50)):
        X, w = normal(n, d, dtype), np.random.default_rng(0).uniform(0.1, 3, size=n)
        found = []
        for name in ("avx2", "avx512"):
            monkeypatch.setenv("DDOQ_ISA", name)
            found.append(stream(X, k, sample_weight=w, random_state=0))
        assert_identical(*found)


# Classes, options, the rule


def test_big_classes_stream_and_the_others_do_not() -> None:
    sizes, k = [300, 5000, 200, 6000], [4, 45, 3, 40]
    X, y = normal(sum(sizes), 5, "float32"), np.repeat(np.arange(4), sizes)
    calls: list[int] = []
    q = quantize_classes(X, y, k, random_state=0, progress=calls.append)
    assert calls[-1] == 4
    for c, form in enumerate(["gram", "streaming", "gram", "streaming"]):
        seed = [np.random.SeedSequence(0, spawn_key=(c,))]
        alone = quantize_classes(X[y == c], y[y == c], k[c], form=form, random_state=seed)  # type: ignore[arg-type]
        assert_identical(q[c], alone[0])


def test_the_rule() -> None:
    n = np.array([100, 4096, 4097, 4097, 16_384, 16_385, 16_384, 10**6])
    k = np.array([10, 10, 300, 41, 164, 165, 163, 10])
    assert (
        forms_of("auto", "auto", n, k, 50).tolist()
        == [GRAM, GRAM_MOVES, STREAMING, GRAM_MOVES, GRAM_MOVES] + [STREAMING] * 3
    )
    assert forms_of("auto", "none", n, k, 50).tolist() == [GRAM] * 2 + [STREAMING] * 6
    assert forms_of("auto", "hartigan", n, k, 50).tolist() == [GRAM_MOVES] * 8
    assert forms_of("gram", "none", n, k, 50).tolist() == [GRAM] * 8
    assert forms_of("streaming", "auto", n, k, 5000).tolist() == [STREAMING] * 8
    assert forms_of("auto", "auto", n, k, 5000).tolist() == [
        GRAM,
        SKETCH,
        STREAMING,
        SKETCH,
        GRAM_MOVES,
        *[STREAMING] * 3,
    ]


def test_rate_distortion_in_streaming_form() -> None:
    X, y = normal(600, 4), np.arange(600) % 2
    curve = rate_distortion(X, y, [2, 7], form="streaming", random_state=3)
    for column, k in enumerate((2, 7)):
        q = quantize_classes(X, y, k, form="streaming", random_state=3)
        assert_array_equal(curve.distortion[:, column], q.distortion)


def test_estimator_in_streaming_form() -> None:
    X = blobs(1000, 6, 9, "float64")
    mine = OptimalQuantizer(9, init=X[:9], form="streaming", tol=1e-3).fit(X)
    theirs = KMeans(9, init=X[:9], n_init=1, tol=1e-3).fit(X)
    assert_array_equal(mine.labels_, theirs.labels_)
    assert mine.n_iter_ == theirs.n_iter_


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"form": "stream"}, ValueError, 'form must be "auto", "gram" or "streaming"'),
        ({"form": "streaming", "refine": "hartigan"}, ValueError, 'refine="hartigan" needs the Gram matrix'),
        ({"tol": -1.0}, ValueError, "tol must be finite and not negative"),
        ({"tol": np.nan}, ValueError, "tol must be finite and not negative"),
        ({"tol": "1"}, TypeError, "tol must be a number"),
        ({"method": "clvq", "form": "gram"}, ValueError, "form, max_iter and tol are for"),
        ({"method": "minibatch", "tol": 0.0}, ValueError, "form, max_iter and tol are for"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        quantize([[0.0], [1.0]], 1, **options)


@pytest.mark.parametrize("form", ["gram", "streaming"])
@dtypes
def test_great_values_are_fitted_or_refused_alike(form: Any, dtype: str, isa: str) -> None:
    X = np.where(np.arange(40)[:, None] < 2, 1, -1) * np.ones(3, dtype=dtype)
    largest = np.sqrt(np.finfo(dtype).max / 48)
    q = quantize((X * 0.999 * largest).astype(dtype), 2, form=form, refine="none", random_state=0)
    assert sorted(q.counts.tolist()) == [2, 38]
    assert q.distortion < 1e-20 * float(largest) ** 2
    for factor in (1.001, 1.9, 3):
        with pytest.raises(ValueError, match=r"overflow.*scale the data"):
            quantize((X * factor * largest).astype(dtype), 2, form=form, refine="none", random_state=0)
