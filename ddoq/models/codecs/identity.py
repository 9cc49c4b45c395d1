"""Defines the codec that does nothing: pixels are the latents."""

from __future__ import annotations

from torch import Tensor


class IdentityCodec:
    """Latents are the images themselves, (b, c, h, w) in [0, 1]; decoding clips to that range."""

    fingerprint = "identity"

    def encode(self, images: Tensor) -> Tensor:
        """Return the images."""
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """Return the latents, clipped to [0, 1]."""
        return latents.clamp(0, 1)
