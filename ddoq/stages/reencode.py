"""Images are encoded again, for weights after decoding: the masses of the cells of their own latents.

Of all weights on given points the masses of their Voronoi cells make W2 to the data least (the talk's proposition;
Graf and Luschgy, Foundations of Quantization, 2000, lemma 3.4). A point's own mass is that of the point's cell, and
decoding and diffusion have moved the point: here the images are encoded again, and each class's real latents are
counted in the cells of these latents.

A latent in whose cell no real latent lies gets the mass 0: its image is left out of the loss, as the optimum asks. Of
equal latents the first gets the mass.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ddoq.machine.memory import BatchSize
from ddoq.machine.streams import seed_sequence
from ddoq.models.codecs.codec import Codec
from ddoq.models.codecs.encoding import check_shapes, encode_batch
from ddoq.quantization.assign import cells
from ddoq.stages.latents import read_latents
from ddoq.storage.files import RunError
from ddoq.storage.run import Run
from ddoq.storage.tensors import read_arrays, write_tensors

Floats = NDArray[np.float64]


class ImageRows(Protocol):
    """An array of images (M, c, h, w), or what gives some rows of one."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Reencoded:
    """Latents of the images, float16 (M, *latent_shape) as those of the data are kept; real latents in each cell, int64
    (M,); mean squared distance of a class's real latents to the nearest, (C,).
    """

    latents: NDArray[np.float16]
    counts: NDArray[np.int64]
    distortion: NDArray[np.float64]


def write_reencoded(path: Path, images: Reencoded) -> None:
    """Write latents, counts and distortion as tensors of these names."""
    write_tensors(path, {"latents": images.latents, "counts": images.counts, "distortion": images.distortion})


def read_reencoded(path: Path) -> Reencoded:
    """Read such a file; RunError, naming it, if it is missing or damaged."""
    sealed = read_arrays(path)
    if sealed is None:
        raise RunError(f"{path} is missing: run again to remake it")
    return Reencoded(**sealed[0])


def reencode(
    run: Run,
    codec: Codec,
    images: ImageRows,
    class_offsets: NDArray[np.int64],
    *,
    seed: int = 0,
    limit: BatchSize | None = None,
    device: torch.device | str = "cpu",
) -> Reencoded:
    """Encode images and count each class's real latents in the cells of theirs.

    Parameters
    ----------
    run
        With the stage encode done, by this codec.
    images
        uint8 (M, c, h, w), class by class; taken by batches.
    class_offsets
        (C + 1,): class c has the images class_offsets[c] to class_offsets[c + 1].
    seed
        Of a codec that samples its posterior: each image has its own stream, by position.
    limit
        Images per call of the codec; part of the result, as in `encode`. None: 64.

    Raises
    ------
    ValueError
        A latent has another shape than the data's, is NaN, infinite or beyond float16; names class and position.
    """
    shape = tuple(run.info("encode")["latent_shape"])
    latents = np.empty((len(images), *shape), np.float16)
    limit = limit or BatchSize(64)
    for begin in range(0, len(images), limit.asked):
        rows = np.arange(begin, min(begin + limit.asked, len(images)))

        def stream_of(row: int, begin: int = begin) -> np.random.SeedSequence:
            return seed_sequence(seed, "reencode", begin + row)

        def name_of(row: int, begin: int = begin) -> str:
            c = int(np.searchsorted(class_offsets, begin + row, side="right")) - 1
            return f"the synthesised image {begin + row - class_offsets[c]} of class {run.class_names[c]!r}"

        encoded = encode_batch(codec, images[rows], stream_of, device, limit, name_of)
        check_shapes(shape, [encoded])
        latents[rows] = encoded
    counts = np.zeros(len(images), np.int64)
    distortion = np.zeros(len(class_offsets) - 1)
    for c, (begin, end) in enumerate(pairwise(class_offsets)):
        real = read_latents(run, c)[0].astype(np.float32)
        voronoi = cells(real, latents[begin:end].reshape(end - begin, -1).astype(np.float32))
        counts[begin:end], distortion[c] = voronoi.counts, voronoi.distortion
    return Reencoded(latents, counts, distortion)
