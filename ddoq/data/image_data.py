"""Opens a labelled image data set, whatever it comes as, at one size and number of channels.

Images are read by index, in batches of uint8.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddoq.data.classes import Labels, own_names
from ddoq.data.images import Array
from ddoq.data.sources import ArraySource, DatasetSource, FolderSource, HuggingFaceSource, ListSource, Source
from ddoq.machine.arguments import positive

LARGEST = 256  # pixels; the side when sizes differ and none is asked for


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """A labelled image data set whose images have one size and number of channels.

    Attributes
    ----------
    source
        Where the images come from.
    image_size
        Side in pixels.
    channels
        1 (grey) or 3 (RGB).
    class_names
        By label.
    labels
        int64 (n,).
    """

    source: Source
    image_size: int
    channels: int
    class_names: tuple[str, ...]
    labels: Labels

    @property
    def fingerprint(self) -> str:
        """Hash of the data set's content and labels, before any conversion.

        Of a class folder: of the names and bytes of its files, all read once for it when the folder is opened.
        """
        return self.source.fingerprint

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = f"{self.channels}x{self.image_size}x{self.image_size}"
        return f"ImageData({len(self)} images {shape}, {len(self.class_names)} classes)"

    def images(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> Array:
        """uint8 (b, channels, image_size, image_size) of some images; an unreadable one is named."""
        return self.source.pixels([int(index) for index in indices], self.image_size, self.channels)

    def renumbered(self, labels: Labels, class_names: tuple[str, ...]) -> ImageData:
        """The same images with other class numbers and names."""
        return replace(self, labels=labels, class_names=class_names)

    def where(self, index: int) -> str:
        """What to call an image in a message: its file, or its index and class."""
        return self.source.where(index)


def open_data(
    data: Any,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    class_names: Sequence[str] | None = None,
) -> ImageData:
    """Open a labelled image data set.

    Parameters
    ----------
    data
        - A folder of class folders. Images lie anywhere below their class folder; classes are sorted by name; hidden
        files and files without
          an image extension do not count; a folder of splits (train/, test/) is refused. An images/
          folder of a ddoq run gives its own class names and order. Every file is read once to open it.
        - (images, labels): images an array (n, h, w), (n, h, w, c) or (n, c, h, w), uint8, bool or floats in [0, 1],
        or a list of PIL images;
          labels integers or texts. Classes are the sorted labels, or `class_names`.
        - A torch Dataset, or any sequence, of (image, label): images PIL, tensors (c, h, w) or (h, w), or arrays (h,
        w, c). Names come from its
          `classes` or `class_names` (what `ddoq.load` returns has these), from the argument `class_names`, or are the
          sorted labels. Every item is read once to open it; random transforms are refused.
        - A `datasets.Dataset` with one Image and one ClassLabel column.
    image_size
        Side in pixels; every image's centred square is resized to it (bicubic, antialiased). Default: the images' own
        if all are squares of one size, else the median shorter side rounded down to a multiple of 16, at most 256.
    channels
        1 or 3. Default: 1 if no image has colour, else 3. Transparency is composited on white.
    class_names
        Names by label, for data that has none of its own.

    Raises
    ------
    ValueError, TypeError, OSError
        Names the class, index or file at fault. Files are decoded when their images are asked for.

    Examples
    --------
    >>> data = open_data((np.zeros((4, 8, 8), np.uint8), ["cat", "dog", "dog", "cat"]))
    >>> data, data.class_names, data.images([1, 2]).shape
    (ImageData(4 images 1x8x8, 2 classes), ('cat', 'dog'), (2, 1, 8, 8))
    """
    if image_size is not None:
        positive("image_size", image_size)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {channels!r}")
    if isinstance(data, ImageData):
        own_names(data.class_names, class_names)
        return replace(data, image_size=image_size or data.image_size, channels=channels or data.channels)
    source = _source(data, class_names)
    size = int(image_size) if image_size is not None else _common_size(source)
    channels = channels if channels is not None else 1 if source.grey() else 3
    return ImageData(source, size, channels, source.class_names, source.labels)


def _source(data: Any, class_names: Sequence[str] | None) -> Source:
    if isinstance(data, str | os.PathLike):
        folder = FolderSource(Path(data))
        own_names(folder.class_names, class_names)
        return folder
    library = sys.modules.get("datasets")
    if library is not None and isinstance(data, library.Dataset):
        source = HuggingFaceSource(data)
        own_names(source.class_names, class_names)
        return source
    if library is not None and isinstance(data, library.DatasetDict):
        raise TypeError(f"this is a dictionary of data sets: choose one of {sorted(data)}")
    if isinstance(data, tuple) and len(data) == 2:
        images, labels = data
        if isinstance(images, list | tuple) and len(images) == 2 and isinstance(images[1], int | str | np.integer):
            raise TypeError("a tuple of two is read as (images, labels): give (image, label) items in a list")
        if isinstance(images, list | tuple) and any(isinstance(image, Image.Image) for image in images):
            return ListSource(images, labels, class_names)
        return ArraySource(images, labels, class_names)
    if hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, np.ndarray | dict):
        return DatasetSource(data, class_names)
    raise TypeError(
        f"cannot read images from a {type(data).__name__}: give a folder of class folders, (images, labels), "
        "a torch Dataset with a length, or a datasets.Dataset"
    )


def _common_size(source: Source) -> int:
    sizes = list(source.sizes())
    if len(set(sizes)) == 1 and sizes[0][0] == sizes[0][1]:
        return sizes[0][0]
    side = int(np.median([min(size) for size in sizes]))
    return min(LARGEST, side // 16 * 16) or side
