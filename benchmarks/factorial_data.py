"""The data sets of factorial.py: images to distil, images to test on, the codec in whose latents points are sought."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import data_dir, mnist, unpack
from numpy.typing import NDArray
from taef2 import TAEF2, SmallTAEF2

from ddoq.cli.demo import digits
from ddoq.data.image_data import ImageData, open_data
from ddoq.training.recipe import Recipe

MASSES = (16, 8, 4, 2, 1)  # of the digits 0, 2, 4, 6, 8 among the even and 1, 3, 5, 7, 9 among the odd
UNIT = 330  # images of mass 1: 16 times as many are there of 0 and of 1


@dataclass(frozen=True)
class Images:
    """What students learn from and are tested on.

    `test` may be larger than `train` where the protocol cuts the centres of test images out. `digits`: what each test
    image shows, where a class has several digits of unequal mass.
    """

    train: ImageData
    test: ImageData
    codec: Any = "identity"
    digits: NDArray[np.int64] | None = None


def open_images(name: str, work: Path, device: str) -> Images:
    """A data set by name, unpacked into WORK where it is an archive; its codec on the device."""
    if name == "digits":
        return Images(*map(open_data, digits()))
    if name == "mnist":
        return Images(*map(open_data, mnist()))
    if name == "parity":
        (images, labels), (test, test_labels) = mnist()
        chosen = skewed(labels)
        train = open_data((images[chosen], parity(labels[chosen])))
        return Images(train, open_data((test, parity(test_labels))), digits=test_labels.astype(np.int64))
    if name == "cifar10":
        folder = unpack(work / "cifar10", "cifar10/cifar10_jpeg")
        return Images(open_data(folder / "train"), held(folder / "test", 32), SmallTAEF2(data_dir() / "taef2", device))
    side = int(name.removeprefix("imagenette-"))
    folder = unpack(work / "imagenette", *(f"imagenette/{part}" for part in ("train_a", "train_b", "val")))
    train, codec = open_data(folder / "train", image_size=side), TAEF2(data_dir() / "taef2", device)
    return Images(train, held(folder / "val", Recipe(test_crop=True).test_side(side)), codec)


def held(folder: Path, side: int) -> ImageData:
    """The images of a folder in memory, decoded once for all students."""
    data = open_data(folder, image_size=side)
    return open_data((data.images(range(len(data))), data.labels), class_names=data.class_names)


def parity(labels: NDArray[Any]) -> list[str]:
    return ["odd" if label % 2 else "even" for label in labels]


def skewed(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Which images to keep so that the digits of each parity have MASSES: the first of each."""
    kept = [np.flatnonzero(labels == digit)[: UNIT * MASSES[digit // 2]] for digit in range(10)]
    return np.sort(np.concatenate(kept))


def by_mass(right: list[float], masses: tuple[int, ...] = MASSES) -> float:
    """Accuracy in a population where the digits of each parity have these masses, from the accuracy of each digit.

    >>> by_mass([100.0] * 2 + [0.0] * 8) == 100 * 16 / 31
    True
    """
    return sum(share * masses[digit // 2] for digit, share in enumerate(right)) / (2 * sum(masses))
