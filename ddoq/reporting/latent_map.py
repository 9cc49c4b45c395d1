"""Maps the latents into the plane, by principal components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ddoq.stages.latents import read_latents
from ddoq.storage.run import Run

MAP_CLASSES, MAP_LATENTS = 10, 1500  # of a map, at most; the latents of all its classes together


Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Map:
    """Latents and points of classes in the plane of their two largest principal components, and the share of the
    variance that lies in it.
    """

    names: tuple[str, ...]
    latents: tuple[Floats, ...]
    points: tuple[Floats, ...]
    weights: tuple[Floats, ...]
    share: float


def latent_map(run: Run, classes: range) -> Map | None:
    """The map of some classes together; None without a quantisation, or where the latents are gone."""
    drawn = [drawn_points(run, c, max(MAP_LATENTS // len(classes), 20)) for c in classes]
    if not run.has("quantize") or any(latents is None for latents in drawn):
        return None
    latents = [part.astype(np.float64) for part in drawn if part is not None]
    quantised = run.points()
    points = quantised.points.reshape(len(quantised.points), -1)
    cuts = [slice(int(quantised.offsets[c]), int(quantised.offsets[c + 1])) for c in classes]
    together = np.concatenate(latents)
    mean = together.mean(axis=0)
    directions, share = _principal(together - mean)
    return Map(
        tuple(run.class_names[c] for c in classes),
        tuple((part - mean) @ directions for part in latents),
        tuple((points[cut] - mean) @ directions for cut in cuts),
        tuple(quantised.weights[cut] * (cut.stop - cut.start) for cut in cuts),
        share,
    )


def drawn_points(run: Run, c: int, count: int) -> NDArray[np.float32] | None:
    """At most `count` latents of a class, drawn with a seed."""
    if not run.has("encode"):
        return None
    latents = read_latents(run, c)[0]
    if len(latents) > count:
        latents = latents[np.sort(np.random.default_rng(c).choice(len(latents), count, replace=False))]
    drawn: NDArray[np.float32] = latents.astype(np.float32)
    return drawn


def _principal(centred: Floats) -> tuple[Floats, float]:
    """The first two principal directions (d, 2), and their share of the variance; each sign makes its largest entry
    positive.
    """
    n, d = centred.shape
    total = float((centred**2).sum()) or 1.0
    size = min(n, d)
    if size == 1:
        return np.eye(d, 2), 1.0
    square = centred @ centred.T if n < d else centred.T @ centred
    values, vectors = scipy.linalg.eigh(square, subset_by_index=[size - 2, size - 1])
    directions = (centred.T @ vectors if n < d else vectors)[:, ::-1]
    directions = directions / np.maximum(np.linalg.norm(directions, axis=0), 1e-300)
    largest = directions[np.abs(directions).argmax(axis=0), [0, 1]]
    return directions * np.where(largest < 0, -1, 1), float(values.sum() / total)
