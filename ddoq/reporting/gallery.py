"""Lays out the gallery of a report: the distilled images with their weights, class by class."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddoq.data.distilled import DistilledDataset
from ddoq.reporting import findings
from ddoq.storage.image_folder import png

MAX_CLASSES, MAX_IMAGES = 20, 20  # of the gallery; of more images the heaviest and the lightest are shown


TILE = 128  # side in pixels from which images are made smaller


@dataclass(frozen=True)
class Tile:
    """An image of the gallery: its data, its weight, and that as a share of the greatest in percent."""

    source: str
    weight: float
    count: int
    percent: float


@dataclass(frozen=True)
class Shelf:
    """A class of the gallery; `left_out` images between the heaviest and the lightest are not shown."""

    name: str
    spread: findings.Spread | None
    tiles: tuple[Tile, ...]
    left_out: int


def gallery(
    dataset: DistilledDataset, spreads: Sequence[findings.Spread] | None, classes: int = MAX_CLASSES
) -> list[Shelf]:
    labels, weights = dataset.labels.numpy(), dataset.weights.numpy()
    heaviest = float(weights.max())
    shelves = []
    for c, name in enumerate(dataset.class_names[:classes]):
        rows = np.flatnonzero(labels == c)
        rows = rows[np.argsort(-weights[rows], kind="stable")]
        shown = rows if len(rows) <= MAX_IMAGES else np.r_[rows[: MAX_IMAGES // 2], rows[-(MAX_IMAGES // 2) :]]
        tiles = tuple(
            Tile(
                _source(dataset.images[i].numpy()),
                float(weights[i]),
                int(dataset.counts[i]),
                100 * weights[i] / heaviest,
            )
            for i in shown
        )
        shelves.append(Shelf(name, None if spreads is None else spreads[c], tiles, len(rows) - len(shown)))
    return shelves


def _source(pixels: NDArray[np.uint8]) -> str:
    """An image as a data URL: PNG as it is where it is small, else a JPEG of at most TILE pixels."""
    if pixels.shape[-1] <= 64:
        return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
