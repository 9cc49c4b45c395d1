"""Defines a recipe, every value of a student's training and test; protocols.py has the published ones."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch

from ddoq.machine.arguments import positive
from ddoq.machine.device import TrainingPrecision
from ddoq.machine.environment import conditions
from ddoq.machine.streams import seed_sequence
from ddoq.storage.values import plain
from ddoq.training.training_set import HeldOut, TrainingSet

Operation = Literal["shuffle", "crop", "flip", "jitter", "lighting", "dsa"]  # in the order in which they are applied
Optimizer = Literal["sgd", "adam", "adamw"]
Schedule = Literal["half", "cosine", "smoothed", "steps"]
Mix = Literal["none", "cutmix", "mixup"]
MixWeights = Literal["mixed", "base"]

CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("sgd", "adam", "adamw"),
    "schedule": ("half", "cosine", "smoothed", "steps"),
    "mix": ("none", "cutmix", "mixup"),
    "mix_weights": ("mixed", "base"),
    "precision": ("float32", "bfloat16"),
}
OPERATIONS = ("shuffle", "crop", "flip", "jitter", "lighting", "dsa")
DSA = "color_crop_cutout_flip_scale_rotate"
REMARKS = {"rd3": " (from secondary sources)"}  # that a protocol's name never goes without
SILENT = ("student", "seed", "view_seed", "name", "published")  # fields that are no part of a protocol
GIVEN = (*SILENT, "labels")  # fields that are no settings: what a training is given decides them
ELSEWHERE = "another machine, version or number of threads changes last bits, and so the accuracy a little"


@dataclass(frozen=True)
class Recipe:
    """How a student is trained; the defaults are protocol "dc". `recipe_for` makes those of the other protocols.

    `momentum` is SGD's, and Adam's first beta. `decay_1d`: weight decay on biases and scales too. `schedule` "half": a
    tenth from half way; "cosine": to 0; "smoothed": the first half of that cosine; "steps": a fifth from 2/3, and again
    from 5/6. `accumulate`: parts in which the images of a step go through the student. `crop_scale`: least share of the
    area. `patches`: along a side, for "shuffle". `mix_weights` "mixed": an image's weight and its partner's, by their
    shares of the pixels; "base": the image's. With shares s uniform in [0, 1] an image keeps 2/3 of its weight on its
    own pixels and label under "mixed", E[s^2 + (1 - s)^2], and 1/2 under "base", E[s]; the rest falls to its partners.
    `label_epochs`: so many epochs of views, used again and again; None: all are new. `test_crop`: test images are the
    centres of images 8/7 as large. `check_from`: share of the epochs after which the student is tested every tenth
    epoch, beside the last. `view_seed`: of the views; None: `seed`.
    """

    student: str = "convnet3"
    seed: int = 0
    epochs: int = 300
    batch_size: int = 256
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_1d: bool = True
    optimizer: Optimizer = "sgd"
    schedule: Schedule = "half"
    accumulate: int = 1
    augment: tuple[Operation, ...] = ()
    crop_scale: float = 0.08
    patches: int = 1
    dsa: str = DSA
    mix: Mix = "none"
    mix_alpha: float = 1.0
    mix_probability: float = 1.0
    mix_weights: MixWeights = "mixed"
    labels: Literal["hard", "soft"] = "hard"
    temperature: float = 1.0
    label_epochs: int | None = None
    test_crop: bool = False
    check_from: float = 1.0
    precision: TrainingPrecision = "float32"
    channels_last: bool = False
    view_seed: int | None = None
    name: str = "dc"
    published: Recipe | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "patches", "label_epochs"):
            value = getattr(self, name)
            if value is not None:
                positive(name, value)
        for name in ("lr", "momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        for name in ("mix_alpha", "temperature", "crop_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("crop_scale", "mix_probability", "check_from"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {getattr(self, name)!r}")
        for name, operations, named in (
            ("augment", self.augment, OPERATIONS),
            ("dsa", self.dsa.split("_"), DSA.split("_")),
        ):
            if (
                isinstance(operations, str)
                or not set(operations) <= set(named)
                or len(set(operations)) < len(operations)
            ):
                raise ValueError(f"{name} may name, each once, {', '.join(named)}; got {getattr(self, name)!r}")

    @property
    def protocol(self) -> str:
        """The protocol's name, with every setting that differs from it."""
        base = self.published or Recipe()
        names = [f.name for f in fields(self) if f.name not in SILENT]
        changed = [
            f"{name}={_text(getattr(self, name))}" for name in names if getattr(self, name) != getattr(base, name)
        ]
        return ", ".join([self.name + REMARKS.get(self.name, ""), *changed])

    @property
    def still(self) -> bool:
        """Whether every epoch sees the images as they are."""
        return not self.augment and self.mix == "none"

    @property
    def views(self) -> dict[str, Any]:
        """All that decides the views of a set of images, the epoch's number apart."""
        names = ("augment", "crop_scale", "patches", "dsa", "mix", "mix_alpha", "mix_probability")
        seed = self.seed if self.view_seed is None else self.view_seed
        return {**{name: getattr(self, name) for name in names}, "seed": seed} if not self.still else {}

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0.

        >>> [round(Recipe(epochs=4, lr=1.0, schedule=s).lr_at(3), 3) for s in ("half", "cosine", "smoothed", "steps")]
        [0.1, 0.146, 0.691, 0.04]
        """
        if self.schedule == "half":
            return self.lr / 10 if epoch >= (self.epochs + 1) // 2 else self.lr
        if self.schedule == "steps":
            passed = (epoch >= 2 * self.epochs // 3) + (epoch >= 5 * self.epochs // 6)
            return self.lr * 0.2**passed
        return self.lr * (1 + math.cos(math.pi * epoch / (self.epochs * (2 if self.schedule == "smoothed" else 1)))) / 2

    def view_epoch(self, epoch: int) -> int:
        """The epoch whose views an epoch sees: itself, or one of the first `label_epochs`, each once in every round."""
        if self.still:
            return 0
        if self.label_epochs is None or epoch < self.label_epochs:
            return epoch
        stream = seed_sequence(self.views["seed"], "label epochs", epoch // self.label_epochs)
        return int(np.random.default_rng(stream).permutation(self.label_epochs)[epoch % self.label_epochs])

    def tests_after(self, epoch: int) -> bool:
        """Whether the student is tested after an epoch, counted from 0; it always is after the last."""
        return epoch == self.epochs - 1 or (epoch % 10 == 9 and epoch > self.check_from * self.epochs)

    def test_side(self, side: int) -> int:
        """Side in pixels at which test images are opened; their centre of `side` pixels is looked at.

        >>> Recipe(test_crop=True).test_side(224), Recipe(test_crop=True).test_side(32), Recipe().test_side(64)
        (256, 32, 64)
        """
        return side // 7 * 8 if self.test_crop else side

    def settings(
        self, data: TrainingSet, test: HeldOut | None, device: torch.device, targets: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """All that decides the result, for the first line of a log; `targets` are the facts of soft labels."""
        settings = {
            "protocol": self.protocol,
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "published")},
            "soft_labels": None if targets is None else dict(targets),
            "class_names": list(data.class_names),
            "training_images": len(data.images),
            "training_set": data.fingerprint,
            "test_images": None if test is None else len(test.images),
            "test_set": None if test is None else test.fingerprint,
            **conditions(device),
            "elsewhere": ELSEWHERE,
        }
        return {name: plain(value) for name, value in settings.items()}


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Settings written NAME=VALUE, as values of `Recipe`'s fields; operations of `augment` are joined by +.

    Examples
    --------
    >>> read_settings(["temperature=4", "augment=crop+flip", "test_crop=false", "mix=none"])
    {'temperature': 4.0, 'augment': ('crop', 'flip'), 'test_crop': False, 'mix': 'none'}
    """
    values: dict[str, Any] = {}
    kinds = {f.name: str(f.type) for f in fields(Recipe) if f.name not in GIVEN}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"setting {text!r} is not NAME=VALUE, such as temperature=4")
        if name not in kinds:
            raise ValueError(unknown_setting(name))
        kind = kinds[name]
        try:
            if kind.startswith("tuple"):
                values[name] = tuple(part for part in value.split("+") if part not in ("", "none"))
            elif kind == "bool":
                values[name] = {"true": True, "false": False}[value.lower()]
            else:
                values[name] = {"int": int, "float": float}.get(kind.partition(" ")[0], str)(value)
        except (KeyError, ValueError):
            raise ValueError(f"setting {name} must be {kind}, got {value!r}") from None
    return values


def unknown_setting(name: str) -> str:
    """What to say of a name that no setting has.

    >>> unknown_setting("temprature").partition("?")[0]
    "'temprature' is no setting of a protocol; did you mean 'temperature'"
    """
    names = [f.name for f in fields(Recipe) if f.name not in GIVEN]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{name!r} is no setting of a protocol; {hint}There are {', '.join(names)}"


def _text(value: Any) -> str:
    return "+".join(value) or "none" if isinstance(value, tuple) else str(value)
