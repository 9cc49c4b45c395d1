"""The file quantization.safetensors, which holds the points of a run, is written and read here.

points float32 (K, d), weights float64 and counts int64 (K,), class_offsets int64 (C + 1,), distortion float64 (C,), and
latent_shape in its metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from ddoq.storage.files import write_atomic

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
    shape = list(points.points.shape[1:])
    write_atomic(path, safetensors.numpy.save(arrays, metadata={"latent_shape": json.dumps(shape)}))


def read_points(path: Path) -> Points:
    """Read the file."""
    with safetensors.safe_open(path, "numpy") as file:
        shape = json.loads(file.metadata()["latent_shape"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a mapping
    offsets = arrays.pop("class_offsets")
    return Points(points=arrays.pop("points").reshape(-1, *shape), offsets=offsets, **arrays)
