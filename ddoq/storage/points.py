"""The file quantization.safetensors, which holds the points of a run, is written and read here.

It has points float32 (K, d), weights float64 and counts int64 (K,), class_offsets int64 (C + 1,), distortion float64
(C,), and the fact latent_shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddoq.storage.files import RunError
from ddoq.storage.tensors import read_arrays, write_tensors

POINTS = "quantization.safetensors"


@dataclass(frozen=True)
class Points:
    """The quantisation of all classes.

    Attributes
    ----------
    points
        float32 (K, *latent_shape), class by class.
    weights, counts
        (K,): of each point, within its class: the weights of a class sum to one.
    offsets
        int64 (C + 1,): class c has the points offsets[c] to offsets[c + 1].
    distortion
        float64 (C,): mean squared distance of a class's latents to the nearest point.
    """

    points: NDArray[np.float32]
    weights: NDArray[np.float64]
    counts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    distortion: NDArray[np.float64]

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """(K,): the class of each point."""
        sizes = np.diff(self.offsets)
        return np.repeat(np.arange(len(sizes)), sizes)

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """(K,): the number of each point within its class."""
        return np.arange(len(self.points)) - self.offsets[self.classes]


def write_points(path: Path, points: Points) -> None:
    """Write the file, whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {
        "points": points.points.reshape(len(points.points), -1),
        "weights": points.weights,
        "counts": points.counts,
        "class_offsets": points.offsets,
        "distortion": points.distortion,
    }
    write_tensors(path, arrays, facts={"latent_shape": list(points.points.shape[1:])})


def read_points(path: Path) -> Points:
    """Read the file; RunError, naming it, if it is missing or damaged."""
    sealed = read_arrays(path)
    if sealed is None:
        raise RunError(f"{path} is missing: run again to remake it")
    arrays, facts = sealed
    points = arrays["points"].reshape(-1, *facts["latent_shape"])
    return Points(points, arrays["weights"], arrays["counts"], arrays["class_offsets"], arrays["distortion"])
