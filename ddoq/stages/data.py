"""The stage "data" records what later stages and trainings ask of the full data set: its sizes, the mean of its pixels.

It has no files. A run that encodes gets it from `encode`, which reads every image anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ddoq.data.image_data import ImageData
from ddoq.storage.run import Run

BATCH = 64  # images read at a time


@dataclass(frozen=True)
class Sums:
    """Sums of pixels and of their squares by channel, uint8 values: in whole numbers they are exact in any order."""

    values: Sequence[int]
    squares: Sequence[int]

    @classmethod
    def of(cls, images: NDArray[np.uint8]) -> Sums:
        """Those of some images (b, c, h, w)."""
        values = images.sum(axis=(0, 2, 3), dtype=np.int64)
        return cls(values.tolist(), np.square(images, dtype=np.int64).sum(axis=(0, 2, 3)).tolist())

    @classmethod
    def total(cls, parts: Iterable[Sums]) -> Sums:
        """Those of all images of some parts.

        >>> Sums.total([Sums([1], [1]), Sums([5], [13])])
        Sums(values=(6,), squares=(14,))
        """
        columns = [(part.values, part.squares) for part in parts]
        values, squares = zip(*columns, strict=True)
        return cls(tuple(map(sum, zip(*values, strict=True))), tuple(map(sum, zip(*squares, strict=True))))


def record_data(run: Run, data: ImageData, sums: Sequence[Sums] | None = None, *, progress: bool = True) -> None:
    """Record the stage "data" unless it is done.

    Its facts are the number of images `n`, `image_size`, `channels`, `fingerprint`, the number of images of each class
    `class_sizes`, and mean and standard deviation per channel of the pixels in [0, 1], `mean` and `std`.

    Parameters
    ----------
    run
        Opened by `Run.locked`.
    sums
        Those of parts that make up the data set, from whoever has read all images. None: the images are read here.
    progress
        Show a progress bar on stderr while they are read.

    Examples
    --------
    >>> import tempfile
    >>> from ddoq.data.image_data import open_data
    >>> images = np.zeros((4, 8, 8), np.uint8)
    >>> images[:2] = 255
    >>> data = open_data((images, ["cat", "dog", "dog", "dog"]))
    >>> with Run.locked(tempfile.mkdtemp(), {}, data.class_names) as run:
    ...     record_data(run, data, progress=False)
    >>> run.info("data")["mean"], run.info("data")["std"], run.info("data")["class_sizes"]
    ([0.5], [0.5], [1, 3])
    """
    facts = {"fingerprint": data.fingerprint, "image_size": data.image_size, "channels": data.channels}
    with run.stage("data", facts) as stage:
        if stage.done:
            return
        total = Sums.total(_read(data, progress) if sums is None else sums)
        stage.info = {"n": len(data), **facts, **_statistics(data, total)}


def _read(data: ImageData, progress: bool) -> Iterable[Sums]:
    with tqdm(total=len(data), desc="statistics", unit="image", disable=not progress) as bar:
        for begin in range(0, len(data), BATCH):
            images = data.images(range(begin, min(begin + BATCH, len(data))))
            yield Sums.of(images)
            bar.update(len(images))


def _statistics(data: ImageData, total: Sums) -> dict[str, Any]:
    count = len(data) * data.image_size**2
    mean = [value / count for value in total.values]
    squares = [value / count for value in total.squares]
    return {
        "class_sizes": np.bincount(data.labels, minlength=len(data.class_names)),
        "mean": [value / 255 for value in mean],
        "std": [max(square - value**2, 0.0) ** 0.5 / 255 for square, value in zip(squares, mean, strict=True)],
    }
