"""Distilled images lie in an image folder that everyone can read.

    0003_dog/00007.png   number and name of the class, number within the class; sorted folders are the classes in order
    metadata.jsonl       a row per image: file_name, label, class_name, weight, count, sha256, what the synthesis adds
    README.md            a Hugging Face dataset card whose features carry the class names

`datasets`, torchvision and timm read it as it is. The names of the classes are those of metadata.jsonl: a folder's
name is only a safe form.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from ddoq.storage.dataset_card import dataset_card
from ddoq.storage.files import RunError, inside, new_folder
from ddoq.storage.values import json_line

METADATA, CARD = "metadata.jsonl", "README.md"
_TYPES = {"file_name": str, "label": int, "class_name": str, "weight": float, "count": int, "sha256": str}


def write_images(
    folder: Path,
    images: Iterable[np.ndarray[Any, Any]],
    labels: np.ndarray[Any, Any],
    weights: np.ndarray[Any, Any],
    counts: np.ndarray[Any, Any],
    class_names: Sequence[str],
    extra: Sequence[dict[str, Any]],
    made_by: str = "ddoq",
) -> list[Path]:
    """Write images as class folders of PNG files with metadata.jsonl and a dataset card: whole, or not at all.

    Parameters
    ----------
    folder
        Made, or replaced if it is there.
    images
        K of uint8 (c, h, w), c 1 or 3, all of one shape; they are written one after the other.
    labels, weights, counts
        (K,): class index; what the loss is multiplied by; images of the full set in the point's cell.
    class_names
        By label.
    extra
        K dictionaries of further columns, such as the index of the real image that was taken; the same keys in each.
    made_by
        What the card says that the images are made by.

    Returns
    -------
    list of Path
        metadata.jsonl and README.md, the outputs to record: metadata.jsonl holds the sha256 of every image.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "images"
    >>> images = np.zeros((2, 1, 8, 8), np.uint8)
    >>> _ = write_images(folder, images, np.array([0, 1]), np.ones(2), np.array([3, 4]), ["cat", "dog"], [{}, {}])
    >>> sorted(path.name for path in folder.iterdir())
    ['0000_cat', '0001_dog', 'README.md', 'metadata.jsonl']
    """
    for name, values in (("weights", weights), ("counts", counts), ("extra", extra)):
        if len(values) != len(labels):
            raise ValueError(f"{len(labels)} images but {len(values)} {name}")
    folders = [folder_name(label, name, len(class_names)) for label, name in enumerate(class_names)]
    within = [0] * len(class_names)
    with new_folder(folder) as work:
        rows = []
        for i, pixels in enumerate(_checked(images, len(labels))):
            label = int(labels[i])
            file_name = f"{folders[label]}/{within[label]:05d}.png"
            within[label] += 1
            data = png(pixels)
            path = work / file_name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            row = {
                "file_name": file_name,
                "label": label,
                "class_name": class_names[label],
                "weight": float(weights[i]),
            }
            rows.append({**row, "count": int(counts[i]), "sha256": _sha256(data), **extra[i]})
        lines = [json_line(row) for row in rows]
        (work / METADATA).write_bytes(("\n".join(lines) + "\n").encode())
        (work / CARD).write_bytes(dataset_card(class_names, rows, extra[0] if len(extra) else {}, made_by).encode())
    return [folder / METADATA, folder / CARD]


def _checked(images: Iterable[np.ndarray[Any, Any]], count: int) -> Iterator[np.ndarray[Any, Any]]:
    """The images; ValueError where they are not `count` of one shape and kind that a PNG file can have."""
    number, shape = 0, None
    for number, pixels in enumerate(images, 1):
        shape = shape or pixels.shape
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or len(pixels) not in (1, 3) or pixels.shape != shape:
            raise ValueError(f"images must be uint8 (1 or 3, h, w) of one size, got {pixels.dtype} {pixels.shape}")
        if number > count:
            break
        yield pixels
    if number != count:
        raise ValueError(f"{'more' if number > count else number} images but {count} labels")


def read_rows(metadata: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Path of the image and row of each line of a metadata.jsonl; RunError naming the line where it is not one that
    ddoq writes.
    """
    with open(metadata, encoding="utf-8") as file:
        for number, line in enumerate(_lines(file, metadata), 1):
            try:
                row = json.loads(line)
                good = isinstance(row, dict) and all(
                    isinstance(row.get(key), kind) and not isinstance(row[key], bool) for key, kind in _TYPES.items()
                )
            except (ValueError, RecursionError):
                good = False
            if not good:
                raise RunError(
                    f"{metadata}, line {number}: not a row with {', '.join(_TYPES)}; the file is damaged or not ddoq's"
                )
            yield inside(metadata.parent, row["file_name"], metadata), row


def class_names_of(metadata: Path, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Names by label of the rows of a metadata.jsonl; RunError if a label has two names or none."""
    names: dict[int, str] = {}
    for row in rows:
        if names.setdefault(row["label"], row["class_name"]) != row["class_name"]:
            raise RunError(
                f"{metadata}: label {row['label']} is both {names[row['label']]!r} and {row['class_name']!r}"
            )
    if sorted(names) != list(range(len(names))) or len(set(names.values())) != len(names):
        raise RunError(
            f"{metadata}: labels {sorted(names)} with names {sorted(names.values())} are not classes 0 to C - 1"
        )
    return tuple(names[label] for label in range(len(names)))


# what the Hugging Face loader takes for the name of a split when it stands alone between separators
_SPLIT = re.compile(
    r"(?<=[-._ 0-9])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?=[-._ 0-9]|$)"
)


def folder_name(label: int, class_name: str, n_classes: int) -> str:
    """Folder of a class: its number, padded so that sorted order is class order, and a safe form of its name.

    Path separators, colons, control characters and leading dots become "_"; "~" keeps a class called "train" from
    being taken for a split.

    Examples
    --------
    >>> folder_name(3, "dog", 10), folder_name(0, "AC/DC", 10), folder_name(90, "train", 100)
    ('0003_dog', '0000_AC_DC', '0090_train~')
    """
    safe = "".join("_" if char in "/\\:" or unicodedata.category(char) in ("Cc", "Cs") else char for char in class_name)
    safe = re.sub(r"^\.+", lambda dots: "_" * len(dots[0]), safe).encode()[:180].decode(errors="ignore")
    return _SPLIT.sub(r"\1~", f"{label:0{max(4, len(str(n_classes - 1)))}d}_{safe}")


def _lines(file: TextIO, metadata: Path) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError as error:
        raise RunError(f"{metadata} is damaged: it is not UTF-8 text ({error.reason})") from error


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """Give the PNG file of an image (1 or 3, h, w) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
