"""Stage "data": statistics of the full data set, which every loaded run needs, whatever method made its images."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from ddoq.data.image_data import ImageData
from ddoq.storage.run import Run

READ = 64  # images read at once


def record_data(run: Run, data: ImageData) -> None:
    """Read every image once and record number, class sizes, and mean and deviation of the pixels; skipped where done.

    Mean and standard deviation are lists with a value per channel, of pixels in [0, 1] at the data's image size.
    """
    inputs = {"data": data.fingerprint, "image_size": data.image_size, "channels": data.channels}
    if run.done("data", inputs):
        return
    start = time.monotonic()
    total = np.zeros(data.channels, np.int64)  # sums over pixels are exact in integers
    squares = np.zeros(data.channels, np.int64)
    for begin in range(0, len(data), READ):
        images = data.images(range(begin, min(begin + READ, len(data))))
        total += images.sum(axis=(0, 2, 3), dtype=np.int64)
        squares += np.square(images, dtype=np.int64).sum(axis=(0, 2, 3))
    mean, std = mean_and_std(total.tolist(), squares.tolist(), len(data) * data.image_size**2)
    sizes = np.bincount(data.labels, minlength=len(data.class_names))
    info = {"n": len(data), "mean": mean, "std": std, "class_sizes": sizes}
    run.record("data", inputs, [], seconds=time.monotonic() - start, info=info)


def mean_and_std(total: Sequence[int], squares: Sequence[int], count: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation in [0, 1] of each channel, from sums over `count` pixels of values in 0..255.

    Examples
    --------
    >>> mean_and_std([255], [255 * 255], 2)
    ([0.5], [0.5])
    """
    mean = [value / count for value in total]
    std = [max(square / count - value**2, 0.0) ** 0.5 / 255 for square, value in zip(squares, mean, strict=True)]
    return [value / 255 for value in mean], std
