"""Holds what training and testing read: whole data sets as tensors in memory, their classes matched by name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ddoq.data.classes import matched_labels
from ddoq.data.distilled import DistilledDataset
from ddoq.data.image_data import ImageData, open_data
from ddoq.storage.values import digest


@dataclass(frozen=True)
class TrainingSet:
    """Images uint8 (n, c, h, w), labels int64 (n,), weights float32 (n,); mean and deviation (c,) to normalise by."""

    images: Tensor
    labels: Tensor
    weights: Tensor
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.images.shape[1]

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.images.shape[-1]

    @classmethod
    def of(cls, dataset: DistilledDataset | ImageData) -> TrainingSet:
        """A distilled set as it is; all images of an ImageData with weight 1, normalised by their own statistics."""
        if isinstance(dataset, DistilledDataset):
            return cls(
                dataset.images,
                dataset.labels,
                dataset.weights.float(),
                dataset.class_names,
                dataset.mean.float(),
                dataset.std.float(),
            )
        if isinstance(dataset, ImageData):
            images, labels = _all(dataset)
            sums = torch.zeros(2, images.shape[1], dtype=torch.float64)
            for part in torch.split(images, 128):
                values = part.double() / 255
                sums += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
            mean, square = sums / (images.numel() / images.shape[1])
            std = (square - mean.square()).clamp(min=0).sqrt()
            return cls(images, labels, torch.ones(len(images)), dataset.class_names, mean.float(), std.float())
        raise TypeError(
            f"dataset must be what ddoq.load or ddoq.open_data returns, got {type(dataset).__name__}: {dataset!r:.100}"
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that training sees."""
        return _hash(self.class_names, self.images, self.labels, self.weights, self.mean, self.std)

    @cached_property
    def images_fingerprint(self) -> str:
        """Hash of the images, in their order."""
        return _hash((), self.images)


@dataclass(frozen=True)
class HeldOut:
    """Images uint8 (n, c, h, w) and labels int64 (n,) in the order of the training set's classes.

    `source` is the hash of the data set that they were opened from, whatever its images were converted to, of which
    `note` tells.
    """

    images: Tensor
    labels: Tensor
    source: str = ""
    note: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of images and labels."""
        return _hash((), self.images, self.labels)


class Normalise:
    """Images with a mean and deviation (c,) taken out, as float32: uint8, or floats on the scale of [0, 1].

    A constant channel becomes 0.
    """

    def __init__(self, mean: Tensor, std: Tensor, device: torch.device) -> None:
        std = torch.where(std > 0, std, 1)
        self.scales = {True: (1 / (255 * std)).to(device)[:, None, None], False: (1 / std).to(device)[:, None, None]}
        self.shift = (-mean / std).to(device)[:, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        return torch.addcmul(self.shift, images.float(), self.scales[images.dtype == torch.uint8])


def open_test(
    test: Any, like: TrainingSet, class_names: Sequence[str] | None = None, *, side: int | None = None
) -> HeldOut:
    """Open a test set at the size, with the channels and in the class order of a training set.

    `test` is anything `open_data` takes, or an ImageData. `side`: the images are opened at so many pixels, and their
    centres taken; default: the training set's size. ValueError if a class of one is missing in the other.
    """
    opened = open_data(test, image_size=side or like.size, channels=like.channels, class_names=class_names)
    images, labels = _all(opened)
    border = (images.shape[-1] - like.size) // 2
    images = images[..., border : border + like.size, border : border + like.size].contiguous()
    matched = matched_labels(labels, opened.class_names, like.class_names, "test data", opened.source.renaming)
    return HeldOut(images, matched, opened.fingerprint, _converted(opened))


def _converted(opened: ImageData) -> str:
    """What opening test images has made of them; nothing where they are as they were."""
    channels = 1 if opened.source.grey() else 3
    sizes = {(*size, channels) for size in opened.source.sizes()}
    new = (opened.image_size, opened.image_size, opened.channels)
    if sizes == {new}:
        return ""
    old = f"of {len(sizes)} sizes" if len(sizes) > 1 else " x ".join(map(str, *sizes))
    return f"test images {old} were converted to {' x '.join(map(str, new))}, to fit the images that students train on"


def _all(data: ImageData) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(data.images(range(len(data)))), torch.as_tensor(data.labels)


def _hash(names: Sequence[str], *tensors: Tensor) -> str:
    sha = hashlib.sha256(digest([list(names), [[str(t.dtype), list(t.shape)] for t in tensors]]).encode())
    for tensor in tensors:
        sha.update(tensor.contiguous().numpy().data)
    return sha.hexdigest()
