"""Finished batches of images are kept on disk: a killed run goes on from there, and nothing holds all images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ddoq.data.images import to_pixels
from ddoq.machine.memory import BatchSize, halved
from ddoq.storage.tensors import read_facts, write_tensors

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class StoredImages:
    """Images uint8 (c, h, w) in files of equally many, read when they are asked for.

    Attributes
    ----------
    paths
        The files, each with the tensor "images"; all have `batch_size` images but the last.
    batch_size, count
        Images in a file, and in all.
    size
        Side in pixels that they are resized to when they are read; None: as they are.
    facts
        For run.json: what batches were halved to, if memory ran out.
    """

    paths: tuple[Path, ...]
    batch_size: int
    count: int
    size: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Images]:
        for begin in range(0, self.count, self.batch_size):
            yield from self[np.arange(begin, min(begin + self.batch_size, self.count))]

    def __getitem__(self, rows: NDArray[np.int64]) -> Images:
        """The images (b, c, h, w) of some rows; those of one file are read together."""
        files = rows // self.batch_size
        cuts = [0, *(np.flatnonzero(np.diff(files)) + 1).tolist(), len(rows)]
        parts = []
        for begin, end in pairwise(cuts):
            with safetensors.safe_open(self.paths[files[begin]], "numpy") as file:
                images = file.get_tensor("images")
            parts.append(images[rows[begin:end] - files[begin] * self.batch_size])
        return resized(np.concatenate(parts), self.size)

    def at_size(self, size: int | None) -> StoredImages:
        """The same images at another side."""
        return replace(self, size=size)


def resized(images: Images, size: int | None) -> Images:
    """Images (b, c, h, w) at another side, as `ddoq.data.images` resizes those of a data set; None: as they are."""
    if size is None or size == images.shape[-1]:
        return images
    return np.stack([to_pixels(image.transpose(1, 2, 0), size, len(image)) for image in images])


def make_batches(
    make: Callable[[slice], Images], count: int, batch_size: int, work: Path, key: str, what: str, progress: bool
) -> StoredImages:
    """Make `count` images by batches and keep each in `work` when it is finished.

    A batch that is there is taken if it was made from the same inputs, whose hash is `key`, and is whole. A batch that
    memory is too small for is made in halves; the next begins whole, so that no batch depends on others. `what` stands
    at the progress bar.
    """
    work.mkdir(parents=True, exist_ok=True)
    paths, batches = [], []
    with tqdm(total=count, desc=what, unit="image", disable=not progress) as bar:
        for begin in range(0, count, batch_size):
            size = min(batch_size, count - begin)
            path = work / f"batch-{begin // batch_size:06d}.safetensors"
            facts = read_facts(path, key)
            if facts is None:
                limit = BatchSize(batch_size)
                with torch.no_grad():
                    images = np.concatenate(limit.parts(_after(begin, make), size))
                facts = limit.facts
                write_tensors(path, {"images": images}, key, facts)
                bar.update(size)
            else:
                bar.update(size)
                bar.initial = bar.n  # so that the rate is that of this process
            paths.append(path)
            batches.append(facts)
    return StoredImages(tuple(paths), batch_size, count, facts=halved(batches))


def remove_batches(work: Path) -> None:
    """Remove the kept batches of a finished synthesis."""
    shutil.rmtree(work, ignore_errors=True)
    with suppress(OSError):  # absent, or another synthesis has its batches there
        work.parent.rmdir()


def _after(begin: int, make: Callable[[slice], Images]) -> Callable[[slice], Images]:
    """`make` for slices counted from `begin`."""
    return lambda part: make(slice(begin + part.start, begin + part.stop))
