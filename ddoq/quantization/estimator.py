"""Offers the quantiser as a scikit-learn estimator; this file only translates to `ddoq.quantize`."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.validation import check_is_fitted, validate_data

from ddoq.quantization.assign import assign
from ddoq.quantization.checks import check_sample_weight
from ddoq.quantization.online import OnlineQuantizer
from ddoq.quantization.options import Form, Init, RandomState, Refine
from ddoq.quantization.quantize import quantize
from ddoq.quantization.result import Quantization


class OptimalQuantizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Quantise samples into weighted points, as a scikit-learn estimator.

    Parameters
    ----------
    n_clusters
        Number of points, at most the number of distinct rows of positive weight. scikit-learn's `KMeans` warns above
        that and keeps points without samples; here it is an error, since every point must have mass (a fit that `tol`
        or `max_iter` stops may still leave one without, as `KMeans` may).
    init, n_init, refine, form, max_iter, tol, random_state, n_threads
        As for `ddoq.quantize`. With `refine="none"` the fit is that of `KMeans` from the same start, with the same
        `tol` in streaming form and with `tol=0` in Gram form.

    Attributes
    ----------
    cluster_centers_
        (n_clusters, n_features), the samples' float32 or float64: the points.
    cluster_weights_
        (n_clusters,) float64: mass of each cell over the whole mass; they sum to one.
    cluster_counts_
        (n_clusters,) int64: samples of positive weight in each cell.
    labels_
        (n_samples,) int64: index of each sample's nearest point.
    distortion_
        Weighted mean squared distance to the nearest point.
    inertia_
        Weighted sum of the squared distances: `distortion_` times the whole mass.
    n_iter_
        Lloyd iterations of the start with the lowest distortion.
    n_features_in_, feature_names_in_
        As in every scikit-learn estimator; the names only where X had names.

    These are the attributes after `fit`; `partial_fit` says what it leaves in them.

    Raises
    ------
    ValueError, TypeError, MemoryError
        From `fit`, as `ddoq.quantize`, which speaks of `n_clusters` as k; sparse matrices are refused.

    Notes
    -----
    Integers and float16 become float64, as in scikit-learn; `ddoq.quantize` makes them float32.

    Examples
    --------
    >>> import ddoq
    >>> X = [[0.0], [1.0], [2.0], [10.0]]
    >>> quantizer = ddoq.OptimalQuantizer(n_clusters=2, random_state=0).fit(X, sample_weight=[1, 1, 2, 4])
    >>> sorted(zip(quantizer.cluster_centers_[:, 0].tolist(), quantizer.cluster_weights_.tolist()))
    [(1.25, 0.5), (10.0, 0.5)]
    >>> near, far = quantizer.predict([[0.0], [9.0]])
    >>> quantizer.cluster_centers_[[near, far], 0].tolist()
    [1.25, 10.0]
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Init = "k-means++",
        n_init: int | Literal["auto"] = "auto",
        refine: Refine = "auto",
        form: Form = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: RandomState = None,
        n_threads: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.refine = refine
        self.form = form
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.n_threads = n_threads

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Quantise the samples X (n, d), of weights (n,) if given; y is not used."""
        samples = self._samples(X, reset=True)
        if isinstance(self.n_clusters, int) and len(samples) < self.n_clusters:
            raise ValueError(f"n_samples={len(samples)} must be at least n_clusters={self.n_clusters}")
        weights = check_sample_weight(sample_weight, len(samples))
        if not weights.any():
            raise ValueError("every sample_weight is zero: give some samples a positive weight")
        q = quantize(
            samples,
            self.n_clusters,
            sample_weight=weights,
            init=self.init,
            n_init=self.n_init,
            refine=self.refine,
            form=self.form,
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=self.random_state,
            n_threads=self.n_threads,
        )
        self._stream: OnlineQuantizer | None = None
        self.cluster_centers_ = q.points
        self.cluster_weights_ = q.weights
        self.cluster_counts_ = q.counts
        self.labels_ = q.labels
        self.distortion_ = q.distortion
        self.inertia_ = q.distortion * float(weights.sum())
        self.n_iter_ = q.n_iter
        return self

    def partial_fit(self, X: ArrayLike, y: object = None, sample_weight: None = None) -> Self:
        """Take a step for each sample of the batch X (n, d), in their order; y is not used.

        The steps are those of `ddoq.OnlineQuantizer` with its defaults, and nothing depends on how the stream is cut
        into batches but `labels_`, `cluster_counts_`, `distortion_` and `inertia_`, which are of the last batch and the
        points after it. The first n_clusters distinct samples are the starting points: until they have come, batches
        are kept and the estimator counts as not fitted. After `fit`, the steps go on from its points, as if each of
        its samples had taken one.

        `cluster_weights_` are the online weights of the whole stream, and not, as after `fit`, the masses of the cells;
        `n_iter_` is the number of steps. `init`, `n_init`, `refine`, `form`, `max_iter`, `tol` and `random_state` have
        no part here.

        Raises
        ------
        ValueError, TypeError
            As `fit`; for a `sample_weight`, which has no place in the recursion; for points given as `init`; or if
            `n_clusters` is no longer that of the first batch.

        Examples
        --------
        >>> import ddoq
        >>> quantizer = ddoq.OptimalQuantizer(n_clusters=2)
        >>> for batch in ([[0.0], [8.0], [2.0]], [[5.0], [10.0]]):
        ...     quantizer = quantizer.partial_fit(batch)
        >>> quantizer.cluster_centers_.round(6).tolist(), quantizer.cluster_weights_.round(6).tolist()
        ([[4.0], [9.0]], [0.5, 0.5])
        """
        if sample_weight is not None:
            raise ValueError("partial_fit takes no sample_weight: repeat samples, or use fit")
        stream: OnlineQuantizer | None = getattr(self, "_stream", None)
        samples = self._samples(X, reset=stream is None and not hasattr(self, "cluster_centers_"))
        if stream is None:
            stream = self._new_stream()
        if self.n_clusters != stream.k:
            raise ValueError(f"n_clusters={self.n_clusters}, but there are {stream.k} points already: use fit")
        stream.update(samples)
        self._stream = stream
        if stream.started:
            self.cluster_centers_ = stream.points
            self.cluster_weights_ = stream.online_weights
            self.labels_, squares = self._nearest(samples)
            self.cluster_counts_ = np.bincount(self.labels_, minlength=stream.k).astype(np.int64)
            self.distortion_ = float(squares.mean())
            self.inertia_ = float(squares.sum())
            self.n_iter_ = stream.steps
        return self

    def fit_predict(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int64]:
        """Fit to X and give `labels_`; y is not used."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Index (n,) of the nearest point of each row of X (n, d)."""
        return self._assign(X)[0]

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Distances (n, n_clusters) of the rows of X (n, d) from the points, in X's float32 or float64."""
        check_is_fitted(self)
        distances: NDArray[Any] = euclidean_distances(self._samples(X, reset=False), self.cluster_centers_)
        return distances

    def score(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> float:
        """Minus the weighted sum of the squared distances of X (n, d) from the nearest points; y is not used."""
        squares = self._assign(X)[1]
        return -float(check_sample_weight(sample_weight, len(squares)) @ squares)

    def _assign(self, X: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Nearest points and the squared distances from them."""
        check_is_fitted(self)
        return self._nearest(self._samples(X, reset=False))

    def _nearest(self, samples: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """As `_assign`, of samples that are checked."""
        points = self.cluster_centers_.astype(samples.dtype, copy=False)
        return assign(samples, points, self.n_threads)

    def _new_stream(self) -> OnlineQuantizer:
        """Start from the fit, or from nothing."""
        if hasattr(self, "cluster_centers_"):
            fitted = Quantization(
                points=self.cluster_centers_,
                weights=self.cluster_weights_,
                counts=self.cluster_counts_,
                labels=self.labels_,
                distortion=self.distortion_,
                n_iter=self.n_iter_,
            )
            return OnlineQuantizer.from_quantization(fitted, n_threads=self.n_threads)
        if not isinstance(self.init, str):
            raise ValueError("partial_fit starts from the first distinct samples: to give points as init, fit first")
        return OnlineQuantizer(self.n_clusters, n_threads=self.n_threads)

    def __sklearn_is_fitted__(self) -> bool:
        """Say that there are points: a first `partial_fit` of few samples leaves none."""
        return hasattr(self, "cluster_centers_")

    def _samples(self, X: ArrayLike, *, reset: bool) -> NDArray[Any]:
        samples: NDArray[Any] = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32], order="C")
        return np.require(samples, requirements=["ALIGNED"])

    @property
    def _n_features_out(self) -> int:
        """Number of columns of `transform`, which the mixin names."""
        return len(self.cluster_centers_)

    def __sklearn_tags__(self) -> Any:
        """Say that `transform` keeps the dtype."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
