"""Augments images as DSA does (Zhao and Bilen 2021), differentiably: one operation an image, its numbers given.

Images are normalised (b, c, s, s): outside them lie zeros, the mean. The amounts are those of ParamDiffAug in
VICO-UoE/DatasetCondensation: flip 0.5, scale 1.2, rotate 15 degrees, crop by an eighth, cutout of half a side,
brightness 1, saturation 2, contrast 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ddoq.training.augment import means

NUMBERS = 4  # one for the operation, three for its amounts
FLIP, SCALE, ROTATE, CROP, CUTOUT = 0.5, 1.2, 15.0, 0.125, 0.5
BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5


def siamese(images: Tensor, u: Tensor, strategy: str) -> Tensor:
    """Each image under one of the operations that `strategy` names, joined by "_"; u (b, NUMBERS)."""
    names = strategy.split("_")
    operations = (u[:, 0] * len(names)).long()
    result = images.clone()
    for number, name in enumerate(names):
        rows = (operations == number).nonzero()[:, 0]
        if len(rows):
            result[rows] = _OPERATIONS[name](images[rows], u[rows, 1:])
    return result


def _color(x: Tensor, u: Tensor) -> Tensor:
    bright, saturation, contrast = u.float()[:, :, None, None, None].unbind(1)
    x = x + (bright - 0.5) * BRIGHTNESS
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (saturation * SATURATION) + grey
    mean = means(x)
    return (x - mean) * (contrast + CONTRAST) + mean


def _crop(x: Tensor, u: Tensor) -> Tensor:
    """Moved by whole pixels."""
    side = x.shape[-1]
    most = int(side * CROP + 0.5)
    moves = (u[:, :2] * (2 * most + 1)).floor().long() - most
    rows, columns = (torch.arange(side, device=x.device) + moves[:, at, None] for at in (0, 1))
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    x = x.gather(2, rows.clamp(0, side - 1)[:, None, :, None].expand_as(x))
    x = x.gather(3, columns.clamp(0, side - 1)[:, None, None, :].expand_as(x))
    return x * inside[:, None]


def _cutout(x: Tensor, u: Tensor) -> Tensor:
    side = x.shape[-1]
    size = int(side * CUTOUT + 0.5)
    start = (u[:, :2] * (side + 1 - size % 2)).floor().long() - size // 2
    pixels = torch.arange(side, device=x.device)
    rows, columns = ((pixels >= start[:, at, None]) & (pixels < start[:, at, None] + size) for at in (0, 1))
    return x * ~(rows[:, :, None] & columns[:, None, :])[:, None]


def _flip(x: Tensor, u: Tensor) -> Tensor:
    return torch.where(u[:, :1, None, None] < FLIP, x.flip(3), x)


def _scale(x: Tensor, u: Tensor) -> Tensor:
    factors = (u[:, :2] * (SCALE - 1 / SCALE) + 1 / SCALE).float()
    return _affine(x, torch.diag_embed(factors))


def _rotate(x: Tensor, u: Tensor) -> Tensor:
    angle = ((2 * u[:, 0] - 1) * (ROTATE / 180 * math.pi)).float()
    sine, cosine = angle.sin(), angle.cos()
    return _affine(x, torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1))


def _affine(x: Tensor, matrix: Tensor) -> Tensor:
    """Images seen through a matrix (b, 2, 2) on places counted from the centre; zeros outside."""
    grid = F.affine_grid(F.pad(matrix, (0, 1)), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
