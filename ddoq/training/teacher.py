"""Opens teachers, networks whose logits are soft labels: trained here on all images, timm's, or the caller's own."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddoq.data.class_names import label_names
from ddoq.data.classes import columns_of, match_labels
from ddoq.machine.extras import need
from ddoq.training.checkpoint import read_checkpoint
from ddoq.training.students import create_student
from ddoq.training.training_set import Normalise, TrainingSet

BLOCK_PIXELS = 1 << 21  # that go through a teacher at once: 41 images of 224 x 224
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _Member:
    """One network: what makes its input of images, the logits of the data set's classes, and what it is."""

    model: nn.Module
    normalise: Callable[[Tensor], Tensor]
    columns: Tensor | None
    side: int | None
    name: str

    def logits(self, images: Tensor) -> Tensor:
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        if self.side is not None and self.side != scaled.shape[-1]:
            scaled = F.interpolate(scaled, (self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
        logits: Tensor = self.model(self.normalise(scaled)).float()
        return logits if self.columns is None else logits[:, self.columns]


class Teacher:
    """The mean of the logits of one or several networks, for the classes of a data set in its order.

    Attributes
    ----------
    name
        What each network is, and the start of the sha256 of its weights.
    """

    def __init__(self, members: Sequence[_Member], n_classes: int) -> None:
        self.members = tuple(members)
        self.n_classes = n_classes
        self.name = " + ".join(member.name for member in members)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """float32 logits (b, n_classes) of images uint8, or float on the scale of [0, 1]."""
        size = max(1, BLOCK_PIXELS // (images.shape[-1] * images.shape[-2]))
        return torch.cat([self._mean(part) for part in torch.split(images, size)])

    def _mean(self, images: Tensor) -> Tensor:
        logits = torch.stack([member.logits(images) for member in self.members])
        if logits.shape[1:] != (len(images), self.n_classes):
            raise ValueError(
                f"the teacher gives logits {tuple(logits.shape[1:])}, the set has {self.n_classes} classes"
            )
        return logits.mean(0)


def open_teacher(teacher: Any, data: TrainingSet, device: torch.device) -> Teacher:
    """Open one teacher, or a sequence of them, for the images and classes of a training set.

    Parameters
    ----------
    teacher
        A checkpoint of `ddoq teacher` or `ddoq.train`; a folder with timm's config.json and
        weights; the name or hub id of a pretrained timm model, such as "resnet18.tv_in1k", for which alone a hub is
        contacted; or a module that gives logits of images float32 (b, c, s, s) in [0, 1], in the order of the set's
        classes: it is copied, and itself left as it is. Classes of the others are matched by name; they may know more
        than the set has. What this function has opened comes back as it is.

    Raises
    ------
    ValueError
        A file or model that is no teacher of these classes or images.
    ddoq.RunError
        A damaged checkpoint.
    """
    if isinstance(teacher, Teacher):
        return teacher
    teachers = [teacher] if isinstance(teacher, str | PathLike | nn.Module) else list(teacher)
    if not teachers:
        raise ValueError("teacher names no network")
    return Teacher([_open(member, data, device) for member in teachers], len(data.class_names))


def _open(teacher: Any, data: TrainingSet, device: torch.device) -> _Member:
    if isinstance(teacher, nn.Module):
        named = f"{type(teacher).__name__}@{_weights_hash(teacher)}"
        # a copy: the caller's may go on where it is, in training mode
        return _Member(copy.deepcopy(teacher).to(device).eval(), lambda images: images, None, None, named)
    path = Path(teacher)
    if path.is_file() or path.suffix == ".safetensors":
        return _checkpoint(path, data, device)
    return _timm(f"local-dir:{path}" if (path / "config.json").is_file() else str(teacher), data, device)


def _checkpoint(path: Path, data: TrainingSet, device: torch.device) -> _Member:
    """A student's checkpoint of ddoq's."""
    advice = "give what ddoq teacher or ddoq train wrote, or a folder with timm's config.json and weights"
    weights, facts = read_checkpoint(path, advice)
    whose, remedy = f"the teacher in {path}", ": train one on this data set with ddoq teacher"
    try:
        names, channels, side = list(facts["class_names"]), facts["channels"], facts["image_size"]
        if channels != data.channels:
            raise ValueError(f"{whose} is for {channels} channels{remedy}")
        model = create_student(facts["student"], n_classes=len(names), channels=channels, image_size=side)
        model.load_state_dict(weights)
        normalise = Normalise(torch.tensor(facts["mean"]), torch.tensor(facts["std"]), device)
        columns = torch.tensor(columns_of(data.class_names, names, whose, remedy), device=device)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold what it says, a {facts['student']!r}: {error}") from error
    return _Member(model.to(device).eval(), normalise, columns, side, f"{facts['student']}@{_weights_hash(model)}")


def _timm(name: str, data: TrainingSet, device: torch.device) -> _Member:
    """A pretrained timm model, by name, hub id, or "local-dir:" and a folder."""
    timm = need("timm", "a pretrained teacher")
    try:
        model = timm.create_model(name, pretrained=True, in_chans=data.channels)
    except RuntimeError as error:
        raise ValueError(f"teacher {name!r} is no file, folder or pretrained model of timm's: {error}") from error
    about = model.pretrained_cfg
    known = about.get("label_names")
    names = label_names(dict(enumerate(known)) if known else None, model.num_classes)
    if names is None:
        raise ValueError(f"teacher {name!r} does not say what its {model.num_classes} classes are called")
    columns = torch.tensor(match_labels(data.class_names, names, name, "teacher"), device=device)
    mean, std = (
        _channels(about.get(key) or default, data.channels)
        for key, default in zip(("mean", "std"), IMAGENET, strict=True)
    )
    side = about["input_size"][-1] if about.get("fixed_input_size") else None
    normalise = Normalise(mean, std, device)
    return _Member(model.to(device).eval(), normalise, columns, side, f"{name}@{_weights_hash(model)}")


def _channels(values: Sequence[float], channels: int) -> Tensor:
    """Three channels' values, or their mean for grey images."""
    return torch.tensor(values) if len(values) == channels else torch.tensor([sum(values) / len(values)] * channels)


def _weights_hash(model: nn.Module) -> str:
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:12]
