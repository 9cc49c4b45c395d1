"""Train students on every set with every weighting under one protocol, several seeds, and tabulate the last epochs.

    sets        random subsets, fresh for each seed; the run's images, by synthesis; all images of the full data set
    weightings  "uniform", "density", "sqrt", "reencoded"; where they are the same numbers (one image per class), once,
                as "any"

One log per training, `<run>/train/<set>-<weighting>-<student>-seed<k>.jsonl`; a log that is whole and was made with
the same settings (the data's hashes, versions, device and threads among them) is read instead of training again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ddoq._device import torch_device
from ddoq.data import open_data
from ddoq.distilled import DistilledDataset, Weighting, load
from ddoq.run import Run, seed_sequence
from ddoq.students import create_student
from ddoq.table import Evaluation as Evaluation
from ddoq.table import Row as Row
from ddoq.train import Recipe, fit
from ddoq.training_log import logged_accuracy
from ddoq.training_set import HeldOut, TrainingSet, matched_labels, open_test

RANDOM, FULL, ANY = "random subset", "full data", "any"
ORDER = ("given", "nearest", "decode", "diffuse")  # of the rows; "given": a folder that ddoq.weigh gave weights


def evaluate(
    run: str | PathLike[str] | Mapping[str, DistilledDataset],
    test: Any,
    *,
    data: Any = None,
    full_data: bool = False,
    students: Sequence[str] = ("convnet3",),
    weightings: Sequence[Weighting] = ("uniform", "density"),
    seeds: int = 3,
    epochs: int = 300,
    batch_size: int = 256,
    lr: float = 0.01,
    class_names: Sequence[str] | None = None,
    logs: Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Evaluation:
    """Train students on distilled sets and tabulate their accuracies on a test set: last epoch, mean, deviation, n.

    The defaults are protocol "dc" (see `ddoq.train`); every row names its protocol. Called again, it reads the
    trainings that are done.

    Parameters
    ----------
    run
        A run folder, of which the images and every control are rows; or distilled sets by name.
    test
        A test set: anything `ddoq.open_data` takes. Its classes are matched by name.
    data
        The full data set. Given: a row of random subsets with as many images per class, drawn anew for each seed,
        weights uniform.
    full_data
        Also a row of all images of `data`, with the same number of epochs: slow.
    students
        "convnet3" or names of timm models.
    weightings
        "uniform", "density", "sqrt", "reencoded": a row each. Where they give the same weights, one row, called "any".
    seeds
        Trainings per row, with seeds 0, 1, ...
    epochs
        Passes over a set.
    batch_size
        Images per step.
    lr
        Learning rate of SGD; a tenth of it in the second half.
    class_names
        Names of the classes of (array, labels) pairs in `test` and `data`, by label.
    logs
        Folder for one log per training; default: `train/` in the run folder, none for sets given by name.
    device
        "auto" (a CUDA GPU if there is one), "cpu", "cuda", or a GPU by number such as "cuda:1".
    progress
        Show progress bars on stderr.

    Returns
    -------
    Evaluation
        `print` shows the table, `save(path)` writes it as JSON.

    Raises
    ------
    ValueError
        Classes of which one set lacks one, by name; an unknown student, weighting or device; no image to draw.
    ddoq.run.RunError
        A damaged or unfinished run.

    Examples
    --------
    >>> print(ddoq.evaluate("runs/mnist", (test_images, test_labels), data=(images, labels)))   # doctest: +SKIP
    set            weights  student   images  accuracy %    n  protocol
    -------------  -------  --------  ------  ------------  -  --------
    random subset  uniform  convnet3     100  93.80 ± 0.53  3  dc
    decode         uniform  convnet3     100  95.61 ± 0.20  3  dc
    decode         density  convnet3     100  95.60 ± 0.17  3  dc
    """
    if isinstance(students, str) or isinstance(weightings, str):
        raise TypeError("students and weightings are sequences of names, such as ('convnet3',)")
    if seeds < 1 or not students or not weightings:
        raise ValueError(f"nothing to train: seeds={seeds}, students={students}, weightings={weightings}")
    if full_data and data is None:
        raise ValueError("full_data=True needs data, the full data set")
    place = torch_device(device)
    sets = dict(run) if isinstance(run, Mapping) else _sets(run)
    if logs is None and not isinstance(run, Mapping):
        logs = Path(run) / (".train" if "given" in sets else "train")  # beside class folders, none of them
    first = _alike(sets)
    for student in students:  # a wrong name is found now, not after hours
        with torch.random.fork_rng([]):
            create_student(student, n_classes=len(first.class_names), channels=first.channels, image_size=first.size)
    tested = open_test(test, first, class_names)
    plan = [*_full_sets(sets, first, data, full_data, class_names), *_weighted_sets(sets, weightings)]
    rows = []
    with tqdm(total=len(students) * len(plan) * seeds, desc="evaluate", unit="training", disable=not progress) as bar:
        for student in students:
            for entry in plan:
                bar.set_postfix_str(f"{entry.name}, {entry.weighting}, {student}")
                accuracies = []
                for seed in range(seeds):
                    recipe = Recipe(student, seed, epochs, batch_size, lr)
                    log = None if logs is None else Path(logs) / _log_name(entry, student, seed)
                    accuracies.append(_accuracy(recipe, entry.draw(seed), tested, place, log, progress))
                    bar.update()
                rows.append(Row(entry.name, entry.weighting, student, recipe.protocol, entry.images, tuple(accuracies)))
    same = [entry.name for entry in plan if entry.weighting == ANY]
    notes = [f"{name}: preset {preset}" for name, preset in _presets(sets).items()]
    if same:
        notes.append(f"any: {', '.join(same)} have the same weights under {', '.join(weightings)}; trained once")
    return Evaluation(tuple(rows), len(tested.images), tuple(notes))


@dataclass(frozen=True)
class _Entry:
    """A row to be trained: the set that each seed trains on, and how many images it has."""

    name: str
    weighting: str
    images: int
    draw: Callable[[int], TrainingSet]


def _sets(run: str | PathLike[str]) -> dict[str, DistilledDataset]:
    """Every synthesis of a run by name, in the table's order: real images, decoded, diffused."""
    manifest = Run.open(run).manifest
    made = [stage.partition(":")[2] for stage in manifest["stages"] if stage.startswith("synthesize:")]
    names = {*made, manifest["config"]["synthesis"]}
    return {name: load(run, synthesis=name) for name in sorted(names, key=lambda name: (ORDER.index(name), name))}


def _presets(sets: Mapping[str, DistilledDataset]) -> dict[str, str]:
    """The preset that each set was made with, where it was."""
    made = {name: dataset.manifest.get("config", {}).get("preset") for name, dataset in sets.items()}
    return {name: preset for name, preset in made.items() if preset}


def _alike(sets: Mapping[str, DistilledDataset]) -> TrainingSet:
    """The first of the sets; ValueError where another has other classes or another shape of images."""
    if not sets:
        raise ValueError("there is no set to evaluate")
    (first_name, first), *others = sets.items()
    for name, other in others:
        if other.class_names != first.class_names or other.images.shape[1:] != first.images.shape[1:]:
            raise ValueError(f"{name!r} has other classes or images than {first_name!r}: evaluate them apart")
    return TrainingSet.of(first)


def _weighted_sets(sets: Mapping[str, DistilledDataset], weightings: Sequence[Weighting]) -> Iterator[_Entry]:
    """Every set with every weighting, or once as ANY where all weightings give the same numbers."""
    for name, dataset in sets.items():
        weighted = [TrainingSet.of(dataset.reweighted(weighting)) for weighting in weightings]
        if len(weighted) > 1 and all(
            torch.allclose(weighted[0].weights, other.weights, rtol=1e-6) for other in weighted
        ):
            yield _Entry(name, ANY, len(dataset), _always(weighted[0]))
        else:
            for weighting, training in zip(weightings, weighted, strict=True):
                yield _Entry(name, weighting, len(dataset), _always(training))


def _full_sets(
    sets: Mapping[str, DistilledDataset],
    first: TrainingSet,
    data: Any,
    full_data: bool,
    class_names: Sequence[str] | None,
) -> Iterator[_Entry]:
    """The rows of the full data set: a random subset as large as the first set, fresh for each seed; all of it."""
    if data is None:
        return
    opened = open_data(data, image_size=first.size, channels=first.channels, class_names=class_names)
    labels = matched_labels(torch.as_tensor(opened.labels), opened.class_names, first.class_names, "full data set")
    evenly = TrainingSet.of(next(iter(sets.values())).reweighted("uniform"))
    members = [torch.nonzero(labels == c)[:, 0].numpy() for c in range(len(first.class_names))]
    for name, there, drawn in zip(first.class_names, map(len, members), first.labels.bincount().tolist(), strict=True):
        if there < drawn:
            raise ValueError(f"class {name!r} of the full data set has {there} images, too few to draw {drawn}")

    def draw(seed: int) -> TrainingSet:
        chosen = torch.empty(len(first.labels), dtype=torch.int64)
        for c, indices in enumerate(members):
            places = first.labels == c
            stream = np.random.default_rng(seed_sequence(seed, "random subset", c))
            chosen[places] = torch.from_numpy(stream.choice(indices, int(places.sum()), replace=False))
        return replace(evenly, images=torch.as_tensor(opened.images(chosen.numpy())))

    yield _Entry(RANDOM, "uniform", len(first.images), draw)
    if full_data:
        images = torch.as_tensor(opened.images(range(len(opened))))
        everything = replace(first, images=images, labels=labels, weights=torch.ones(len(images)))
        yield _Entry(FULL, "uniform", len(images), _always(everything))


def _always(training: TrainingSet) -> Callable[[int], TrainingSet]:
    return lambda seed: training


def _accuracy(
    recipe: Recipe, data: TrainingSet, test: HeldOut, place: torch.device, log: Path | None, progress: bool
) -> float:
    """Accuracy of one training, read from its log if that is whole and of the same settings."""
    logged = None if log is None else logged_accuracy(log, recipe.settings(data, test, place))
    if logged is not None:
        return logged
    accuracy = fit(recipe, data, test, place=place, log=log, progress=progress).accuracy
    assert accuracy is not None
    return accuracy


def _log_name(entry: _Entry, student: str, seed: int) -> str:
    name, weighting, model = (re.sub(r"[^\w.]+", "_", part) for part in (entry.name, entry.weighting, student))
    return f"{name}-{weighting}-{model}-seed{seed}.jsonl"
