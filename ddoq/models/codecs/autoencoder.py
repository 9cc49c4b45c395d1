"""Makes a codec of any diffusers AutoencoderKL or AutoencoderTiny.

latents = (z - shift) * scaling, with z the mean or a sample of the posterior of 2 x - 1, and per channel
(z - mean) / std * scaling where the configuration has latents_mean and latents_std: the same numbers as diffusers'
pipelines use between autoencoder and denoiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ddoq.machine.device import Precision
from ddoq.machine.extras import need
from ddoq.models.parts import AUTOENCODERS, Parts, autoencoder_part, settle_module

Posterior = Literal["mean", "sample"]


class AutoencoderCodec:
    """A diffusers autoencoder: images in [0, 1] to scaled latents and back.

    What comes in and goes out is float32. AutoencoderTiny has neither posterior nor shift: its latents are already
    those of the model it stands in for.

    Parameters
    ----------
    model
        AutoencoderKL or AutoencoderTiny; put on `device`, in evaluation mode.
    device
        Where it computes; results are returned there.
    posterior
        "mean" of the latents' distribution, or a "sample" of it, drawn from the generator of each image.
    dtype
        To compute in; None: the model's own. float16 becomes float32 where the configuration says `force_upcast`.

    Attributes
    ----------
    factor
        Pixels per latent, along a side.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device | str = "cpu",
        *,
        posterior: Posterior = "mean",
        dtype: torch.dtype | None = None,
    ) -> None:
        config = model.config
        if (dtype or model.dtype) == torch.float16 and config.get("force_upcast", False):
            dtype = torch.float32
        self.device = torch.device(device)
        self.model = settle_module(model, self.device, dtype)
        self.posterior = posterior
        if posterior == "sample" and "encoder_block_out_channels" in config:
            raise ValueError("an AutoencoderTiny has no posterior to sample from: use posterior='mean'")
        self.factor = 2 ** (len(config.get("block_out_channels") or config["encoder_block_out_channels"]) - 1)
        self.channels: int = config["in_channels"]
        if self.channels not in (1, 3):
            raise ValueError(
                f"{type(model).__name__} takes images of {self.channels} channels: ddoq has images of 1 or 3"
            )
        self.scale: float = config.get("scaling_factor") or 1.0
        self.shift: float = config.get("shift_factor") or 0.0
        self.mean = self._per_channel(config.get("latents_mean"), 0.0)
        self.std = self._per_channel(config.get("latents_std"), 1.0)

    @classmethod
    def of_parts(
        cls,
        parts: Parts,
        device: torch.device | str = "cpu",
        *,
        posterior: Posterior = "mean",
        precision: Precision = "auto",
    ) -> AutoencoderCodec:
        """The autoencoder of a pipeline, or of a folder or hub id that is one."""
        part = autoencoder_part(parts)
        if part is None:
            if kind := parts.kind(""):
                raise ValueError(
                    f"config.json in {parts.name} describes {kind!r}: a codec is {' or '.join(AUTOENCODERS)}"
                )
            raise FileNotFoundError(
                f"no config.json and no vae/config.json of an autoencoder in {parts.name}: a codec is what a diffusers "
                "autoencoder's, or a pipeline's, save_pretrained writes"
            )
        diffusers = need("diffusers", "an autoencoder")

        dtype = parts.dtype(precision, torch.device(device))
        model = parts.load(part, getattr(diffusers, str(parts.kind(part))), dtype)
        return cls(model, device, posterior=posterior, dtype=dtype)

    @property
    def fingerprint(self) -> str:
        """Of the model's class, configuration and weights, and of what is taken of its posterior."""
        from ddoq.models.fingerprint import fingerprint

        return fingerprint(self.model) + (":sample" if self.posterior == "sample" else "")

    @torch.no_grad()
    def encode(self, images: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Images (b, c, h, w) float32 in [0, 1] to latents (b, *latent_shape) float32.

        A sample of the posterior takes a generator for each image, so that it does not depend on the batch.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(
                f"{type(self.model).__name__} takes images (b, {self.channels}, h, w), got {tuple(images.shape)}"
            )
        encoded = self.model.encode((images.to(self.device) * 2 - 1).to(self.model.dtype))
        raw: Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        if self.posterior == "sample":
            if generators is None or len(generators) != len(images):
                raise ValueError(f"to sample the latents of {len(images)} images takes as many generators")
            noise = torch.stack([torch.randn(raw.shape[1:], generator=g, device=g.device) for g in generators])
            raw = raw.float() + encoded.latent_dist.std.float() * noise.to(raw.device)
        return (raw.float() - self.shift - self.mean) * self.scale / self.std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (b, *latent_shape) to images (b, c, h, w) float32 in [0, 1]."""
        raw = latents.to(self.device).float() * self.std / self.scale + self.mean + self.shift
        images: Tensor = self.model.decode(raw.to(self.model.dtype)).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def _per_channel(self, values: list[float] | None, default: float) -> Tensor:
        numbers = [default] if values is None else values
        return torch.tensor(numbers, dtype=torch.float32, device=self.device).reshape(1, -1, 1, 1)
