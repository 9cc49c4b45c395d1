"""Draws how a training gets on: reconstructions of an autoencoder, samples of a diffusion model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddoq.data.image_data import ImageData
from ddoq.machine.streams import seed_sequence, torch_seed
from ddoq.models.codecs.codec import Codec
from ddoq.models.diffusion.dit import DiTDiffusion
from ddoq.storage.files import write_atomic
from ddoq.storage.image_folder import png

ROWS, COLUMNS = 10, 4  # of a picture: classes, and samples of each


class Pictures:
    """PNG files that show how a training gets on; each is the same whenever it is made."""

    def __init__(self, folder: Path, data: ImageData, seed: int, device: torch.device) -> None:
        self.folder, self.data, self.seed, self.device = folder, data, seed, device
        folder.mkdir(exist_ok=True)

    @torch.no_grad()
    def reconstructions(self, step: int, model: Any) -> None:
        """Images spread over the data, and below each what the autoencoder makes of it."""
        indices = np.unique(np.linspace(0, len(self.data) - 1, 2 * COLUMNS).astype(np.int64))
        images = self.data.images(indices)
        x = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).float() / 127.5 - 1
        decoded = model.decode(model.encode(x).latent_dist.mode()).sample.float() / 2 + 0.5
        self._write(f"codec-{step:07d}.png", np.stack([images, _pixels(decoded)]))

    def samples(self, step: int, transformer: Any, scheduler: Any, codec: Codec) -> None:
        """Samples of the first classes, a row each."""
        names = self.data.class_names
        shown = min(ROWS, len(names))
        model = DiTDiffusion(transformer, scheduler, names, device=self.device)
        classes = torch.arange(shown).repeat_interleave(COLUMNS)
        streams = seed_sequence(self.seed, "samples").spawn(len(classes))
        generators = [torch.Generator().manual_seed(torch_seed(stream)) for stream in streams]
        side, channels = model.latent_side, transformer.config["in_channels"]
        noise = torch.zeros(len(classes), channels, side, side)
        latents = model.sample(noise, classes, generators, strength=1, steps=25, guidance=2)
        images = _pixels(codec.decode(latents))
        self._write(f"diffusion-{step:07d}.png", images.reshape(shown, COLUMNS, *images.shape[1:]))

    def _write(self, name: str, images: np.ndarray[Any, Any]) -> None:
        """Write images (rows, columns, channels, h, w) as one."""
        rows, columns, channels, h, w = images.shape
        write_atomic(self.folder / name, png(images.transpose(2, 0, 3, 1, 4).reshape(channels, rows * h, columns * w)))


def _pixels(images: torch.Tensor) -> np.ndarray[Any, Any]:
    """Images in [0, 1] as uint8."""
    pixels: np.ndarray[Any, Any] = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return pixels
