"""Augments batches of square images, every random number given: nothing is drawn here.

Images are float32 (b, c, s, s) on the scale of [0, 1], numbers `u` uniform in [0, 1) of shape (b, n), on one device,
CPU or GPU. A result depends on its own row alone. torchvision's v2 transforms draw one crop or box for a whole batch,
from the global stream, and so cannot replay a single image; the formulas are theirs.

Sources: crop, torchvision's RandomResizedCrop (bilinear); CutMix's box, Yun et al. 2019, as SRe2L, D4M, RDED and
Minimax Diffusion cut it; shuffle, RDED's ShufflePatches; jitter and lighting, Minimax Diffusion's (after IDC).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TRIES = 10  # boxes that RandomResizedCrop draws before it takes the whole image
CROP_NUMBERS = 2 * TRIES + 2
_EIGENVALUES = (0.2175, 0.0188, 0.0045)  # AlexNet's lighting: principal components of ImageNet's colours
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_GREY = (0.299, 0.587, 0.114)


def crop_boxes(u: Tensor, side: int, scale: float, tall: float = 4 / 3) -> Tensor:
    """RandomResizedCrop's boxes (b, 4): top, left, height, width, of u (b, CROP_NUMBERS).

    The area is uniform in (scale, 1), the aspect ratio log-uniform in (1 / tall, tall); the first of ten that fits, or
    the whole image.
    """
    area = side * side * (scale + (1 - scale) * u[:, 0 : 2 * TRIES : 2])
    ratio = torch.exp(math.log(tall) * (2 * u[:, 1 : 2 * TRIES : 2] - 1))
    width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (width >= 1) & (width <= side) & (height >= 1) & (height <= side)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    some = fits.any(1, keepdim=True)
    height, width = (torch.where(some, sides.gather(1, first), side) for sides in (height, width))
    top = (u[:, -2:-1] * (side - height + 1)).floor()
    left = (u[:, -1:] * (side - width + 1)).floor()
    return torch.cat([top, left, height, width], 1)


def crop(images: Tensor, u: Tensor, scale: float) -> Tensor:
    """Random boxes, resized to the whole image bilinearly; u (b, CROP_NUMBERS).

    Each box is cut before it is resized: no pixel outside it counts.
    """
    side = images.shape[-1]
    top, left, height, width = crop_boxes(u, side, scale).unbind(1)
    centres = torch.arange(side, device=images.device, dtype=u.dtype) + 0.5

    def places(start: Tensor, extent: Tensor) -> Tensor:
        inside = centres * (extent / side)[:, None] - 0.5
        inside = torch.minimum(inside.clamp(min=0), extent[:, None] - 1) + start[:, None]
        return (2 * inside / (side - 1) - 1).float()  # as grid_sample counts, corners aligned

    rows, columns = places(top, height), places(left, width)
    grid = torch.stack([columns[:, None, :].expand(-1, side, -1), rows[:, :, None].expand(-1, -1, side)], -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def flip(images: Tensor, u: Tensor) -> Tensor:
    """Every second image mirrored; u (b, 1)."""
    return torch.where(u[:, :, None, None] < 0.5, images.flip(3), images)


def shuffle(images: Tensor, u: Tensor, patches: int) -> Tensor:
    """Columns of patches in a random order, then rows; the last takes what division leaves; u (b, 2 patches)."""
    side = images.shape[-1]
    pixels = torch.arange(side, device=images.device)
    strip = (pixels // (side // patches)).clamp(max=patches - 1)
    columns, rows = (
        (part.argsort(1)[:, strip] * side + pixels).argsort(1) for part in (u[:, :patches], u[:, patches:])
    )
    images = images.gather(3, columns[:, None, None, :].expand_as(images))
    return images.gather(2, rows[:, None, :, None].expand_as(images))


def jitter(images: Tensor, u: Tensor, strength: float = 0.4) -> Tensor:
    """Brightness, contrast and saturation in a random order, each by up to `strength`; u (b, 6)."""
    amounts = ((2 * u[:, :3] - 1) * strength).float()[:, :, None, None, None]
    order = u[:, 3:].argsort(1)[:, :, None, None, None]
    for step in range(3):
        grey = _grey(images)
        result = images
        for number, target in enumerate((torch.zeros_like(grey), means(grey), grey)):
            changed = torch.lerp(images, target.expand_as(images), amounts[:, number])
            result = torch.where(order[:, step] == number, changed, result)
        images = result
    return images


def lighting(images: Tensor, u: Tensor, deviation: float = 0.1) -> Tensor:
    """AlexNet's noise along the principal components of colour; grey images stay; u (b, 3)."""
    if images.shape[1] != 3:
        return images
    normal = torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12)) * deviation
    components = u.new_tensor(_EIGENVECTORS) * u.new_tensor(_EIGENVALUES)
    shift: Tensor = (normal[:, None, :] * components).sum(2)
    return images + shift.float()[:, :, None, None]


def cutmix_box(share: Tensor, u: Tensor, side: int) -> Tensor:
    """CutMix's boxes (b, 4), from row, column to row, column, of about 1 - share of the pixels; u (b, 2)."""
    half = (side * (1 - share).sqrt()).floor()[:, None].div(2, rounding_mode="floor")
    centre = (u * side).floor()
    return torch.cat([centre - half, centre + half], 1).clamp(0, side)


def cutmix(images: Tensor, partners: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """The partners' pixels in the boxes, and the share of the pixels that an image keeps (b,)."""
    side = images.shape[-1]
    pixels = torch.arange(side, device=images.device)
    rows, columns = ((pixels >= box[:, at, None]) & (pixels < box[:, at + 2, None]) for at in (0, 1))
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    share_kept = 1 - (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / side**2
    return torch.where(inside, partners, images), share_kept.float()


def mixup(images: Tensor, partners: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Images and partners in the proportion of share (b,)."""
    share = share.float()
    return torch.lerp(partners, images, share[:, None, None, None]), share


def _grey(images: Tensor) -> Tensor:
    """(b, 1, s, s)."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.unbind(1)
    return (red * _GREY[0] + green * _GREY[1] + blue * _GREY[2])[:, None]


def means(images: Tensor) -> Tensor:
    """Mean of each image (b, 1, 1, 1); summed in float64, so that the batch decides none of its bits."""
    return images.flatten(1).double().mean(1).float()[:, None, None, None]
