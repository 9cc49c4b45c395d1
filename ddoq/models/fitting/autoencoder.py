"""Trains a small autoencoder on the user's own images: diffusers' AutoencoderKL, saved in its own format.

Loss: mean |x - y| + mean (x - y)^2 + kl_weight * KL, on images in [-1, 1]; AdamW with one learning-rate cycle. The
number of steps depends on the configuration alone, so that the same seed gives the same bytes on the same machine with
the same number of threads.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ddoq.machine.arguments import positive
from ddoq.machine.device import TrainingPrecision
from ddoq.machine.extras import need
from ddoq.machine.memory import BatchSize
from ddoq.machine.streams import seed_sequence, torch_seed
from ddoq.models.fitting.loop import Journal, train
from ddoq.models.fitting.state import FitRecipe

if TYPE_CHECKING:
    from ddoq.data.image_data import ImageData

LATENT_CHANNELS = 4
KL_WEIGHT = 1e-6  # as latent diffusion models use
LEARNING_RATE = 4e-3
PIXEL_BUDGET = 30e6  # pixels seen in training by default, between the two numbers of steps below
MIN_STEPS, MAX_STEPS = 400, 1200


def fit_codec(
    data: ImageData,
    folder: Path,
    *,
    seed: int,
    factor: int | None = None,
    base_channels: int = 16,
    steps: int | None = None,
    batch_size: int = 32,
    accumulate: int = 1,
    precision: TrainingPrecision = "float32",
    journal: Journal | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Train an AutoencoderKL on the images and save it in `folder`.

    The latents have 4 channels. Over the data their mean is 0, which the weights see to, and their standard deviation
    is 1 / `scaling_factor` of the configuration.

    Parameters
    ----------
    data
        Images, (n, channels, side, side).
    folder
        Written to by `save_pretrained` (safetensors); made if absent.
    seed
        Of the weights, the order of the images and the posterior's noise.
    factor
        Pixels per latent along a side, a power of two; default: the largest of 8, 4, 2 or 1 that divides the images'
        side and leaves at least 4.
    base_channels
        Channels at full resolution; twice as many below. 16 is enough for MNIST; a multiple of 8. The learning rate
        falls with them.
    steps
        Training steps; default: as many as see 30 million pixels, from 400 to 1,200.
    batch_size
        Images per step; fewer where there are fewer.
    accumulate, precision, journal
        See `ddoq.models.fitting.loop`: parts of a step, "bfloat16" for mixed precision, checkpoints and log.

    Returns
    -------
    dict
        factor, steps, batch_size, accumulate, base_channels, parameters, loss (last tenth of training, mean), psnr (dB,
        of up to 1,024 images with the posterior's mean), images_per_second.

    Examples
    --------
    >>> import tempfile
    >>> from ddoq.models.codecs.codec import open_codec
    >>> from ddoq.data.image_data import open_data
    >>> data = open_data((np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8), [0, 1, 0, 1]))
    >>> folder = Path(tempfile.mkdtemp())
    >>> facts = fit_codec(data, folder, seed=0, base_channels=8, steps=2, progress=False)
    >>> open_codec(folder).encode(torch.zeros(1, 1, 8, 8)).shape
    torch.Size([1, 4, 4, 4])
    """
    if base_channels < 8 or base_channels % 8:
        raise ValueError(f"base_channels must be a multiple of 8, got {base_channels}")
    if steps is not None:
        positive("steps", steps)
    factor = factor or latent_factor(data.image_size)
    batch = min(batch_size, len(data))
    if steps is None:
        steps = max(MIN_STEPS, min(MAX_STEPS, round(PIXEL_BUDGET / (batch * data.image_size**2))))
    streams = seed_sequence(seed, "codec").spawn(3)
    model = _new_autoencoder(data.channels, data.image_size, factor, base_channels, torch_seed(streams[0])).to(device)
    shape = (LATENT_CHANNELS, data.image_size // factor, data.image_size // factor)

    def draw(indices: np.ndarray[Any, Any], noise: torch.Generator) -> tuple[Tensor, Tensor]:
        return _images(data, indices, device), torch.randn(len(indices), *shape, generator=noise).to(device)

    rate = LEARNING_RATE * 16 / base_channels
    recipe = FitRecipe(steps, batch, rate, 1e-4, accumulate=accumulate, precision=precision)
    _, losses, speed = train(
        "codec",
        model.train(),
        recipe,
        len(data),
        streams[1:],
        draw,
        partial(_loss, model),
        journal=journal,
        progress=progress,
    )
    psnr = _finish(model, data, device)
    model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
    return {
        "factor": factor,
        "steps": steps,
        "batch_size": batch,
        "accumulate": accumulate,
        "base_channels": base_channels,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": float(np.mean(losses[-max(1, steps // 10) :])),
        "psnr": psnr,
        "images_per_second": round(speed, 1),
    }


def latent_factor(side: int) -> int:
    """Give the largest of 8, 4, 2 and 1 that divides an image's side and leaves at least 4."""
    return next(factor for factor in (8, 4, 2, 1) if factor == 1 or (side % factor == 0 and side // factor >= 4))


def _new_autoencoder(channels: int, side: int, factor: int, base_channels: int, seed: int) -> nn.Module:
    diffusers = need("diffusers", "the codec that is fitted")

    levels = factor.bit_length()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = diffusers.AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(base_channels * min(2**level, 2) for level in range(levels)),
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=8,
            sample_size=side,
            force_upcast=False,
            mid_block_add_attention=False,
        )
    return model


def _loss(model: Any, images: Tensor, drawn: Tensor) -> Tensor:
    """Of images and the noise of their posteriors, in float32 whatever the model computes in."""
    posterior = model.encode(images).latent_dist
    error = model.decode(posterior.mean + posterior.std * drawn).sample.float() - images
    loss: Tensor = error.abs().mean() + error.square().mean() + KL_WEIGHT * posterior.kl().float().mean()
    return loss


@torch.no_grad()
def _finish(model: Any, data: ImageData, device: torch.device | str) -> float:
    """Put the latents' mean into the weights and their scale into the configuration; PSNR in dB of images spread over
    the data.
    """
    model.eval()
    indices = np.unique(np.linspace(0, len(data) - 1, min(len(data), 1024)).astype(np.int64))
    latents, squares, limit = [], 0.0, BatchSize(64)
    for part in np.array_split(indices, math.ceil(len(indices) / 64)):
        for mean, square in limit.parts(partial(_seen, model, data, device, part), len(part)):
            latents.append(mean)
            squares += square
    pixels = len(indices) * data.channels * data.image_size**2
    z = torch.cat(latents)
    mean = z.mean((0, 2, 3))
    model.quant_conv.bias[: len(mean)] -= mean.float()
    model.post_quant_conv.bias += (model.post_quant_conv.weight[:, :, 0, 0].double() @ mean).float()
    std = float((z - mean.reshape(1, -1, 1, 1)).square().mean().sqrt())
    model.register_to_config(scaling_factor=1 / max(std, 1e-6))
    return -10 * math.log10(max(squares / pixels, 1e-12))


def _seen(
    model: Any, data: ImageData, device: torch.device | str, indices: np.ndarray[Any, Any], some: slice
) -> tuple[Tensor, float]:
    """Latents of some images, and the sum of squares of what is wrong in their reconstructions in [0, 1]."""
    images = _images(data, indices[some], device)
    mean = model.encode(images).latent_dist.mean
    error = (model.decode(mean).sample.clamp(-1, 1) - images) / 2
    return mean.double(), float(error.double().square().sum())


def _images(data: ImageData, indices: np.ndarray[Any, Any], device: torch.device | str) -> Tensor:
    """Images in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(data.images(indices))).to(device).float() / 127.5 - 1
