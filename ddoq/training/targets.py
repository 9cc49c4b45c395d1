"""Gives a training its soft labels: from a teacher as it goes, or from a folder that `ddoq.label` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ddoq.storage.files import RunError
from ddoq.storage.tensors import read_tensors
from ddoq.storage.values import digest, plain
from ddoq.training.protocols import ONLY_HARD
from ddoq.training.recipe import Recipe
from ddoq.training.teacher import Teacher, open_teacher
from ddoq.training.training_set import TrainingSet
from ddoq.training.views import View

ABOUT = "labels.json"  # what the labels in a folder are labels of
SoftTarget = Tensor | tuple[Tensor, Tensor]


class Targets(Protocol):
    """Soft labels of views: `kind` for `ddoq.WeightedLoss`, `facts` for the log."""

    kind: Literal["logits", "topk"]
    facts: dict[str, Any]

    def __call__(self, view: View) -> SoftTarget:
        """The targets of a view's images."""
        ...


class Online:
    """The teacher's logits of each view as it comes; those of images that never change, once."""

    kind: Literal["logits", "topk"] = "logits"

    def __init__(self, teacher: Teacher, recipe: Recipe, images: Tensor, device: torch.device) -> None:
        self.teacher = teacher
        self.facts: dict[str, Any] = {"made": "online", "teacher": teacher.name}
        self.still, self.images, self.device = recipe.still, images, device

    @cached_property
    def whole(self) -> Tensor:
        """Logits (n, C) of the images as they are."""
        return self.teacher(self.images.to(self.device))

    def __call__(self, view: View) -> SoftTarget:
        """Logits (b, C)."""
        return self.whole[view.index] if self.still else self.teacher(view.images)


class Stored:
    """Labels of a folder that `label` wrote."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.about = read_about(folder)
        self.kind: Literal["logits", "topk"] = "topk" if self.about["store"] == "topk" else "logits"
        self.made_from = made_from(self.about)
        # how many epochs are there is no fact of a training: its recipe says how many it takes, if it takes them again
        self.facts: dict[str, Any] = {"made": "stored", **_content(self.about)}
        self.loaded: tuple[int, dict[str, Tensor]] | None = None

    def __call__(self, view: View) -> SoftTarget:
        """Logits (b, C), or the largest probabilities and their classes (b, k)."""
        if self.loaded is None or self.loaded[0] != view.epoch:
            path, stored = epoch_file(self.folder, view.epoch), None
            with suppress(RunError):  # a damaged file is none: ddoq label makes both again
                stored = read_tensors(path, self.made_from)
            if stored is None:
                how = "is damaged" if path.exists() else "is missing"
                raise RunError(f"{path} {how}: run ddoq label again, which makes what is not there")
            self.loaded = view.epoch, {name: tensor.to(self.device) for name, tensor in stored[0].items()}
        tensors = self.loaded[1]
        if self.kind == "logits":
            return tensors["logits"][view.index].float()
        return tensors["probabilities"][view.index].float(), tensors["indices"][view.index].long()


def open_targets(
    teacher: Any, labels: str | PathLike[str] | None, data: TrainingSet, recipe: Recipe, device: torch.device
) -> tuple[Targets | None, Recipe]:
    """The soft labels that a training asks for, and its recipe with the views that they are of; None: hard labels.

    ValueError where the protocol takes other labels, or those in the folder are of other images or views.
    """
    if teacher is not None and labels is not None:
        raise ValueError("give teacher, for labels online, or labels, which are stored: not both")
    soft = teacher is not None or labels is not None
    if recipe.labels == "soft" and not soft:
        raise ValueError(f"protocol {recipe.name!r} trains on soft labels: give teacher or labels")
    if recipe.name in ONLY_HARD and soft:
        raise ValueError(f"protocol {recipe.name!r} trains on hard labels: leave out teacher and labels")
    recipe = replace(recipe, labels="soft" if soft else "hard")
    if labels is None:
        online = Online(open_teacher(teacher, data, device), recipe, data.images, device) if soft else None
        return online, recipe
    stored = Stored(Path(labels), device)
    seen = on_views_of(stored.about, recipe)
    wanted = plain(source(seen, data, stored.about["store"]))
    if stored.about["class_names"] != list(data.class_names):
        raise ValueError(f"the labels in {labels} are of other classes: {stored.about['class_names']!r:.200}")
    other = [name for name, value in wanted.items() if stored.about.get(name) != value]
    if other:
        raise ValueError(f"the labels in {labels} are of {differences(stored.about, wanted, other)}")
    return stored, seen


def on_views_of(about: Mapping[str, Any], recipe: Recipe) -> Recipe:
    """A recipe with the views, and no more epochs of them, than stored labels are of."""
    seen = replace(recipe, view_seed=about["views"].get("seed"))
    count = about["epochs"]
    if recipe.still or count >= recipe.epochs:
        return seen
    return replace(seen, label_epochs=count if recipe.label_epochs is None else min(count, recipe.label_epochs))


class Folders:
    """Folders of `ddoq.label` for several sets, alike in all but the images that they are of; none at all is fine.

    Attributes
    ----------
    of
        The folders by the hash of their images (`TrainingSet.images_fingerprint`).
    about
        What they share, as in labels.json; empty without any.
    """

    def __init__(self, labels: str | PathLike[str] | Sequence[str | PathLike[str]] | None) -> None:
        folders = [labels] if isinstance(labels, str | PathLike) else list(labels or ())
        self.of: dict[str, Path] = {}
        self.about: dict[str, Any] = {}
        for folder in map(Path, folders):
            about = read_about(folder)
            if (first := self.of.setdefault(about["images"], folder)) != folder:
                raise ValueError(f"the labels in {first} and in {folder} are of the same images: give one of them")
            self.about = self.about or about
            other = [name for name in self.about if name != "images" and about.get(name) != self.about[name]]
            if other:
                said = differences(about, self.about, other)
                raise ValueError(
                    f"the labels in {folder} are of {said}, here being {folders[0]}: give labels made alike"
                )


def source(recipe: Recipe, data: TrainingSet, store: str) -> dict[str, Any]:
    """What labels are labels of."""
    moments = [data.mean.tolist(), data.std.tolist()] if "dsa" in recipe.augment else None
    return {
        "images": data.images_fingerprint,
        "views": recipe.views,
        "mean and deviation": moments,
        "temperature": recipe.temperature if store == "topk" else None,
    }


def differences(there: Mapping[str, Any], here: Mapping[str, Any], names: Sequence[str]) -> str:
    """What labels in a folder are of, against what is wanted, in some of the names of `source`; hashes go unsaid.

    >>> views = {"augment": ["flip"], "mix": "cutmix"}
    >>> differences({"views": views}, {"views": {**views, "mix": "mixup"}}, ["views"])
    "other views (mix 'cutmix' there, 'mixup' here)"
    >>> differences({"images": "5f2a", "views": {}}, {"images": "03b9", "views": views}, ["images", "views"])
    'other images, other views (images as they are there, changed ones here)'
    """
    said = []
    for name in names:
        old, new = there.get(name), here.get(name)
        if name == "images":
            said.append("other images")
            continue
        if name == "views" and old and new:
            keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            text = ", ".join(f"{key} {old.get(key)!r} there, {new.get(key)!r} here" for key in keys)
        elif name == "views":
            text = " there, ".join("changed ones" if value else "images as they are" for value in (old, new)) + " here"
        else:
            text = f"{old!r:.200} there, {new!r:.200} here"
        said.append(f"other {name} ({text})")
    return ", ".join(said)


def made_from(about: Mapping[str, Any]) -> str:
    """Hash of all that a stored epoch depends on: not of how many there are."""
    return digest(_content(about))


def _content(about: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in about.items() if name != "epochs"}


def read_about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        kinds = {"views": dict, "images": str, "store": str, "epochs": int, "class_names": list}
        if not isinstance(about, dict) or not all(isinstance(about.get(name), kind) for name, kind in kinds.items()):
            raise ValueError("other content")
    except FileNotFoundError:
        raise RunError(f"{folder} has no {ABOUT}: make the labels with ddoq label") from None
    except ValueError as error:
        raise RunError(f"{folder / ABOUT} is damaged ({error}): choose another folder") from None
    return about


def epoch_file(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:05d}.safetensors"
