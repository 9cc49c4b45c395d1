"""Computes the 2-Wasserstein distance between samples and weighted points, and the nearest points of equal weight."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq.machine import backend
from ddoq.machine.extras import need
from ddoq.quantization.assign import assign
from ddoq.quantization.checks import check_finite, check_sample_weight
from ddoq.quantization.samples import as_samples

MAX_PIVOTS = 10**9  # of the network simplex: far above what it needs, so that it ends at the optimum


def w2(
    X: ArrayLike,
    points: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Distance W2 between the samples and the weighted points, in the samples' unit.

    Parameters
    ----------
    X
        (n, d) samples.
    points
        (k, d) points.
    weights
        (k,) masses of the points, not negative, in any unit. None: the masses of the points' Voronoi cells, which make
        W2 least; it is then the square root of the mean squared distance to the nearest point. Given: the exact optimal
        transport by POT's network simplex, whose memory is 16 n k bytes.
    sample_weight
        (n,) masses of the samples, not negative, in any unit; None: all equal.

    Raises
    ------
    ValueError, TypeError
        On shapes that do not match, values that are not finite, or masses that are negative or all zero.
    ImportError
        If `weights` are given and POT is not installed: `pip install 'ddoq[metrics]'`.
    RuntimeError
        If the transport problem was not solved to the optimum.

    Examples
    --------
    >>> import ddoq
    >>> X, points = [[0.0], [2.0], [4.0], [6.0]], [[1.0], [5.0]]
    >>> ddoq.w2(X, points)
    1.0
    >>> round(ddoq.w2(X, points, [0.75, 0.25]) ** 2, 12)  # the sample at 4 goes to 1: (1 + 1 + 9 + 1) / 4
    3.0
    """
    samples, support = as_samples(X), as_samples(points, "points")
    if samples.shape[1] != support.shape[1]:
        raise ValueError(f"X has {samples.shape[1]} features and points has {support.shape[1]}: they must match")
    dtype = np.result_type(samples, support)
    samples, support = samples.astype(dtype, copy=False), support.astype(dtype, copy=False)
    for array, name in ((samples, "X"), (support, "points")):
        check_finite(array, backend.n_threads(), name)
    mass = _shares(sample_weight, len(samples), "sample_weight")
    if weights is None:
        return math.sqrt(float(mass @ assign(samples, support)[1]))
    masses = _shares(weights, len(support), "weights")
    return math.sqrt(_transport(mass, masses, samples, support, "w2 with given weights")[1])


def barycentre(
    X: ArrayLike, start: ArrayLike, *, sample_weight: ArrayLike | None = None, max_iter: int = 200
) -> NDArray[np.float64]:
    """Points of equal weight near the samples in W2: a free-support Wasserstein barycentre of the one measure.

    The problem of the optimal quantiser with the weights fixed at 1/k, so that its W2 is no less at the optimum. Each
    point moves to the mean of what an optimal transport plan brings it, until none moves: a local optimum, as Lloyd's
    is.

    Parameters
    ----------
    X
        (n, d) samples.
    start
        (k, d) first points, such as those of `ddoq.quantize`.
    sample_weight
        (n,) masses of the samples, not negative, in any unit; None: all equal.
    max_iter
        Steps at most; each solves one transport problem of n times k.

    Returns
    -------
    (k, d) float64

    Raises
    ------
    ValueError, TypeError, ImportError, RuntimeError
        As `w2`.

    Examples
    --------
    >>> barycentre([[0.0], [1.0], [5.0]], [[0.0], [5.0]]).round(6)  # each takes a sample and half of the middle one
    array([[0.333333],
           [3.666667]])

    References
    ----------
    Cuturi and Doucet, Fast computation of Wasserstein barycenters, ICML 2014, algorithm 2.
    """
    samples, support = as_samples(X).astype(np.float64), as_samples(start, "start").astype(np.float64)
    if samples.shape[1] != support.shape[1]:
        raise ValueError(f"X has {samples.shape[1]} features and start has {support.shape[1]}: they must match")
    for array, name in ((samples, "X"), (support, "start")):
        check_finite(array, backend.n_threads(), name)
    mass = _shares(sample_weight, len(samples), "sample_weight")
    centre = mass @ samples
    scale = float(np.sqrt(mass @ ((samples - centre) ** 2).sum(axis=1))) or 1.0
    scaled, points = (samples - centre) / scale, (support - centre) / scale
    shares = np.full(len(points), 1 / len(points))
    for _ in range(max_iter):
        plan, _ = _transport(mass, shares, scaled, points, "barycentre")
        moved = len(points) * plan.T @ scaled
        still = ((moved - points) ** 2).sum() < 1e-12
        points = moved
        if still:
            break
    barycentre_points: NDArray[np.float64] = points * scale + centre
    return barycentre_points


def _shares(masses: ArrayLike | None, n: int, name: str) -> NDArray[np.float64]:
    """Masses that sum to one."""
    w = check_sample_weight(masses, n, name)
    greatest = w.max()
    if greatest == 0.0:
        raise ValueError(f"{name} are all zero: at least one must be positive")
    relative = w / greatest  # first, since the sum of large masses overflows
    shares: NDArray[np.float64] = relative / relative.sum()
    return shares


def _transport(
    sample_masses: NDArray[np.float64],
    point_masses: NDArray[np.float64],
    X: NDArray[Any],
    points: NDArray[Any],
    what: str,
) -> tuple[NDArray[np.float64], float]:
    """Plan (n, k) that carries the samples' masses to the points' over the least mean squared distance, and that one.

    `what` needs POT, for the error where it is not installed.
    """
    ot = need("ot", what)
    costs = np.stack([assign(X, points[j : j + 1])[1] for j in range(len(points))], axis=1)
    plan, log = ot.emd(sample_masses, point_masses, costs, numItermax=MAX_PIVOTS, log=True)
    if log["warning"] is not None:
        raise RuntimeError(
            f"optimal transport between {len(X)} samples and {len(points)} points failed: {log['warning']}"
        )
    return plan, max(float(log["cost"]), 0.0)
