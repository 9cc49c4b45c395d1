"""Weights of the images of a distilled set, from the counts of their Voronoi cells."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Weighting = Literal["density", "sqrt", "uniform", "reencoded"]


ClassPrior = Literal["balanced", "data"]


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
