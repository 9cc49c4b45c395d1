"""What a report says of a run, read from its folder: weights, distances, curves, a map, settings, the call.

Everything is optional but the images: what a stage has not left is None or empty, and the page says how to get it.
"""

from __future__ import annotations

import json
import statistics
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ddoq.data.distilled import DistilledDataset
from ddoq.evaluation.gradients import Agreement, agreement_of
from ddoq.evaluation.logs import TABLE, by_test_set, log_folder, log_name
from ddoq.evaluation.table import Evaluation, Row, stored
from ddoq.quantization.rate_distortion import rate_distortion
from ddoq.reporting.latent_map import Floats, drawn_points
from ddoq.stages.distances import Distance
from ddoq.storage.run import Run

CURVE_CLASSES, CURVE_LATENTS = 5, 1000  # of a rate-distortion curve; the latents of each class
CURVE_POINTS = (1, 2, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class Spread:
    """The weights of a class: their coefficient of variation (deviation over mean), and how many images of equal
    weight would have the same sum of squares, (sum w)^2 / sum w^2.
    """

    name: str
    weights: Floats
    variation: float
    effective: float


def spreads(dataset: DistilledDataset) -> list[Spread]:
    """The weights of every class.

    >>> from types import SimpleNamespace as Set
    >>> import torch
    >>> small = Set(class_names=("a",), labels=torch.tensor([0, 0]), weights=torch.tensor([0.5, 1.5]))
    >>> [(spread.variation, spread.effective) for spread in spreads(small)]
    [(0.5, 1.6)]
    """
    labels, weights = dataset.labels.numpy(), dataset.weights.double().numpy()
    spreads_of_sets = []
    for c, name in enumerate(dataset.class_names):
        class_weights = weights[labels == c]
        spreads_of_sets.append(
            Spread(
                name,
                class_weights,
                float(class_weights.std() / class_weights.mean()),
                float(class_weights.sum() ** 2 / (class_weights**2).sum()),
            )
        )
    return spreads_of_sets


def distances(run: Run) -> list[Distance]:
    """The W2 that `ddoq.weigh` left in a run, or found for a folder."""
    if run.kind == "weighed":
        tables = {name: run.info("weigh")["w2"] for name in run.syntheses()}
    else:
        stages = {name: f"weigh:{name}" for name in ("points", *run.syntheses())}
        files = {name: run.outputs(stage) for name, stage in stages.items() if run.has(stage)}
        tables = {name: json.loads(path.read_bytes()) for name, (path,) in files.items()}
    return [Distance(name, *row) for name, table in tables.items() for row in _rows(table)]


def _rows(table: dict[str, list[float]]) -> list[tuple[str, tuple[float, ...]]]:
    return [(weighting, tuple(values)) for weighting, values in table.items()]


@dataclass(frozen=True)
class Curve:
    """Distortion (C, m) of some classes for numbers of points k (m,), from at most `latents` latents of each."""

    names: tuple[str, ...]
    k: NDArray[np.int64]
    distortion: Floats
    latents: int


def rate_distortion_curve(run: Run) -> Curve | None:
    """Distortion of the first classes for several numbers of points; None where the latents are gone."""
    names = run.class_names[:CURVE_CLASSES]
    drawn = [drawn_points(run, c, CURVE_LATENTS) for c in range(len(names))]
    if any(latents is None for latents in drawn):
        return None
    classes = [latents for latents in drawn if latents is not None]
    distinct = min(len(np.unique(latents, axis=0)) for latents in classes)
    k = [number for number in CURVE_POINTS if number <= distinct]
    labels = np.repeat(np.arange(len(names)), [len(latents) for latents in classes])
    curve = rate_distortion(np.concatenate(classes), labels, k, random_state=0)
    return Curve(tuple(names), curve.k, curve.distortion, max(map(len, classes)))


def evaluation(run: Run) -> Evaluation | None:
    """The table that `ddoq.evaluate` gathered in a run, of the test set of its last call; None where there is none, or
    a damaged one.
    """
    tables = log_folder(run.path).glob(f"test-*/{TABLE}")
    last = max(tables, key=lambda path: (path.stat().st_mtime_ns, path), default=None)
    return None if last is None else stored(last)


def curve(run: Run, test_set: str, row: Row, value: Literal["loss", "accuracy"]) -> tuple[list[int], list[float]]:
    """Epochs, and the mean of a value over a row's students on this run's images; empty where their logs are not here.

    Accuracies are those of protocols that look at the test set on the way.
    """
    distortions: list[dict[int, float]] = []
    for seed in range(row.n):
        name = log_name(row.set, row.images, row.weighting, row.student, row.protocol, seed)
        path = by_test_set(log_folder(run.path), test_set) / name
        with suppress(OSError, ValueError, TypeError, KeyError):
            lines = [json.loads(line) for line in path.read_bytes().splitlines()]
            distortions.append(
                {line["epoch"]: float(line[value]) for line in lines if "epoch" in line and value in line}
            )
    shared = sorted(set.intersection(*map(set, distortions))) if distortions else []
    return shared, [statistics.fmean(distortion[epoch] for distortion in distortions) for epoch in shared]


def agreements(run: Run) -> list[tuple[str, str, Agreement]]:
    """The gradient errors whose logs are in a run's folder, each with what its file's name says, and under which
    settings it was measured.
    """
    logs = []
    for path in sorted(log_folder(run.path).glob("agreement-*.jsonl")):
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            _, name, images, student, seed = path.stem.split("-")
            first, *lines = [json.loads(line) for line in path.read_bytes().splitlines()]
            settings = first["settings"]
            how = f"{settings['epochs']} epochs in batches of {settings['batch_size']}, learning rate {settings['lr']}"
            which = f"{name}, {student}, {images} images, seed {seed.removeprefix('seed')}"
            logs.append((which, how, agreement_of(lines)))
    return logs


def stages(run: Run) -> list[tuple[str, float, float, int]]:
    """Of each stage its name, seconds, peak memory in GiB and number of recorded files."""
    return [
        (name, float(entry.get("seconds", 0)), entry.get("peak_memory", 0) / 2**30, len(entry["outputs"]))
        for name, entry in run.manifest["stages"].items()
    ]
