"""Each point of a class is given a real image of it, no image twice, so that the squared distances add up to least."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ddoq.stages.latents import read_latents
from ddoq.storage.points import Points
from ddoq.storage.run import Run


def nearest_images(run: Run, points: Points) -> NDArray[np.int64]:
    """Index in the data of a real image for each point, no latent twice within a class."""
    sources = np.empty(len(points.classes), np.int64)
    for c, (begin, end) in enumerate(zip(points.offsets[:-1], points.offsets[1:], strict=True)):
        latents, indices = read_latents(run, c)
        _, first = np.unique(latents, axis=0, return_index=True)
        first.sort()
        centres = points.points[begin:end].reshape(end - begin, -1).astype(np.float64)
        cost = np.concatenate([_distances(centres, latents[part]) for part in _parts(first)], axis=1)
        sources[begin:end] = indices[first[linear_sum_assignment(cost)[1]]]
    return sources


def _parts(rows: NDArray[np.intp], size: int = 1024) -> Iterator[NDArray[np.intp]]:
    for begin in range(0, len(rows), size):
        yield rows[begin : begin + size]


def _distances(points: NDArray[np.float64], latents: NDArray[Any]) -> NDArray[np.float64]:
    """Squared distances (k, n) of points (k, d) to latents (n, d)."""
    x = latents.astype(np.float64)
    distances: NDArray[np.float64] = (points**2).sum(1)[:, None] + (x**2).sum(1) - 2 * points @ x.T
    return distances
