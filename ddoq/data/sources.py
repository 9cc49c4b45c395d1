"""Reads images from where they are: one class per kind of input, all with the same few methods.

A source knows its labels, class names and fingerprint, and gives single images; what to do with them is images.py's
part. A fingerprint is a hash of the content; that of a class folder costs one read of all its files.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddoq.data.classes import Labels, check_lengths, own_names, resolve_labels
from ddoq.data.folders import class_folders, ddoq_rows
from ddoq.data.images import Array, as_array, check_range, is_grey, naming, to_pixels, to_uint8
from ddoq.storage.files import sha256_file
from ddoq.storage.image_folder import METADATA, class_names_of
from ddoq.storage.values import digest


class Source:
    """Images with labels. Subclasses give `image`, `where` and `sizes`, and set the first three attributes.

    `renaming` is what a user can do to give the classes other names.
    """

    labels: Labels
    class_names: tuple[str, ...]
    fingerprint: str
    renaming = "name the classes of arrays with class_names (--class-names)"

    def image(self, index: int) -> Image.Image | Array:
        """One image, not yet converted; errors are named by the caller."""
        raise NotImplementedError

    def where(self, index: int) -> str:
        """What to call an image in a message."""
        return f"image {index} (class {self.class_names[self.labels[index]]!r})"

    def sizes(self) -> Iterable[tuple[int, int]]:
        """Width and height of the images; one pair is enough if all are the same."""
        raise NotImplementedError

    def pixels(self, indices: Sequence[int], size: int, channels: int) -> Array:
        """uint8 (b, channels, size, size)."""
        batch = np.empty((len(indices), channels, size, size), np.uint8)
        for row, index in zip(batch, indices, strict=True):
            with naming(self.where(index)):
                row[:] = to_pixels(self.image(index), size, channels)
        return batch

    def grey(self) -> bool:
        """Whether no image has colour; stops at the first that has."""
        for index in range(len(self.labels)):
            with naming(self.where(index)):
                if not is_grey(self.image(index)):
                    return False
        return True


class FolderSource(Source):
    """A folder of class folders, or an image folder that ddoq wrote."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is not a folder: give the folder that holds a folder per class")
        rows = ddoq_rows(root)
        if rows is not None:
            self.paths = [path for path, _ in rows]
            self.class_names = class_names_of(root / METADATA, [row for _, row in rows])
            self.labels = np.array([row["label"] for _, row in rows], dtype=np.int64)
            self.renaming = f"change class_name in {METADATA} of a copy of {root}"
        else:
            self.class_names, self.paths, self.labels = class_folders(root)
            self.renaming = f"rename the class folders of {root}"
        with ThreadPoolExecutor(8) as pool:  # reads that wait for the disk side by side
            hashes = list(pool.map(_size_and_hash, self.paths))
        names = [path.relative_to(root).as_posix() for path in self.paths]
        self.fingerprint = digest([names, hashes, self.class_names, self.labels])

    def image(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self.paths[index].read_bytes()))

    def where(self, index: int) -> str:
        return str(self.paths[index])

    def sizes(self) -> Iterator[tuple[int, int]]:
        for path in self.paths:
            with naming(str(path)), Image.open(path) as image:
                yield image.size


class ArraySource(Source):
    """An array of images with labels."""

    def __init__(self, array: Any, labels: Any, class_names: Sequence[str] | None) -> None:
        self.array = _channels_last(array if isinstance(array, np.ndarray) else _stacked(array))
        check_lengths(len(self.array), labels)
        self.labels, self.class_names = resolve_labels(labels, class_names)
        checksum = hashlib.sha256(f"{self.array.dtype.str} {self.array.shape}".encode())
        for start in range(0, len(self.array), 1024):
            part = np.ascontiguousarray(self.array[start : start + 1024])
            if part.dtype.kind == "f" and not (part.min() >= 0 and part.max() <= 1):
                for i, image in enumerate(part, start):
                    with naming(self.where(i)):
                        check_range(image)
            checksum.update(part.data)
        self.fingerprint = digest([checksum.hexdigest(), self.labels, self.class_names])

    def image(self, index: int) -> Array:
        return to_uint8(self.array[index])

    def sizes(self) -> list[tuple[int, int]]:
        return [(self.array.shape[2], self.array.shape[1])]

    def pixels(self, indices: Sequence[int], size: int, channels: int) -> Array:
        n_channels = 1 if self.array.ndim == 3 else self.array.shape[3]
        if self.array.shape[1:3] != (size, size) or n_channels != channels:
            return super().pixels(indices, size, channels)
        batch = to_uint8(self.array[np.asarray(indices)])
        return batch.reshape(-1, 1, size, size) if channels == 1 else np.ascontiguousarray(batch.transpose(0, 3, 1, 2))


class ListSource(Source):
    """A list of PIL images with labels."""

    def __init__(self, images: Sequence[Image.Image], labels: Any, class_names: Sequence[str] | None) -> None:
        self.items = images
        check_lengths(len(images), labels)
        self.labels, self.class_names = resolve_labels(labels, class_names)
        checksum = hashlib.sha256()
        for index, image in enumerate(images):
            with naming(self.where(index)):
                if not isinstance(image, Image.Image):
                    raise TypeError(f"images must be PIL images all or none, this is a {type(image).__name__}")
                _hash_image(checksum, image)
        self.fingerprint = digest([checksum.hexdigest(), self.labels, self.class_names])

    def image(self, index: int) -> Image.Image:
        return self.items[index]

    def sizes(self) -> list[tuple[int, int]]:
        return [image.size for image in self.items]


class DatasetSource(Source):
    """A torch Dataset, or anything with a length and items (image, label). Every item is read once to find labels,
    sizes and content.
    """

    def __init__(self, dataset: Any, class_names: Sequence[str] | None) -> None:
        self.dataset = dataset
        dataset_names = getattr(
            dataset, "classes", getattr(dataset, "class_names", None)
        )  # torchvision's name for it, ours
        names = own_names(dataset_names, class_names) if dataset_names is not None else class_names
        if dataset_names is not None:
            self.renaming = "change the data set's own classes or class_names"
        labels: list[Any] = []
        self._sizes: list[tuple[int, int]] = []
        digests = []
        for index in range(len(dataset)):
            with naming(f"item {index} of the data set"):
                image, label = self._item(index)
                checksum = hashlib.sha256()
                self._sizes.append(_hash_image(checksum, image))
            labels.append(label)
            digests.append(checksum.hexdigest())
        self.labels, self.class_names = resolve_labels(labels, names)
        self._refuse_random(digests)
        self.fingerprint = digest([digests, self.labels, self.class_names])

    def image(self, index: int) -> Image.Image | Array:
        return self._item(index)[0]

    def sizes(self) -> list[tuple[int, int]]:
        return self._sizes

    def _item(self, index: int) -> tuple[Image.Image | Array, Any]:
        item = self.dataset[index]
        if not isinstance(item, tuple | list) or len(item) < 2:
            raise TypeError(f"an item must be (image, label), got {type(item).__name__}")
        image, label = item[0], item[1]
        if not isinstance(image, Image.Image):
            image = as_array(image, channels_first=not isinstance(image, np.ndarray))
        return image, label.item() if hasattr(label, "item") else label

    def _refuse_random(self, digests: list[str]) -> None:
        """A random transform would give other images at every pass, and no run could be repeated."""
        for index in range(min(8, len(digests))):
            checksum = hashlib.sha256()
            _hash_image(checksum, self.image(index))
            if checksum.hexdigest() != digests[index]:
                raise ValueError(f"item {index} of the data set is another image each time: take out random transforms")


class HuggingFaceSource(Source):
    """A `datasets.Dataset` with one Image and one ClassLabel column."""

    def __init__(self, dataset: Any) -> None:
        import datasets

        image_column = _one_column(dataset, datasets.Image, "Image")
        label_column = _one_column(dataset, datasets.ClassLabel, "ClassLabel")
        if dataset.format["type"] == "custom":
            raise ValueError("the data set has a set_transform, which may be random: remove it, or use map instead")
        names = dataset.features[label_column].names
        self.column = image_column
        self.renaming = f"rename them by dataset.cast_column({label_column!r}, datasets.ClassLabel(names=[...]))"
        rows = dataset.with_format(None)
        self.labels, self.class_names = resolve_labels(list(rows[label_column]), names, _only_the_present(label_column))
        self.rows = rows.select_columns(image_column).cast_column(image_column, datasets.Image(decode=False))
        checksum = hashlib.sha256()
        for index in range(len(self.labels)):
            data = self._bytes(index)
            checksum.update(len(data).to_bytes(8, "little"))
            checksum.update(data)
        self.fingerprint = digest([checksum.hexdigest(), self.labels, self.class_names])

    def image(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self._bytes(index)))

    def sizes(self) -> Iterator[tuple[int, int]]:
        for index in range(len(self.labels)):
            with naming(self.where(index)):
                yield self.image(index).size

    def where(self, index: int) -> str:
        path = self.rows[index][self.column]["path"]
        return f"{super().where(index)}, file {path}" if path else super().where(index)

    def _bytes(self, index: int) -> bytes:
        cell = self.rows[index][self.column]
        if cell is None:
            raise ValueError(f"{super().where(index)} is missing (None)")
        return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()


def _size_and_hash(path: Path) -> tuple[int, str]:
    return path.stat().st_size, sha256_file(path)


def _stacked(images: Any) -> Array:
    """One array of a tensor, or of a list of arrays of one shape; the first with another shape is named."""
    if not isinstance(images, list | tuple):
        return np.asarray(images)
    arrays: list[Array] = []
    for index, image in enumerate(images):
        with naming(f"image {index}"):
            arrays.append(np.asarray(image))
        if arrays[index].shape != arrays[0].shape:
            raise ValueError(
                f"image {index} has the shape {arrays[index].shape}, image 0 {arrays[0].shape}: images of several "
                "shapes must be PIL images, or (image, label) items in a list"
            )
    return np.asarray(arrays)


def _channels_last(array: Array) -> Array:
    """(n, h, w) or (n, h, w, c), of uint8, bool or floats, whichever of the usual layouts comes in."""
    if array.dtype != np.uint8 and array.dtype != np.bool_ and array.dtype.kind != "f":
        raise TypeError(f"images must be uint8, or floats in [0, 1], not {array.dtype}: convert them first")
    if array.ndim == 4:
        first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3, 4)
        if first and last:
            raise ValueError(
                f"images of shape {array.shape} may be (n, h, w, c) or (n, c, h, w): pad or crop to make it plain"
            )
        if first:
            array = array.transpose(0, 2, 3, 1)
        elif not last:
            raise ValueError(f"images of shape {array.shape}: one axis must be the 1, 3 or 4 channels")
        if array.shape[3] == 1:
            array = array[..., 0]
    if array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise ValueError(f"images must be (n, h, w), (n, h, w, c) or (n, c, h, w), got the shape {array.shape}")
    return array


def _hash_image(checksum: Any, image: Image.Image | Array) -> tuple[int, int]:
    """Add an image's content to a checksum; its width and height."""
    if isinstance(image, Image.Image):
        checksum.update(f"{image.mode} {image.size} {image.getpalette()} {image.info.get('transparency')}".encode())
        checksum.update(image.tobytes())
        return image.size
    checksum.update(f"{image.shape}".encode())
    checksum.update(np.ascontiguousarray(image).data)
    return image.shape[1], image.shape[0]


def _only_the_present(column: str) -> str:
    """How to take classes without images out of a ClassLabel column."""
    names = f"dataset.features[{column!r}].int2str(dataset[{column!r}][:])"
    return (
        f"add images, or leave out such classes by dataset.add_column('present', {names})"
        f".remove_columns({column!r}).class_encode_column('present')"
    )


def _one_column(dataset: Any, kind: type, name: str) -> str:
    columns = [column for column, feature in dataset.features.items() if isinstance(feature, kind)]
    if len(columns) != 1:
        hint = " (class_encode_column makes one)" if name == "ClassLabel" else ""
        raise ValueError(
            f"the data set must have one {name} column{hint}, it has {columns} among {dataset.column_names}"
        )
    return str(columns[0])
