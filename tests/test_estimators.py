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
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from tolerances import DISTORTION, POINTS, SKLEARN_INERTIA, WEIGHTS

import ddoq
from ddoq import OptimalQuantizer


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
        ({"n_clusters": 0}, "k must be at least 1"),
        ({"n_clusters": 2, "n_init": 0}, "n_init must be at least 1"),
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
