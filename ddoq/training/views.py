"""Makes what a student sees of a set of images in an epoch: views that depend on (seed, epoch, image) alone.

The numbers of an epoch are one table with a row for each image, from a stream of (seed, epoch); an image's partner is
its place in a permutation of the whole set, from another. So a view is the same in batches of any size and order, in
any worker, on its first and its thousandth replay; and nobody has to store crops or seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ddoq.machine.streams import seed_sequence
from ddoq.training import augment
from ddoq.training.recipe import Recipe
from ddoq.training.siamese import NUMBERS, siamese
from ddoq.training.training_set import Normalise, TrainingSet

# Columns of the table, whichever are used: the last is as wide as the recipe wants.
WIDTHS = {"crop": augment.CROP_NUMBERS, "flip": 1, "jitter": 6, "lighting": 3, "dsa": NUMBERS, "mix": 4, "shuffle": 0}
ROWS = 1 << 14  # of the table, drawn at once


@dataclass(frozen=True)
class View:
    """A batch: images (b, c, s, s), uint8 as they are in the set or float32 on the scale of [0, 1]; whose they are.

    `partner` (b,) and `share` (b,), the part of the pixels that is the image's own, are None where nothing is mixed.
    """

    epoch: int
    images: Tensor
    index: Tensor
    partner: Tensor | None = None
    share: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def part(self, begin: int, end: int) -> View:
        """Some rows."""
        cut = (None if field is None else field[begin:end] for field in (self.partner, self.share))
        return View(self.epoch, self.images[begin:end], self.index[begin:end], *cut)

    def to(self, device: torch.device) -> View:
        """All of it on a device."""
        moved = (None if field is None else field.to(device) for field in (self.partner, self.share))
        return View(self.epoch, self.images.to(device), self.index.to(device), *moved)


class Views:
    """The views of a training set under a recipe, made on a device.

    Examples
    --------
    >>> images = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
    >>> data = TrainingSet(images, torch.arange(4) % 2, torch.ones(4), ("a", "b"), torch.zeros(1), torch.ones(1))
    >>> views = Views(data, Recipe(augment=("crop", "flip"), mix="cutmix"), torch.device("cpu"))
    >>> both, one = views(7, torch.tensor([3, 1])), views(7, torch.tensor([1]))
    >>> torch.equal(both.images[1], one.images[0]), both.partner[1] == one.partner[0]
    (True, tensor(True))
    """

    def __init__(self, data: TrainingSet, recipe: Recipe, device: torch.device) -> None:
        self.images = data.images.to(device)
        self.recipe = recipe
        self.device = device
        self.mean, self.std = (t.to(device)[:, None, None] for t in (data.mean, data.std))
        self.std = torch.where(self.std > 0, self.std, 1)
        self.normalise = Normalise(data.mean, data.std, device)

    def __call__(self, epoch: int, index: Tensor) -> View:
        """The images `index` (b,) in an epoch; `Recipe.view_epoch` says in which."""
        if self.recipe.still:
            return View(epoch, self.images[index.to(self.device)], index.to(self.device))
        used = (*self.recipe.augment, *["mix"] * (self.recipe.mix != "none"))
        table, partners = _epoch(self.recipe.views["seed"], epoch, len(self.images), self.recipe.patches, used)
        own_images = self._augmented(table, index)
        if self.recipe.mix == "none":
            return View(epoch, own_images, index.to(self.device))
        partner = torch.from_numpy(partners)[index]
        u = torch.from_numpy(table["mix"])[index]
        alpha = self.recipe.mix_alpha
        share = u[:, 1] if alpha == 1 else torch.from_numpy(betaincinv(alpha, alpha, u[:, 1].numpy()))
        share = torch.where(u[:, 0] < self.recipe.mix_probability, share, 1.0).to(self.device)
        others = self._augmented(table, partner)
        if self.recipe.mix == "mixup":
            mixed, shares = augment.mixup(own_images, others, share)
        else:
            box = augment.cutmix_box(share, u[:, 2:].to(self.device), own_images.shape[-1])
            mixed, shares = augment.cutmix(own_images, others, box)
        return View(epoch, mixed, index.to(self.device), partner.to(self.device), shares)

    def _augmented(self, table: dict[str, np.ndarray[Any, Any]], index: Tensor) -> Tensor:
        recipe = self.recipe
        images = self.images[index.to(self.device)].float() / 255
        numbers = {name: torch.from_numpy(table[name])[index].to(self.device) for name in recipe.augment}
        if "shuffle" in numbers and recipe.patches > 1:
            images = augment.shuffle(images, numbers["shuffle"], recipe.patches)
        if "crop" in numbers:
            images = augment.crop(images, numbers["crop"], recipe.crop_scale)
        if "flip" in numbers:
            images = augment.flip(images, numbers["flip"])
        if "jitter" in numbers:
            images = augment.jitter(images, numbers["jitter"])
        if "lighting" in numbers:
            images = augment.lighting(images, numbers["lighting"])
        if "dsa" in numbers:
            images = siamese(self.normalise(images), numbers["dsa"], recipe.dsa) * self.std + self.mean
        return images


@lru_cache(maxsize=1)  # batches come epoch by epoch, to each worker too
def _epoch(
    seed: int, epoch: int, n: int, patches: int, used: tuple[str, ...]
) -> tuple[dict[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """The numbers of an epoch by what they are used for, each (n, width), and every image's partner (n,)."""
    widths = {**WIDTHS, "shuffle": 2 * patches}
    ends = dict(zip(widths, np.cumsum(list(widths.values())), strict=True))
    stream = np.random.default_rng(seed_sequence(seed, "views", epoch))
    table = {name: np.empty((n, widths[name])) for name in used}
    for begin in range(0, n, ROWS):  # only the columns in use are kept: the table of a large set takes much memory
        rows = stream.random((min(ROWS, n - begin), sum(widths.values())))
        for name, column in table.items():
            column[begin : begin + ROWS] = rows[:, ends[name] - widths[name] : ends[name]]
    return table, np.random.default_rng(seed_sequence(seed, "partners", epoch)).permutation(n)


def view_batches(views: Views, plan: Iterable[tuple[int, Tensor]], workers: int) -> Iterator[View]:
    """The views of every (epoch, images) of a plan, in its order; made in `workers` processes, or here for 0."""
    if workers == 0:
        yield from (views(epoch, index) for epoch, index in plan)
    else:
        # a generator of its own: torch's, from which the loader would draw a seed for its workers, is the student's
        yield from DataLoader(
            _Made(views),
            batch_size=None,
            sampler=plan,
            num_workers=workers,
            collate_fn=_same,
            generator=torch.Generator(),
        )


class _Made(Dataset[View]):
    """Whole batches as the items of a data set, so that torch's own loader makes them ahead."""

    def __init__(self, views: Views) -> None:
        self.views = views

    def __getitem__(self, key: tuple[int, Tensor]) -> View:
        return self.views(*key)


def _same(view: Any) -> Any:
    return view
