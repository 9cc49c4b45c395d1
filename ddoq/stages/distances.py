"""W2 is measured here, class by class, between the latents and the weighted images that stand for them."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ddoq.quantization.transport import w2
from ddoq.stages.latents import read_latents
from ddoq.stages.reencode import Floats
from ddoq.storage.run import Run
from ddoq.storage.tables import aligned


@dataclass(frozen=True)
class Distance:
    """W2 of each class's real latents to a set's weighted latents, in the latents' unit."""

    set: str
    weighting: str
    per_class: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the classes."""
        return statistics.fmean(self.per_class)


@dataclass(frozen=True)
class Distances:
    """W2 of distilled sets to the data under several weights, and remarks; `str` gives an aligned table.

    Examples
    --------
    >>> print(Distances((Distance("decode", "uniform", (1.0, 1.5)), Distance("decode", "reencoded", (1.0, 1.25)))))
    set     weights    W2 to the data
    ------  ---------  --------------
    decode  uniform             1.250
    decode  reencoded           1.125
    """

    rows: tuple[Distance, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [(row.set, row.weighting, f"{row.mean:#.4g}") for row in self.rows]
        return "\n".join([*aligned(("set", "weights", "W2 to the data"), lines, {2}), *self.notes])

    def to_json(self) -> dict[str, Any]:
        """The table as plain lists, dictionaries, strings and numbers, the distance of every class included."""
        rows = [{**asdict(row), "per_class": list(row.per_class), "mean": row.mean} for row in self.rows]
        return {"rows": rows, "notes": list(self.notes)}


def class_distances(
    run: Run, name: str, points: NDArray[Any], offsets: NDArray[np.int64], masses: dict[str, Floats], progress: bool
) -> dict[str, list[float]]:
    """W2 of each class's real latents to its points, under several masses; those of the points' own cells, which make
    it least, are called "reencoded" (of the set "points", "density").
    """
    distances: dict[str, list[float]] = {weighting: [] for weighting in masses}
    spans = list(pairwise(offsets))
    for c, (begin, end) in enumerate(tqdm(spans, desc=f"W2 to {name}", unit="class", disable=not progress)):
        real = read_latents(run, c)[0].astype(np.float32)
        class_points = points[begin:end].reshape(end - begin, -1).astype(np.float32)
        for weighting, mass in masses.items():
            voronoi = weighting == "reencoded" or (name == "points" and weighting == "density")
            distances[weighting].append(w2(real, class_points, None if voronoi else mass[begin:end]))
    return distances
