"""Lists the sizes of the models that are fitted, and how many training steps they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PATCHES = 32  # along a side, at most


PASSES = 300  # over the images, at most, by the default number of steps, if that is above 500


@dataclass(frozen=True)
class Size:
    """Sizes of the models, images per step and steps by default."""

    base_channels: int
    codec_batch: int
    codec_steps: int
    width: int
    depth: int
    diffusion_batch: int
    diffusion_steps: int


SizeName = Literal["tiny", "small", "base"]


SIZES: dict[str, Size] = {
    "tiny": Size(16, 32, 1_200, 128, 4, 64, 4_000),
    "small": Size(32, 64, 20_000, 384, 12, 128, 100_000),
    "base": Size(64, 64, 100_000, 768, 12, 256, 400_000),
}


def default_size(side: int, n: int) -> SizeName:
    """Give the size for n images of a side in pixels.

    >>> default_size(32, 50_000), default_size(96, 13_000), default_size(256, 1_281_167), default_size(256, 1_000)
    ('tiny', 'small', 'base', 'tiny')
    """
    if side > 128 and n >= 100_000:
        return "base"
    return "small" if side > 64 and n >= 10_000 else "tiny"


def layout(side: int) -> tuple[int, int]:
    """Pixels per latent and latents per patch, along a side.

    The latents are as small as leaves at least 12 of them, at most 8 times smaller than the image, and an even number,
    for patches of 2; where the side is odd, patches are single latents.

    >>> layout(28), layout(32), layout(64), layout(256), layout(27)
    ((2, 2), (2, 2), (4, 2), (8, 2), (1, 1))
    """
    factor = next((f for f in (8, 4, 2) if side % (2 * f) == 0 and side // f >= 12), 1)
    patch = 2 if side // factor % 2 == 0 else 1
    if side // factor // patch > PATCHES:
        raise ValueError(
            f"images of {side} pixels leave {side // factor // patch} patches along a side, at most {PATCHES} fit: "
            f"use image_size={min(side // 16 * 16, 16 * PATCHES)}"
        )
    return factor, patch


def training_steps(steps: int, batch: int, n: int) -> int:
    return min(steps, max(500, round(PASSES * n / batch)))
