"""The quantised points of a run are read back from quantization.safetensors here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray


@dataclass(frozen=True)
class Points:
    """The quantisation of a run: points (K, *latent_shape) float32, classes and positions within them (K,), counts,
    class offsets (C + 1,).
    """

    points: NDArray[np.float32]
    classes: NDArray[np.int64]
    positions: NDArray[np.int64]
    counts: NDArray[np.int64]
    offsets: NDArray[np.int64]


def read_points(path: Path) -> Points:
    with safetensors.safe_open(path, "numpy") as file:
        shape = json.loads(file.metadata()["latent_shape"])
        arrays = {name: file.get_tensor(name) for name in ("points", "counts", "class_offsets")}
    sizes = np.diff(arrays["class_offsets"])
    return Points(
        points=arrays["points"].reshape(-1, *shape),
        classes=np.repeat(np.arange(len(sizes)), sizes),
        positions=np.concatenate([np.arange(size) for size in sizes]),
        counts=arrays["counts"],
        offsets=arrays["class_offsets"],
    )
