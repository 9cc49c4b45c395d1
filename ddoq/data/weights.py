"""Weights of the images of a distilled set are made here, of the counts of their Voronoi cells."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Weighting = Literal["density", "sqrt", "uniform", "reencoded"]
WEIGHTINGS: tuple[Weighting, ...] = ("density", "reencoded", "sqrt", "uniform")
ClassPrior = Literal["balanced", "data"]
Counts = np.ndarray[Any, np.dtype[np.int64]]


def class_weights(
    counts: np.ndarray[Any, Any], class_offsets: np.ndarray[Any, Any], weighting: str, class_prior: str = "balanced"
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What each image's loss is multiplied by; mean 1.

    Parameters
    ----------
    counts
        (K,) images of the full set in each point's cell, class by class.
    class_offsets
        (C + 1,): class c has the points class_offsets[c] to class_offsets[c + 1].
    weighting
        "density", "reencoded": in proportion to the counts (of the points' cells, or of the images' own); "sqrt": to
        their square roots; "uniform": all the same within a class.
    class_prior
        "balanced": every class has the total K / C; "data": K times its share of the full set.

    Returns
    -------
    float64 (K,)

    Examples
    --------
    >>> class_weights(np.array([30, 10, 5, 5]), np.array([0, 2, 4]), "density")
    array([1.5, 0.5, 1. , 1. ])
    >>> class_weights(np.array([30, 10, 5, 5]), np.array([0, 2, 4]), "uniform", "data")
    array([1.6, 1.6, 0.4, 0.4])
    """
    counts, offsets = np.asarray(counts, dtype=np.float64), np.asarray(class_offsets)
    sizes = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(counts) or (sizes < 1).any():
        raise ValueError(f"class_offsets {offsets} do not cut {len(counts)} points into classes of at least one")
    if class_prior not in ("balanced", "data"):
        raise ValueError(f"class_prior {class_prior!r} is not known: use 'balanced' or 'data'")
    powers = {"density": 1.0, "reencoded": 1.0, "sqrt": 0.5, "uniform": 0.0}
    if weighting not in powers:
        raise ValueError(f"weighting {weighting!r} is not known: use 'density', 'reencoded', 'sqrt' or 'uniform'")
    full = np.add.reduceat(counts, offsets[:-1])
    if (counts < 0).any() or (full <= 0).any():
        raise ValueError(
            f"counts must not be negative, and no class empty: classes {np.flatnonzero(full <= 0)} have none"
        )
    shape = counts ** powers[weighting]
    n_points, n_classes = len(counts), len(sizes)
    totals = np.full(n_classes, n_points / n_classes) if class_prior == "balanced" else full / full.sum() * n_points
    return np.asarray(shape * np.repeat(totals / np.add.reduceat(shape, offsets[:-1]), sizes))


def counts_for(weighting: str, counts: Counts, reencoded: Counts | None) -> Counts:
    """The counts that a weighting is made of: those of the points' cells, or those of the images' own.

    ValueError for "reencoded" where the images were not encoded again: `ddoq.weigh` does that to any folder.
    """
    if weighting != "reencoded":
        return counts
    if reencoded is None:
        raise ValueError("these images have no 'reencoded' weights: write them into a folder and use ddoq.weigh")
    return reencoded


def image_weights(
    counts: Counts, labels: Counts, n_classes: int, weighting: str, class_prior: str
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The weights of `class_weights` for images in any order; each class has at least one.

    Examples
    --------
    >>> image_weights(np.array([5, 30, 5, 10]), np.array([1, 0, 1, 0]), 2, "density", "balanced")
    array([1. , 1.5, 1. , 0.5])
    """
    order = np.argsort(labels, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=n_classes))])
    weights = np.empty(len(labels))
    weights[order] = class_weights(counts[order], offsets, weighting, class_prior)
    return weights


def even_counts(labels: Counts, class_sizes: Counts) -> Counts:
    """Counts of images that stand for no cell: the images of the full set, shared as evenly as whole numbers can.

    Examples
    --------
    >>> even_counts(np.array([0, 0, 0, 1]), np.array([8, 5]))
    array([3, 3, 2, 5])
    """
    counts = np.empty(len(labels), np.int64)
    for c, size in enumerate(class_sizes):
        rows = np.flatnonzero(labels == c)
        counts[rows] = size // len(rows) + (np.arange(len(rows)) < size % len(rows))
    return counts
