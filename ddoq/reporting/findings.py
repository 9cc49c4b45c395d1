"""What a report says of a run, read from its folder: weights, distances, curves, a map, settings, the call.

Everything is optional but the images: what a stage has not left is None or empty, and the page says how to get it.
"""

from __future__ import annotations

import inspect
import json
import shlex
import statistics
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import safetensors.numpy
import scipy.linalg
from numpy.typing import NDArray

from ddoq.data.distilled import DistilledDataset
from ddoq.evaluation.evaluate import TABLE, by_test_set, log_name
from ddoq.evaluation.gradients import Agreement, agreement_of
from ddoq.evaluation.plan import log_folder
from ddoq.evaluation.table import Evaluation, Row, stored
from ddoq.methods.presets import settle
from ddoq.quantization.rate_distortion import rate_distortion
from ddoq.stages.encode import read_latents
from ddoq.storage.run import Run
from ddoq.storage.tables import Distance

MAP_CLASSES, MAP_LATENTS = 10, 1500  # of a map, at most; the latents of all its classes together
CURVE_CLASSES, CURVE_LATENTS = 5, 1000  # of a rate-distortion curve; the latents of each class
CURVE_POINTS = (1, 2, 5, 10, 20, 50, 100, 200)
Floats = NDArray[np.float64]


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
    found = []
    for c, name in enumerate(dataset.class_names):
        own = weights[labels == c]
        found.append(Spread(name, own, float(own.std() / own.mean()), float(own.sum() ** 2 / (own**2).sum())))
    return found


def distances(run: Run) -> list[Distance]:
    """The W2 that `ddoq.weigh` left in a run, or found for a folder."""
    rows = []
    for stage, entry in run.manifest["stages"].items():
        kept = entry["info"].get("w2") if run.manifest["config"].get("given") and stage == "synthesize" else None
        if stage.startswith("weigh:"):
            kept = json.loads((run.path / next(iter(entry["outputs"]))).read_bytes())
        name = stage.partition(":")[2] or "given"
        rows += [Distance(name, weighting, tuple(values)) for weighting, values in (kept or {}).items()]
    return rows


@dataclass(frozen=True)
class Curve:
    """Distortion (C, m) of some classes for numbers of points k (m,), from at most `latents` latents of each."""

    names: tuple[str, ...]
    k: NDArray[np.int64]
    distortion: Floats
    latents: int


def rate_distortion_curve(run: Run) -> Curve | None:
    """Distortion of the first classes for several numbers of points; None where the latents are gone."""
    names = run.manifest["class_names"][:CURVE_CLASSES]
    drawn = [_drawn(run, c, CURVE_LATENTS) for c in range(len(names))]
    if any(latents is None for latents in drawn):
        return None
    classes = [latents for latents in drawn if latents is not None]
    distinct = min(len(np.unique(latents, axis=0)) for latents in classes)
    k = [number for number in CURVE_POINTS if number <= distinct]
    labels = np.repeat(np.arange(len(names)), [len(latents) for latents in classes])
    found = rate_distortion(np.concatenate(classes), labels, k, random_state=0)
    return Curve(tuple(names), found.k, found.distortion, max(map(len, classes)))


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
    path = run.path / "quantization.safetensors"
    drawn = [_drawn(run, c, max(MAP_LATENTS // len(classes), 20)) for c in classes]
    if not path.exists() or any(latents is None for latents in drawn):
        return None
    latents = [one.astype(np.float64) for one in drawn if one is not None]
    quantised = safetensors.numpy.load_file(path)
    offsets, points = quantised["class_offsets"], quantised["points"].reshape(len(quantised["points"]), -1)
    cuts = [slice(int(offsets[c]), int(offsets[c + 1])) for c in classes]
    together = np.concatenate(latents)
    mean = together.mean(axis=0)
    directions, share = _principal(together - mean)
    return Map(
        tuple(run.manifest["class_names"][c] for c in classes),
        tuple((one - mean) @ directions for one in latents),
        tuple((points[cut] - mean) @ directions for cut in cuts),
        tuple(quantised["weights"][cut] * (cut.stop - cut.start) for cut in cuts),
        share,
    )


def _drawn(run: Run, c: int, count: int) -> NDArray[np.float32] | None:
    """At most `count` latents of a class, drawn with a seed."""
    if "encode" not in run.manifest["stages"] or not run.manifest["stages"]["encode"]["outputs"]:
        return None
    latents = read_latents(run, c)[0]
    if len(latents) > count:
        latents = latents[np.sort(np.random.default_rng(c).choice(len(latents), count, replace=False))]
    found: NDArray[np.float32] = latents.astype(np.float32)
    return found


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
    found: list[dict[int, float]] = []
    for seed in range(row.n):
        name = log_name(row.set, row.images, row.weighting, row.student, row.protocol, seed)
        path = by_test_set(log_folder(run.path), test_set) / name
        with suppress(OSError, ValueError, TypeError, KeyError):
            lines = [json.loads(line) for line in path.read_bytes().splitlines()]
            found.append({line["epoch"]: float(line[value]) for line in lines if "epoch" in line and value in line})
    shared = sorted(set.intersection(*map(set, found))) if found else []
    return shared, [statistics.fmean(one[epoch] for one in found) for epoch in shared]


def agreements(run: Run) -> list[tuple[str, str, Agreement]]:
    """The gradient errors whose logs are in a run's folder, each with what its file's name says, and under which
    settings it was measured.
    """
    found = []
    for path in sorted(log_folder(run.path).glob("agreement-*.jsonl")):
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            _, name, images, student, seed = path.stem.split("-")
            first, *lines = [json.loads(line) for line in path.read_bytes().splitlines()]
            own = first["settings"]
            how = f"{own['epochs']} epochs in batches of {own['batch_size']}, learning rate {own['lr']}"
            which = f"{name}, {student}, {images} images, seed {seed.removeprefix('seed')}"
            found.append((which, how, agreement_of(lines)))
    return found


def flattened(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A configuration as dotted names and values; None is left out.

    >>> list(flattened({"seed": 0, "sampling": {"steps": 25, "prompt": None}}))
    [('seed', '0'), ('sampling.steps', '25')]
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def call(manifest: Mapping[str, Any]) -> tuple[str, str] | None:
    """The call of `ddoq.distill` that makes a run, in Python and as a command; None for what it did not make.

    Options as by default are left out. A codec or diffusion model of the user's stands as `...`, with its fingerprint.
    """
    from ddoq.methods.distill import distill

    config = manifest["config"]
    if "quantizer" not in config:
        return None
    given = {**config, **config["sampling"], **config["quantizer"], "quantizer": config["quantizer"]["method"]}
    control = manifest["stages"].get("synthesize:diffuse", {}).get("info", {})
    given.update({name: control[name] for name in ("strength", "steps", "guidance") if name in control})
    made = [stage.partition(":")[2] for stage in manifest["stages"] if stage.startswith("synthesize:")]
    preset = (config["preset"] or "").partition(" (")[0] or None
    own = {name: config[name].get("given") for name in ("codec", "diffusion")}
    given.update(preset=preset, controls=tuple(made), **{name: value or "auto" for name, value in own.items()})
    given.update({f"{name}_steps": config[name].get("fit") for name in own})
    defaults = {name: parameter.default for name, parameter in inspect.signature(distill).parameters.items()}
    defaults.update({name: value for name, value in settle(preset, {}).items() if name not in own})
    lines, words = [], []
    for name, default in defaults.items():
        value = given.get(name)
        if name not in given or name == "data" or value is None or (value == default and name not in ("ipc", "seed")):
            continue
        foreign = name in own and value not in ("auto", "identity")
        literal = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
        lines.append(f"    {name}=...,  # {value!s:.100}" if foreign else f"    {name}={literal},")
        listed = value if isinstance(value, tuple) else (name.upper() if foreign else value,)
        words.append(" ".join([f"--{name.replace('_', '-')}", *(shlex.quote(str(part)) for part in listed)]))
    python = "\n".join(["import ddoq", "", "ddoq.distill(", "    data,", '    "again",', *lines, ")"])
    return python, " \\\n    ".join(["ddoq distill DATA again", *words])


def stages(run: Run) -> list[tuple[str, float, float, int]]:
    """Of each stage its name, seconds, peak memory in GiB and number of recorded files."""
    return [
        (name, float(entry.get("seconds", 0)), entry.get("peak_memory", 0) / 2**30, len(entry["outputs"]))
        for name, entry in run.manifest["stages"].items()
    ]
