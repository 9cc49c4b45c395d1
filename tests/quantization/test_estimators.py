"""The estimator under scikit-learn's own checks, against KMeans, and inside its tools."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from tolerances import DISTORTION, POINTS, SKLEARN_INERTIA, WEIGHTS

import ddoq
from ddoq import OnlineQuantizer, OptimalQuantizer, quantize
from ddoq.machine import backend


def normal(n: int, d: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng([n, d, seed]).normal(size=(n, d))


# what scikit-learn allows its own KMeans as well; `test_weights_are_repeats` shows it from a fixed start
RANDOM_START = {"check_sample_weight_equivalence_on_dense_data": "repeated rows draw other starts"}


@parametrize_with_checks([OptimalQuantizer(n_clusters=3)], expected_failed_checks=lambda _: RANDOM_START)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_weights_are_repeats() -> None:
    X, times = normal(40, 6), np.random.default_rng(0).integers(0, 5, size=40)
    start = X[times > 0][:5]  # samples: no cell is ever empty, and none filled by a single one of some equal rows
    options: dict[str, Any] = {"n_clusters": 5, "init": start, "refine": "none"}
    weighted = OptimalQuantizer(**options).fit(X, sample_weight=times)
    repeated = OptimalQuantizer(**options).fit(np.repeat(X, times, axis=0))
    assert_array_equal(np.repeat(weighted.labels_, times), repeated.labels_)
    assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, rtol=0, atol=POINTS["float64"] * abs(X).max())
    assert_allclose(weighted.cluster_weights_, repeated.cluster_weights_, rtol=WEIGHTS)
    assert_allclose(weighted.inertia_, repeated.inertia_, rtol=DISTORTION["float64"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_as_kmeans_from_the_same_start(dtype: str) -> None:
    X = load_digits().data.astype(dtype)
    rng = np.random.default_rng(0)
    w = rng.uniform(0.5, 2.0, size=len(X))
    start = (X[rng.choice(len(X), 10, replace=False)] + 0.01 * rng.normal(size=(10, 64))).astype(dtype)
    ours = OptimalQuantizer(10, init=start, refine="none").fit(X, sample_weight=w)
    peer = KMeans(10, init=start, n_init=1, tol=0).fit(X, sample_weight=w)
    assert ours.cluster_centers_.dtype == ours.transform(X).dtype == dtype
    assert_array_equal(ours.labels_, peer.labels_)
    assert_array_equal(ours.predict(X), peer.predict(X))
    assert_allclose(ours.inertia_, peer.inertia_, rtol=SKLEARN_INERTIA)
    assert_allclose(ours.score(X, sample_weight=w), peer.score(X, sample_weight=w), rtol=SKLEARN_INERTIA)
    assert_allclose(ours.transform(X), peer.transform(X), rtol=0, atol=1e-5 * X.max() * 8)
    assert_array_equal(ours.cluster_counts_, np.bincount(peer.labels_))


def test_is_quantize() -> None:
    X, w = normal(90, 4), np.random.default_rng(0).uniform(size=90)
    fitted = OptimalQuantizer(5, random_state=3).fit(X, sample_weight=w)
    q = ddoq.quantize(X, 5, sample_weight=w, random_state=3)
    assert_array_equal(fitted.cluster_centers_, q.points)
    assert_array_equal(fitted.cluster_weights_, q.weights)
    assert_array_equal(fitted.cluster_counts_, q.counts)
    assert_array_equal(fitted.labels_, q.labels)
    assert (fitted.distortion_, fitted.n_iter_) == (q.distortion, q.n_iter)
    assert_allclose(fitted.inertia_, -fitted.score(X, sample_weight=w), rtol=WEIGHTS)


def test_clone_and_pickle() -> None:
    X = normal(60, 4)
    fitted = OptimalQuantizer(4, random_state=0, refine="hartigan", max_iter=7).fit(X)
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    assert not hasattr(again, "cluster_centers_")
    assert_array_equal(again.fit(X).cluster_centers_, fitted.cluster_centers_)
    assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(X), fitted.labels_)


def test_pandas_in_and_out() -> None:
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(normal(30, 2), columns=["a", "b"], index=range(100, 130))
    quantizer = OptimalQuantizer(3, random_state=0).set_output(transform="pandas").fit(X)
    distances = quantizer.transform(X)
    assert quantizer.feature_names_in_.tolist() == ["a", "b"]
    assert distances.columns.tolist() == quantizer.get_feature_names_out().tolist()
    assert distances.columns.tolist() == [f"optimalquantizer{i}" for i in range(3)]
    assert distances.index.equals(X.index)
    assert_array_equal(distances.to_numpy().argmin(axis=1), quantizer.labels_)
    with pytest.raises(ValueError, match="feature names"):
        quantizer.predict(X.rename(columns={"a": "c"}))


def test_grid_search_over_a_pipeline() -> None:
    X = np.concatenate([normal(60, 3, seed) + 20 * seed for seed in range(3)])
    pipeline = make_pipeline(StandardScaler(), OptimalQuantizer(random_state=0))
    shuffled = np.random.default_rng(0).permutation(X)
    search = GridSearchCV(pipeline, {"optimalquantizer__n_clusters": [1, 2, 3]}, cv=3).fit(shuffled)
    scores = search.cv_results_["mean_test_score"]
    assert scores.tolist() == sorted(scores)
    assert search.best_params_ == {"optimalquantizer__n_clusters": 3}
    assert sorted(np.bincount(search.predict(X))) == [60, 60, 60]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_clusters": 5}, "n_samples=4 must be at least n_clusters=5"),
        ({"n_clusters": 4}, r"k = 4 is above the 3 distinct samples \(of 4\)"),
        ({"n_clusters": 0}, "k must be an integer of at least 1"),
        ({"n_clusters": 2, "n_init": 0}, "n_init must be an integer of at least 1"),
        ({"n_clusters": 2, "refine": "yes"}, "refine must be"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimalQuantizer(**options).fit([[0.0], [1.0], [1.0], [2.0]])


def test_negative_weights_are_refused() -> None:
    fitted = OptimalQuantizer(1).fit([[0.0], [1.0]])
    for method in (fitted.fit, fitted.score):
        with pytest.raises(ValueError, match=r"sample_weight\[1\] is -1.0"):
            method([[0.0], [1.0]], sample_weight=[1, -1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 7, 64, 150])
def test_batches_of_any_size_are_one_stream(size: int, dtype: str) -> None:
    X = np.repeat(normal(200, 6), 2, axis=0).astype(dtype)
    whole, parts = OptimalQuantizer(9).partial_fit(X), OptimalQuantizer(9)
    for start in range(0, len(X), size):
        parts.partial_fit(X[start : start + size])
    assert parts.cluster_centers_.dtype == dtype
    assert_allclose(parts.cluster_centers_, whole.cluster_centers_, rtol=0, atol=1e-5 * abs(X).max())
    assert_allclose(parts.cluster_weights_, whole.cluster_weights_, rtol=1e-5)
    assert parts.n_iter_ == whole.n_iter_ == 391
    last = X[len(X) - len(parts.labels_) :]
    assert_array_equal(parts.labels_, parts.predict(last))
    assert_array_equal(parts.cluster_counts_, np.bincount(parts.labels_, minlength=9))
    assert_allclose(parts.inertia_, -parts.score(last), rtol=1e-12)
    assert_allclose(parts.distortion_, parts.inertia_ / len(last), rtol=1e-12)


def test_partial_fit_is_the_online_quantiser() -> None:
    X = normal(90, 4)
    stream = OnlineQuantizer(5)
    stream.update(X)
    fitted = OptimalQuantizer(5).partial_fit(X[:50])
    fitted = pickle.loads(pickle.dumps(fitted)).partial_fit(X[50:])
    assert_allclose(fitted.cluster_centers_, stream.points, rtol=0, atol=1e-5)
    assert_allclose(fitted.cluster_weights_, stream.online_weights, rtol=1e-9)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_n_threads_is_that_of_every_call(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        def __init__(self) -> None:
            self.n_threads: dict[str, int] = {}

        def __getattr__(self, name: str) -> Any:
            def call(*arguments: Any) -> Any:
                at = {"largest": 1, "assign": 4, "clvq": 10, "quantize_classes": 13}[name]
                self.n_threads[name] = arguments[at]
                return getattr(core, name)(*arguments)

            return call if name in ("largest", "assign", "clvq", "quantize_classes") else getattr(core, name)

    core, X = backend.core, normal(90, 4)
    quantizer = OptimalQuantizer(5, n_threads=n_threads)
    for method in (quantizer.fit, quantizer.partial_fit, OptimalQuantizer(5, n_threads=n_threads).partial_fit):
        spy = Core()
        monkeypatch.setattr(backend, "core", spy)
        method(X)
        assert set(spy.n_threads.values()) == {n_threads}, spy.n_threads
    spy = Core()
    monkeypatch.setattr(backend, "core", spy)
    OnlineQuantizer.from_quantization(quantize(X, 3), n_threads=n_threads).quantization(X)
    assert spy.n_threads["assign"] == spy.n_threads["largest"] == n_threads


def test_partial_fit_waits_for_distinct_samples() -> None:
    quantizer = OptimalQuantizer(2)
    for _ in range(2):
        quantizer.partial_fit([[1.0, 2.0], [1.0, 2.0]])
        with pytest.raises(NotFittedError):
            quantizer.predict([[1.0, 2.0]])
    quantizer.partial_fit([[5.0, 2.0]])  # the three repeats have taken steps that moved nothing
    assert quantizer.cluster_centers_.tolist() == [[1.0, 2.0], [5.0, 2.0]]
    assert quantizer.n_iter_ == 3
    with pytest.raises(ValueError, match="X has 1 features, but OptimalQuantizer is expecting 2"):
        quantizer.partial_fit([[1.0]])


def test_partial_fit_goes_on_from_a_fit() -> None:
    X = np.array([[0.0], [2.0], [10.0], [12.0]])
    quantizer = OptimalQuantizer(2, init=[[0.0], [10.0]]).fit(X).partial_fit([[4.0], [11.0]])
    # points 1 and 11 of four samples: steps (1 + 4/2)^-1 = 1/3 to 4, and (1 + 5/2)^-1 = 2/7 to 11, where a point is
    assert_allclose(quantizer.cluster_centers_, [[2.0], [11.0]], rtol=1e-12)
    assert_allclose(
        quantizer.cluster_weights_, [(0.5 * 2 / 3 + 1 / 3) * 5 / 7, 0.5 * 2 / 3 * 5 / 7 + 2 / 7], rtol=1e-12
    )
    assert quantizer.n_iter_ == 6
    quantizer.fit(X).partial_fit([[4.0]])  # a new fit forgets the stream
    assert_allclose(quantizer.cluster_centers_, [[2.0], [11.0]], rtol=1e-12)
    assert quantizer.n_iter_ == 5


def test_partial_fit_refuses_what_it_cannot_use() -> None:
    X = normal(9, 2)
    with pytest.raises(ValueError, match="partial_fit takes no sample_weight"):
        OptimalQuantizer(2).partial_fit(X, sample_weight=np.ones(9))
    with pytest.raises(ValueError, match="to give points as init, fit first"):
        OptimalQuantizer(2, init=X[:2]).partial_fit(X)
    with pytest.raises(ValueError, match="n_clusters=3, but there are 2 points already"):
        OptimalQuantizer(2).partial_fit(X).set_params(n_clusters=3).partial_fit(X)
    with pytest.raises(ValueError, match="k must be an integer of at least 1"):
        OptimalQuantizer(0).partial_fit(X)
