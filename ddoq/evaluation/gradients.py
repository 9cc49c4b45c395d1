"""Measures how far gradients on a distilled set are from those on the full data, along a student's training.

    error = |g_full - g_set| / |g_full|,     g = sum_i w_i grad loss_i / sum_i w_i

with weights on and off for one student at one moment, so that the two are paired: this is what optimal quantisation
promises ("gradient steps are automatically similar"), without the noise of a whole training. 0 is the full gradient, 1
as bad as no step at all. Hard labels, images as they are, the student in evaluation mode.

The student is trained on the set with the set's own weights by SGD: momentum 0.9, decay 5e-4, a tenth of the rate from
half way (protocol "dc" of `ddoq.train`, cut to a few epochs).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ddoq.data.classes import matched_labels
from ddoq.data.distilled import DistilledDataset, load
from ddoq.data.image_data import ImageData, open_data
from ddoq.data.weights import Weighting
from ddoq.evaluation.logs import log_folder
from ddoq.machine.device import deterministic, torch_device
from ddoq.machine.environment import conditions
from ddoq.machine.streams import seed_sequence, seeded
from ddoq.storage.files import write_atomic
from ddoq.storage.manifest import main_set, row_name
from ddoq.storage.values import plain
from ddoq.training.loop import StudentSteps, block
from ddoq.training.protocols import recipe_for
from ddoq.training.students import create_student
from ddoq.training.training_set import Normalise, TrainingSet


@dataclass(frozen=True)
class Agreement:
    """Errors by weighting after the epochs `epochs`, 0 before the first; `str` gives their means.

    >>> print(Agreement((0, 5), {"uniform": (0.5, 0.7), "density": (0.4, 0.6)}))
    gradient error over epochs 0 to 5: uniform 0.600, density 0.500
    """

    epochs: tuple[int, ...]
    errors: Mapping[str, tuple[float, ...]]

    def __str__(self) -> str:
        means = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in self.errors.items())
        return f"gradient error over epochs {self.epochs[0]} to {self.epochs[-1]}: {means}"


def gradient_agreement(
    run: str | PathLike[str] | DistilledDataset,
    data: Any,
    *,
    student: str = "convnet3",
    weightings: Sequence[Weighting] = ("uniform", "density"),
    epochs: int = 30,
    every: int = 3,
    batch_size: int = 10,
    lr: float = 0.01,
    images_per_class: int = 256,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    log: Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Agreement:
    """Train a student on a distilled set and measure, every few epochs, how far the set's gradient is from the data's.

    Parameters
    ----------
    run
        A run folder, or what `ddoq.load` returns.
    data
        The full data set: anything `ddoq.open_data` takes. Its classes are matched by name, and count as much as in the
        set (with "balanced" weights all alike).
    student
        "convnet3" or a name of a timm model.
    weightings
        The weights under which the set's gradient is taken; those that its images cannot have are left out.
    epochs, every
        Passes over the set, and how many between two measurements.
    batch_size, lr
        Images per step; learning rate.
    images_per_class
        Images of the full data that stand for it, drawn once from each class; all of a smaller one.
    seed
        Of the student, the order of the images and the draw.
    class_names
        Names of the classes of an (array, labels) pair in `data`, by label.
    log
        A file for the settings and a line per measurement; one that is there with the same settings is read instead.
        Default: train/agreement-<set>-<images>-<student>-seed<k>.jsonl in the run folder, where `ddoq.report`
        finds it.
    device
        "auto" (a CUDA GPU if there is one), "cpu", "cuda", or a GPU by number such as "cuda:1".
    progress
        Show a progress bar on stderr.

    Returns
    -------
    Agreement

    Raises
    ------
    ValueError
        Classes of which one lacks one, by name; an unknown student, weighting or device; nothing to measure.

    Examples
    --------
    >>> from ddoq.evaluation.gradients import gradient_agreement
    >>> print(gradient_agreement("runs/mnist", (images, labels)))   # doctest: +SKIP
    """
    if epochs < 1 or every < 1 or images_per_class < 1 or not weightings or isinstance(weightings, str):
        raise ValueError("epochs, every and images_per_class must be at least 1, weightings a sequence of names")
    on_device = torch_device(device)
    dataset = run if isinstance(run, DistilledDataset) else load(run)
    if log is None and not isinstance(run, DistilledDataset):
        name = row_name(dataset.manifest, main_set(dataset.manifest))
        name = log_name(name, len(dataset), student, seed)
        log = log_folder(Path(run)) / name
    training_set = TrainingSet.of(dataset)
    weightings = dataset.offered(weightings) or ["uniform"]
    weights: dict[str, Tensor] = {name: dataset.reweighted(name).weights.float() for name in weightings}
    full = _full(
        open_data(data, image_size=training_set.size, channels=training_set.channels, class_names=class_names),
        training_set,
        images_per_class,
        seed,
    )
    settings = plain(
        {
            "student": student,
            "seed": seed,
            **{"epochs": epochs, "every": every, "batch_size": batch_size, "lr": lr, "weightings": list(weightings)},
            "training_set": training_set.fingerprint,
            "full_data": full.fingerprint,
            **conditions(on_device),
        }
    )
    logged = None if log is None else _read(Path(log), settings)
    if logged is not None:
        return logged
    init, order = (int(state) for state in seed_sequence(seed, "train").generate_state(2))
    bar = tqdm(total=epochs, desc="gradients", disable=not progress)
    with bar, deterministic(on_device), seeded(init, on_device):
        model = create_student(
            student,
            n_classes=len(training_set.class_names),
            channels=training_set.channels,
            image_size=training_set.size,
        )
        model.to(on_device)
        measured = {0: gradient_error(model, training_set, full, weights)}

        def measure(epoch: int) -> None:
            bar.update()
            if epoch % every == 0 or epoch == epochs:
                measured[epoch] = gradient_error(model, training_set, full, weights)

        changes = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
        recipe = recipe_for("dc", student, training_set, seed, changes)
        StudentSteps(model, recipe, training_set, order, on_device).run(after_epoch=measure, progress=False)
    agreement = Agreement(
        tuple(measured), {name: tuple(errors[name] for errors in measured.values()) for name in weights}
    )
    if log is not None:
        lines = [{"settings": settings}, *({"epoch": epoch, **errors} for epoch, errors in measured.items())]
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(log), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    return agreement


def log_name(name: str, images: int, student: str, seed: int) -> str:
    """The file of a set's log.

    >>> log_name("decode", 100, "convnet3", 0)
    'agreement-decode-100-convnet3-seed0.jsonl'
    """
    parts = [re.sub(r"[^\w.]+", "_", part) for part in (name, str(images), student)]
    return "-".join(["agreement", *parts, f"seed{seed}.jsonl"])


def gradient_error(
    model: nn.Module, data: TrainingSet, full: TrainingSet, weights: Mapping[str, Tensor]
) -> dict[str, float]:
    """The error of a set's gradient under each of several weights, for a model as it is.

    Examples
    --------
    >>> images = torch.arange(32, dtype=torch.uint8).reshape(2, 1, 4, 4)
    >>> data = TrainingSet(images, torch.tensor([0, 1]), torch.ones(2), ("a", "b"), torch.zeros(1), torch.ones(1))
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> gradient_error(model, data, data, {"uniform": torch.ones(2)})
    {'uniform': 0.0}
    """
    mode = model.training
    model.eval()
    target = _gradient(model, full, full.weights)
    norm = max(float(target.norm()), 1e-300)
    errors = {
        name: float((target - _gradient(model, data, weights_of_set)).norm()) / norm
        for name, weights_of_set in weights.items()
    }
    model.train(mode)
    return errors


def _gradient(model: nn.Module, data: TrainingSet, weights: Tensor) -> Tensor:
    """Gradient of the weighted mean loss by all parameters, float64."""
    device = next(model.parameters()).device
    normalise = Normalise(data.mean, data.std, device)
    model.zero_grad()
    parts = (torch.split(t, block(data.images)) for t in (data.images, data.labels, weights))
    for images, labels, weights_of_part in zip(*parts, strict=True):
        losses = nn.functional.cross_entropy(model(normalise(images.to(device))), labels.to(device), reduction="none")
        torch.autograd.backward((losses * weights_of_part.to(device)).sum())
    gradient = torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return gradient / weights.double().sum().to(device)


def _full(opened: ImageData, like: TrainingSet, count: int, seed: int) -> TrainingSet:
    """Images drawn from each class of the full data, weighted so that a class counts as much as in the set."""
    image_weights, renaming = torch.as_tensor(opened.labels), opened.source.renaming
    labels = matched_labels(image_weights, opened.class_names, like.class_names, "full data set", renaming).numpy()
    rows, weights = [], []
    for c in range(len(like.class_names)):
        there = np.flatnonzero(labels == c)
        if len(there) > count:
            stream = np.random.default_rng(seed_sequence(seed, "gradient agreement", c))
            there = np.sort(stream.choice(there, count, replace=False))
        rows.append(there)
        weights.append(np.full(len(there), float(like.weights[like.labels == c].sum()) / len(there)))
    indices = np.concatenate(rows)
    images = torch.as_tensor(opened.images(indices))
    image_weights = torch.as_tensor(np.concatenate(weights), dtype=torch.float32)
    return TrainingSet(images, torch.as_tensor(labels[indices]), image_weights, like.class_names, like.mean, like.std)


def _read(path: Path, settings: Any) -> Agreement | None:
    """What a log says that was written with these settings; None where there is none, or a damaged one."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        first, *lines = (json.loads(line) for line in path.read_bytes().splitlines())
        if first["settings"] == settings:
            return agreement_of(lines)
    return None


def agreement_of(lines: Sequence[Mapping[str, Any]]) -> Agreement:
    """The measurements of a log's lines; KeyError, TypeError or ValueError where they are others."""
    names = [name for name in lines[0] if name != "epoch"]
    errors = {name: tuple(float(line[name]) for line in lines) for name in names}
    return Agreement(tuple(int(line["epoch"]) for line in lines), errors)
