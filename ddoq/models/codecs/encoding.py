"""Images are encoded here a batch at a time, for the data set and for the images that a run has made alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddoq.machine.memory import BatchSize
from ddoq.machine.streams import torch_seed
from ddoq.models.codecs.codec import Codec

Latents = NDArray[np.float16]
Naming = Callable[[int], str]


@torch.inference_mode()
def encode_batch(
    codec: Codec,
    images: NDArray[np.uint8],
    stream_of: Callable[[int], np.random.SeedSequence],
    device: torch.device | str,
    limit: BatchSize,
    name_of: Naming,
) -> Latents:
    """Encode images and keep their latents as float16 (b, *latent_shape).

    Parameters
    ----------
    codec
        Its `encode` takes float32 (b, c, h, w) in [0, 1].
    images
        uint8 (b, c, h, w).
    stream_of
        The random stream of a row, for a codec that samples its posterior.
    limit
        Images per call of the codec, halved where memory runs out.
    name_of
        What to call a row in a message.

    Raises
    ------
    ValueError
        The codec gives no tensor with a row for each image, latents of two shapes, or one that is NaN, infinite or
        beyond float16; names the image.

    Examples
    --------
    >>> from ddoq.machine.streams import seed_sequence
    >>> from ddoq.models.codecs.identity import IdentityCodec
    >>> images = np.zeros((3, 1, 8, 8), np.uint8)
    >>> encode_batch(IdentityCodec(), images, lambda i: seed_sequence(0, "", i), "cpu", BatchSize(2), str).shape
    (3, 1, 8, 8)
    """
    tensor = torch.from_numpy(images)
    samples = getattr(codec, "posterior", "mean") == "sample"

    def make(part: slice) -> Latents:
        rows = range(part.start, part.stop)
        arguments = [[torch.Generator().manual_seed(torch_seed(stream_of(i))) for i in rows]] if samples else []
        encoded: Any = codec.encode(tensor[part].to(device).float() / 255, *arguments)
        return _checked(encoded, rows, name_of)

    parts = limit.parts(make, len(images))
    check_shapes(parts[0].shape[1:], parts)
    return np.concatenate(parts)


def check_shapes(expected: tuple[int, ...], parts: list[Latents]) -> None:
    """ValueError for latents (b, *latent_shape) of another shape than is expected."""
    for part in parts:
        if part.shape[1:] != expected:
            raise ValueError(f"the codec gave latents of two shapes: {expected} and {part.shape[1:]}")


def _checked(encoded: Any, rows: range, name_of: Naming) -> Latents:
    """The codec's answer as float16."""
    if not isinstance(encoded, torch.Tensor) or encoded.ndim < 2 or len(encoded) != len(rows):
        answer = tuple(encoded.shape) if isinstance(encoded, torch.Tensor) else type(encoded).__name__
        raise ValueError(f"the codec's encode must give a tensor ({len(rows)}, *latent_shape), got {answer}")
    half = encoded.to(torch.float16)
    bad = (~torch.isfinite(half)).flatten(1).any(1).nonzero()
    if len(bad):
        row = int(bad[0, 0])
        largest = float(encoded[row].abs().max())
        fault = f"reach {largest:.3g}, beyond float16 (65504)" if np.isfinite(largest) else "are NaN or infinite"
        raise ValueError(f"the latents of {name_of(rows[row])} {fault}: check the codec's scaling")
    return np.ascontiguousarray(half.cpu().numpy())
