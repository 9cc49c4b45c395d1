"""Assigns samples to their nearest points, which gives weights, counts and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddoq.machine import backend
from ddoq.quantization.problem import Problem
from ddoq.quantization.result import ClassQuantization, Quantization, point_range


def assign(
    X: NDArray[Any], points: NDArray[Any], n_threads: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the nearest point of each sample.

    Parameters
    ----------
    X, points
        (n, d) and (k, d), C-contiguous; points are float32 or float64, samples of the same type or halves.
    n_threads
        None: as many as the process may use.

    Returns
    -------
    int64 (n,), float64 (n,)
        The index of the nearest point, the lowest one on ties, and the squared distance from it.

    Examples
    --------
    >>> assign(np.array([[0.0], [9.0]]), np.array([[1.0], [7.0]]))
    (array([0, 1]), array([1., 4.]))
    """
    labels, squares = np.empty(len(X), dtype=np.int64), np.empty(len(X))
    backend.core.assign(X, points, labels, squares, backend.n_threads(n_threads), backend.isa())
    return labels, squares


def cells(X: NDArray[Any], points: NDArray[Any], n_threads: int | None = None, *, n_iter: int = 0) -> Quantization:
    """Give points that lie where they are the counts, weights and distortion of their Voronoi cells.

    Examples
    --------
    >>> cells(np.array([[0.0], [2.0], [9.0], [9.0]]), np.array([[1.0], [7.0]])).weights
    array([0.5, 0.5])
    """
    labels, squares = assign(X, points, n_threads)
    counts = np.bincount(labels, minlength=len(points)).astype(np.int64)
    return Quantization(points, counts / len(X), counts, labels, float(squares.mean()), n_iter)


def label_left_out(result: ClassQuantization, problem: Problem, n_threads: int) -> None:
    """Label the samples of weight zero, which took no part, by their nearest points."""
    for c in np.unique(result.class_index[problem.weights == 0]):
        rows = np.flatnonzero((result.class_index == c) & (problem.weights == 0))
        points = result.points[point_range(result, int(c))]
        result.labels[rows] = assign(problem.X[rows], points, n_threads)[0]
