"""Protocols give by name every value of how a student is trained and tested; docs/protocols.md has them as a table.

Accuracies of different protocols do not compare. Everywhere ddoq differs from the published code in this: views (crop,
flip, partner, share) are drawn for each image of each epoch, from the whole set, not for a batch; images are normalised
by the full set's own mean and deviation; the accuracy is the last epoch's, and the best on the way stands beside it.
Students that timm builds are timm's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch

from ddoq.training.recipe import GIVEN, Recipe, unknown_setting
from ddoq.training.training_set import TrainingSet

ProtocolName = Literal["dc", "dsa", "d4m", "rded", "rd3", "hard", "teacher"]


def recipe_for(
    protocol: str, student: str, data: TrainingSet, seed: int = 0, changes: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe of a protocol for a student and a set of images.

    Parameters
    ----------
    protocol
        One of PROTOCOLS.
    changes
        Values of the recipe's fields that are to differ from the protocol's; None means the protocol's.

    Raises
    ------
    ValueError
        An unknown protocol; "rded" with other than 1, 10 or 50 images of every class; a value out of range.

    Examples
    --------
    >>> images, labels = torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20) % 2
    >>> data = TrainingSet(images, labels, torch.ones(20), ("a", "b"), torch.zeros(1), torch.ones(1))
    >>> recipe_for("rded", "resnet18", data, changes={"epochs": 30, "lr": None}).protocol
    'rded, epochs=30'
    """
    if protocol not in _VALUES:
        raise ValueError(f"protocol {protocol!r} is not known: use one of {', '.join(PROTOCOLS)}")
    counts = torch.bincount(data.labels, minlength=len(data.class_names))
    values = _VALUES[protocol](_Setting(student, len(data.images), counts.tolist(), data.size))
    base = Recipe(student, seed, name=protocol, **values)
    values_given = {name: value for name, value in (changes or {}).items() if value is not None}
    unknown = set(values_given) - {f.name for f in fields(Recipe) if f.name not in GIVEN}
    if unknown:
        raise ValueError(unknown_setting(min(unknown)))
    return replace(base, **values_given, published=base)


def changes_of(settings: Mapping[str, Any] | None, **given: Any) -> dict[str, Any]:
    """Settings with those that have parameters of their own, where these are given.

    ValueError for one that is given as both, since one of them would be lost.

    >>> changes_of({"temperature": 4}, epochs=30, lr=None)
    {'temperature': 4, 'epochs': 30}
    """
    changes = dict(settings or {})
    for name, value in given.items():
        if value is not None and name in changes:
            raise ValueError(f"{name} is given twice, as {value!r} and in settings as {changes[name]!r}: give it once")
        if value is not None:
            changes[name] = value
    return changes


@dataclass(frozen=True)
class _Setting:
    """The student and the images, on which the values of a protocol depend."""

    student: str
    n: int
    counts: list[int]
    size: int


def _dc(setting: _Setting) -> dict[str, Any]:
    """Give the values of DC, DSA and DM's evaluation without augmentation, which are the defaults of `Recipe`.

    Source: VICO-UoE/DatasetCondensation, evaluate_synset. Labels are hard, or soft at temperature 1, since SGD feels
    the loss's scale. That code runs one epoch more, lowers the rate two epochs later, and forgets the momentum there.
    """
    return {}


def _dsa(setting: _Setting) -> dict[str, Any]:
    """Give the values of "dc" with siamese augmentation, for 1,000 epochs.

    Source: VICO-UoE/DatasetCondensation. The operation is drawn for each image here, there for a batch. For digits
    leave out the flip: dsa="color_crop_cutout_scale_rotate".
    """
    return {"epochs": 1000, "augment": ("dsa",)}


def _teacher(setting: _Setting) -> dict[str, Any]:
    """Give the values of ddoq's own protocol for `ddoq teacher`."""
    sgd = {"lr": 0.05, "batch_size": 128, "epochs": 60, "decay_1d": False, "schedule": "cosine"}
    return {**sgd, "augment": ("crop", "flip"), "crop_scale": 0.35}


_SOFT = {
    "epochs": 300,
    "lr": 0.001,
    "weight_decay": 0.01,
    "decay_1d": False,
    "optimizer": "adamw",
    "augment": ("crop", "flip"),
    "mix": "cutmix",
    "labels": "soft",
    "temperature": 20.0,
    "test_crop": True,
}


def _d4m(setting: _Setting) -> dict[str, Any]:
    """Give the values of D4M, as those of SRe2L before it.

    Source: suduo94/D4M, matching and validate. The KL divergence at temperature 20 is not multiplied by its square. The
    teacher's logits are stored as float16 there (`ddoq.label`); with `teacher=` they come online. Batches are cut to
    the images there are. The loss of an epoch's last, smaller batch is the mean over its images, there the sum of its
    two parts' means over 2.
    """
    return {**_SOFT, "batch_size": min(1024, setting.n), "accumulate": 2, "schedule": "cosine"}


def _patches(setting: _Setting) -> dict[str, Any]:
    """RDED's augmentation: images of 2 x 2 patches from 128 pixels on."""
    factor = 2 if setting.size >= 128 else 1
    return {"augment": ("shuffle", "crop", "flip"), "patches": factor, "crop_scale": 1 / factor}


def _rded(setting: _Setting) -> dict[str, Any]:
    """Give the values of RDED, which are defined for 1, 10 or 50 images of every class.

    Source: LINs-lab/RDED and its scripts. Batches are 10, 50 and 100, twice that for 100 and 1,000 classes and 100 for
    200, never more than the images; rates go by student. It reports the best of the looks at the test set after 80 % of
    the epochs: that is `best` here. It also passes every batch through the student before it is mixed, which moves
    batch statistics and nothing else, and tests on 50 images of each class of ImageNet and its parts: not here.
    """
    classes, ipc = len(setting.counts), setting.counts[0]
    if set(setting.counts) != {ipc} or ipc not in (1, 10, 50):
        sizes = sorted(set(setting.counts))
        there = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"{ipc}"
        raise ValueError(f"protocol 'rded' is defined for 1, 10 or 50 images of every class, this set has {there}")
    batch = {1: 10, 10: 50, 50: 100}[ipc] * (2 if classes in (100, 1000) else 1)
    if classes == 200:  # Tiny-ImageNet
        batch = 100
    rates = {"efficientnet_b0": 0.002, "mobilenetv2": 0.0025, "vit": 1e-4, "swin": 1e-4, "alexnet": 1e-4, "vgg11": 5e-4}
    lr = next((rate for start, rate in rates.items() if setting.student.startswith(start)), 0.001)
    if (classes, setting.size, setting.student) == (100, 32, "convnet3"):
        batch, lr = 25, 0.002
    values = {"batch_size": min(batch, setting.n), "lr": lr, "schedule": "smoothed", "check_from": 0.8}
    return {**_SOFT, **_patches(setting), **values}


def _rd3(setting: _Setting) -> dict[str, Any]:
    """Give the values of RD3's unified protocol, FROM SECONDARY SOURCES, with one ResNet-18 as teacher.

    That the cosine is RDED's, the temperature 20, no weight decay and the test crop is what we suppose.
    """
    adam = {"optimizer": "adam", "weight_decay": 0.0, "epochs": 400, "batch_size": 50, "schedule": "smoothed"}
    return {**_SOFT, **_patches(setting), **adam}


def _hard(setting: _Setting) -> dict[str, Any]:
    """Give the values of Minimax Diffusion's evaluation with hard labels.

    Source: vimar-gu/MinimaxDiffusion, train.py, argument.py, data.py, after IDC. For 100 classes the epochs are two
    thirds, in whole hundreds. Up to 32 pixels the views are siamese without cutout (there without flip for digits:
    dsa="color_crop_scale_rotate"). Its students have instance normalisation (ResNetAP-10, ConvNet-6), and it prints the
    best of 100 looks at the test set first: not here.
    """
    classes, ipc = len(setting.counts), max(setting.counts)
    values: dict[str, Any] = {"batch_size": 64, "schedule": "steps", "mix": "cutmix"}
    if setting.size <= 32:
        dsa = "color_crop_flip_scale_rotate"
        return {**values, "epochs": 1000, "augment": ("dsa",), "dsa": dsa, "mix_probability": 0.5}
    by_ipc = {1: 3000, 10: 2000, 50: 1500, 200: 1000, 500: 500}
    epochs = next((count for most, count in by_ipc.items() if ipc <= most), 300)
    if classes == 100:
        epochs = int(2 / 3 * epochs) // 100 * 100
    if classes > 100:
        values |= {"lr": 0.1, "weight_decay": 1e-4, "batch_size": 128}
    return {**values, "epochs": epochs, "augment": ("crop", "flip", "jitter", "lighting"), "crop_scale": 0.5}


_VALUES: dict[str, Callable[[_Setting], dict[str, Any]]] = {
    "dc": _dc,
    "dsa": _dsa,
    "d4m": _d4m,
    "rded": _rded,
    "rd3": _rd3,
    "hard": _hard,
    "teacher": _teacher,
}
PROTOCOLS = tuple(_VALUES)
# Rates are made for a number of steps, which is that of epochs times that of batches: with a few images the epochs that
# suffice for many are too few, and a student stays near chance. No published protocol makes fewer steps than this, one
# an epoch; those for ImageNet make thousands: with 10 images per class d4m 3,000, rded 30,000, rd3 80,000.
FEWEST_STEPS = 300
ONLY_HARD = ("hard", "teacher")  # protocols that take no soft labels
