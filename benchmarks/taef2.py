"""TAEF2 as a user's own codec: an example of an object with `encode` and `decode`, not part of the package.

TAEF2 (madebyollin/taesd, MIT) is a small public autoencoder: scale f8, 32 latent channels, RGB in [0, 1] in and out, no
scaling factor. diffusers' AutoencoderTiny cannot load it, so its two halves are written out here. Weights:
`taef2/{encoder,decoder}.safetensors`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate


def conv(channels_in: int, channels_out: int, **options: int | bool) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, **options)  # type: ignore[arg-type]


class Block(nn.Module):
    """relu(conv-relu-conv-relu-conv (x) + x), optionally with a pooled correction of x first."""

    def __init__(self, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(64, 64), nn.ReLU(), conv(64, 64), nn.ReLU(), conv(64, 64))
        if pool:
            self.pool = nn.Sequential(
                nn.Conv2d(64, 256, 1, bias=False), nn.GroupNorm(4, 256), nn.ReLU(), nn.Conv2d(256, 64, 1, bias=False)
            )

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "pool"):
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class SoftClamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


def encoder() -> nn.Sequential:
    layers: list[nn.Module] = [conv(3, 64), Block()]
    for pool in (False, False, True):
        layers += [conv(64, 64, stride=2, bias=False), Block(pool), Block(pool), Block(pool)]
    return nn.Sequential(*layers, conv(64, 32))


def decoder() -> nn.Sequential:
    layers: list[nn.Module] = [SoftClamp(), conv(32, 64), nn.ReLU(), Block(True), Block(True), Block(True)]
    for blocks in (3, 3, 1):
        layers += [nn.Upsample(scale_factor=2), conv(64, 64, bias=False), *(Block() for _ in range(blocks))]
    return nn.Sequential(*layers, conv(64, 3))


class TAEF2:
    """Images (b, 3, h, w) float32 in [0, 1] <-> latents (b, 32, h/8, w/8)."""

    channels = 3

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.encoder, self.decoder = encoder(), decoder()
        for name, half in (("encoder", self.encoder), ("decoder", self.decoder)):
            weights = load_file(folder / f"{name}.safetensors")
            half.load_state_dict({key: value.float() for key, value in weights.items()})
            half.eval().requires_grad_(False)
            half.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, images: Tensor) -> Tensor:
        latents: Tensor = self.encoder(images.contiguous(memory_format=torch.channels_last))
        return latents.contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        images: Tensor = self.decoder(latents.contiguous(memory_format=torch.channels_last))
        return images.clamp(0, 1).contiguous()


class SmallTAEF2(TAEF2):
    """TAEF2 for small images: they go in twice as large, and come out halved (bicubic)."""

    def encode(self, images: Tensor) -> Tensor:
        return super().encode(interpolate(images, scale_factor=2, mode="bicubic").clamp(0, 1))

    def decode(self, latents: Tensor) -> Tensor:
        images = interpolate(super().decode(latents), scale_factor=0.5, mode="bicubic", antialias=True)
        return images.clamp(0, 1)
