"""Plans an evaluation: the sets that it compares, their distillations, and the trainings to be made on them.

A run gives a set per synthesis; a folder of class folders that is no run gives one, of weights 1. Several runs of one
configuration but for the seed are distillations of one set; where they differ in IPC they are rows of their own.
Classes are matched by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from ddoq.data.classes import matched_labels
from ddoq.data.distilled import DistilledDataset, load
from ddoq.data.draw import draw_images
from ddoq.data.image_data import open_data
from ddoq.data.weights import Weighting
from ddoq.evaluation.logs import log_folder
from ddoq.evaluation.table import ANY, FULL, OFF, RANDOM
from ddoq.storage.manifest import MANIFEST, main_set, row_name
from ddoq.storage.run import Run
from ddoq.storage.values import digest
from ddoq.training.training_set import TrainingSet

ORDER = ("given", "nearest", "decode", "diffuse")  # of the rows; "given": a folder that ddoq.weigh gave weights
Given = DistilledDataset | str | PathLike[str]
Member = DistilledDataset | TrainingSet  # the latter where there are no weights to choose


@dataclass(frozen=True)
class Training:
    """One to be made: the student's seed, what it trains on, and the folder for its log."""

    seed: int
    data: Callable[[], TrainingSet]
    logs: Path | None


@dataclass(frozen=True)
class Entry:
    """A row to be made: how many images a set has, and the trainings of each distillation (or random draw)."""

    name: str
    weighting: str
    images: int
    trainings: tuple[tuple[Training, ...], ...]
    images_hash: str = ""  # of all distillations' images


@dataclass(frozen=True)
class Compared:
    """A set with its distillations, and a folder for the logs of each."""

    name: str
    members: tuple[Member, ...]
    logs: tuple[Path | None, ...]

    @property
    def first(self) -> TrainingSet:
        """The first distillation, without weights."""
        member = self.members[0]
        return member if isinstance(member, TrainingSet) else TrainingSet.of(member.reweighted("uniform"))

    @property
    def fingerprints(self) -> list[str]:
        """Hashes of the images of each distillation."""
        return [_as_set(member).images_fingerprint for member in self.members]

    def _offered(self, weightings: Sequence[Weighting]) -> Sequence[Weighting]:
        """Those weightings that all distillations can have; OFF, the uniform one, where there are none."""
        for member in self.members:
            weightings = member.offered(weightings) if isinstance(member, DistilledDataset) else weightings
        return weightings or ["uniform"]

    def entries(self, weightings: Sequence[Weighting], seeds: int) -> Iterator[Entry]:
        """A row per weighting; one, called ANY, where all give the same numbers; OFF where there are no weights."""
        if any(isinstance(member, TrainingSet) for member in self.members):
            sets_of: dict[str, list[TrainingSet]] = {OFF: [_as_set(member) for member in self.members]}
        else:
            sets_of = {w: [_as_set(member, w) for member in self.members] for w in self._offered(weightings)}
        first_sets, *others = sets_of.values()
        pairs = [pair for other in others for pair in zip(first_sets, other, strict=True)]
        if others and all(torch.allclose(a.weights, b.weights, rtol=1e-6) for a, b in pairs):
            sets_of = {ANY: first_sets}
        images_hash = digest(self.fingerprints)[:16]
        for weighting, sets in sets_of.items():
            trainings = [
                tuple(Training(seed, partial(_same, data), logs) for seed in range(seeds))
                for data, logs in zip(sets, self.logs, strict=True)
            ]
            yield Entry(self.name, weighting, len(sets[0].images), tuple(trainings), images_hash)


def open_compared(
    sets_given: Given | Sequence[Given] | Mapping[str, Given | Sequence[Given]], logs: Path | None
) -> list[Compared]:
    """What `ddoq.evaluate` was given, as sets; those of one name and size are distillations of one set.

    With `logs`, those of a distillation go to a folder in it that its images name, whatever else is evaluated.

    Raises
    ------
    ValueError
        No set; runs without names that differ in more than seed and IPC; one distillation twice; other classes or
        another shape of images than the first set's.
    """
    groups: dict[tuple[Any, ...], list[tuple[Member, Path | None]]] = {}
    like: TrainingSet | None = None
    for name, item in _listed(sets_given):
        folder = None if isinstance(item, DistilledDataset) else log_folder(Path(item))
        for log_folder_of, opened in _open(item, like, main=name is not None):
            member = opened if like is None else _aligned(name or log_folder_of, opened, like)
            like = like or _as_set(member)
            size = tuple(member.labels.bincount().tolist())
            logs_of = folder if logs is None else logs / f"images-{_as_set(member).images_fingerprint[:8]}"
            groups.setdefault((name or log_folder_of, size), []).append((member, logs_of))
    if not groups:
        raise ValueError("run names no set to evaluate: give a folder that ddoq distill made, or one of class folders")
    sets = []
    for (name, _), group in groups.items():
        members = tuple(member for member, _ in group)
        _check_distillations(name, members, named=isinstance(sets_given, Mapping))
        sets.append(Compared(name, members, tuple(folder for _, folder in group)))
    places = {name: i for i, name in enumerate(dict.fromkeys([*ORDER, *(compared.name for compared in sets)]))}
    return sorted(sets, key=lambda compared: (len(compared.members[0].labels), places[compared.name]))


def full_entries(
    sets: Sequence[Compared],
    data: Any,
    full_data: bool,
    class_names: Sequence[str] | None,
    seeds: int,
    logs: Path | None,
) -> Iterator[Entry]:
    """The rows of the full data set: as many random images as a set has, all drawn anew; all of it.

    Every training on random images has a draw of its own, since that costs nothing: one student each. Their logs go to
    `logs`, or to the folder of the first distillation.
    """
    like = sets[0].first
    opened = open_data(data, image_size=like.size, channels=like.channels, class_names=class_names)
    labels_of_data, renaming = torch.as_tensor(opened.labels), opened.source.renaming
    labels = matched_labels(labels_of_data, opened.class_names, like.class_names, "full data set", renaming)
    indices = [torch.nonzero(labels == c)[:, 0].numpy() for c in range(len(like.class_names))]

    def draw(like: TrainingSet, seed: int) -> TrainingSet:
        rows = torch.empty(len(like.labels), dtype=torch.int64)
        for c, there in enumerate(indices):
            places = like.labels == c
            rows[places] = torch.from_numpy(draw_images(there, int(places.sum()), seed, c))
        return replace(like, images=torch.as_tensor(opened.images(rows.numpy())))

    largest: dict[tuple[int, ...], Compared] = {}
    for compared in sets:
        size = tuple(compared.first.labels.bincount().tolist())
        if size not in largest or len(compared.members) > len(largest[size].members):
            largest[size] = compared
    for size, compared in largest.items():
        for name, there, drawn in zip(like.class_names, map(len, indices), size, strict=True):
            if there < drawn:
                raise ValueError(f"class {name!r} of the full data set has {there} images, too few to draw {drawn}")
        seen = range(seeds * len(compared.members))
        draws = tuple((Training(seed, partial(draw, compared.first, seed), logs or compared.logs[0]),) for seed in seen)
        yield Entry(RANDOM, OFF, sum(size), draws)
    if full_data:
        images = torch.as_tensor(opened.images(range(len(opened))))
        everything = replace(like, images=images, labels=labels, weights=torch.ones(len(images)))
        logs_of = logs or sets[0].logs[0]
        trainings = tuple(Training(seed, partial(_same, everything), logs_of) for seed in range(seeds))
        yield Entry(FULL, OFF, len(images), (trainings,))


def _listed(sets_given: Any) -> Iterator[tuple[str | None, Given]]:
    """Every distillation with the name that its set was given, if any."""
    for name, value in sets_given.items() if isinstance(sets_given, Mapping) else [(None, sets_given)]:
        for item in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            yield name, item


def _open(item: Given, like: TrainingSet | None, main: bool) -> Iterator[tuple[str, Member]]:
    """The sets of a run by name, or its main images alone; a folder that is no run under its own name."""
    if isinstance(item, DistilledDataset):
        yield "given", item
    elif not (Path(item) / MANIFEST).exists() and Path(item).is_dir():
        size, channels = (None, None) if like is None else (like.size, like.channels)
        yield Path(item).resolve().name, TrainingSet.of(open_data(item, image_size=size, channels=channels))
    else:
        run = Run.open(item)
        controls = [] if main else sorted(run.syntheses()[1:])
        for name in [main_set(run.manifest), *controls]:
            yield row_name(run.manifest, name), load(item, synthesis=name)


def _aligned(name: str, member: Member, like: TrainingSet) -> Member:
    """A set with its classes in the order of the first; ValueError where they, or the shape of the images, differ."""
    if sorted(member.class_names) != sorted(like.class_names) or member.images.shape[1:] != like.images.shape[1:]:
        raise ValueError(f"{name!r} has other classes or images than the first set: evaluate them apart")
    labels = matched_labels(member.labels, member.class_names, like.class_names, name)
    if isinstance(member, TrainingSet):  # normalised as the first: by the statistics of the full data, if it is a run's
        return replace(member, labels=labels, class_names=like.class_names, mean=like.mean, std=like.std)
    return replace(member, labels=labels, class_names=like.class_names)


def _check_distillations(name: str, members: Sequence[Member], named: bool) -> None:
    """ValueError where distillations of one set are the same one, or are not of one configuration but for the seed."""
    images = [member.images for member in members]
    if any(torch.equal(a, b) for i, a in enumerate(images) for b in images[:i]):
        raise ValueError(f"{name!r} has the same images twice: give each distillation once, made with its own seed")
    configs = [member.manifest.get("config", {}) for member in members if isinstance(member, DistilledDataset)]
    configs = [config | config.get("options", {}) for config in configs]
    others = {key for config in configs for key in config if config[key] != configs[0].get(key)} - {"seed", "options"}
    if others and not named:
        raise ValueError(
            f"the runs of {name!r} differ in {', '.join(sorted(others))}, not in seed and ipc alone: give their sets "
            "names, such as {'lloyd': [run, run], 'minibatch': [run, run]}"
        )


def _as_set(member: Member, weighting: Weighting | None = None) -> TrainingSet:
    if isinstance(member, TrainingSet):
        return member
    return TrainingSet.of(member if weighting is None else member.reweighted(weighting))


def _same(data: TrainingSet) -> TrainingSet:
    return data
