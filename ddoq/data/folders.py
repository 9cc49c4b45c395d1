"""Finds the images of a folder of class folders, or of an image folder that ddoq wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ddoq.data.classes import Labels
from ddoq.data.images import image_extensions
from ddoq.storage.image_folder import METADATA, read_rows

OURS = (b'"class_name"', b'"weight"', b'"count"', b'"sha256"')  # columns that only ddoq's metadata has together

# names that the Hugging Face loader takes for splits, those to train on first
SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")


def class_folders(root: Path) -> tuple[tuple[str, ...], list[Path], Labels]:
    """Names, files and labels of a folder of class folders, all sorted by name."""
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(f"{root} has no class folders: give the folder that holds a folder of images per class")
    for name in names:
        if not name.isprintable() and any("\ud800" <= char <= "\udfff" for char in name):
            raise ValueError(f"class folder {os.fsencode(name)!r} of {root} has a name that is not UTF-8: rename it")
    _refuse_splits(root, names)
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        images_of_class = sorted(_image_files(root / name), key=lambda path: path.as_posix())
        if not images_of_class:
            hint = ": that is a ddoq run, give its images/ folder" if (root / "run.json").is_file() else ""
            raise ValueError(f"class folder {root / name} has no images{hint or ': remove it or add some'}")
        paths += images_of_class
        labels += [label] * len(images_of_class)
    return tuple(names), paths, np.array(labels, dtype=np.int64)


def ddoq_rows(root: Path) -> list[tuple[Path, dict[str, Any]]] | None:
    """Rows of the metadata.jsonl of an image folder that ddoq wrote; None for other folders."""
    try:
        with open(root / METADATA, "rb") as file:
            line = file.readline()
    except FileNotFoundError:
        return None
    ours = sum(column in line for column in OURS) >= 3  # not all, so that damage to one does not hide that it is ours
    return list(read_rows(root / METADATA)) if ours else None


def _refuse_splits(root: Path, names: list[str]) -> None:
    """ValueError if all folders have names of splits and one holds folders alone: its classes would be mixed."""
    if not all(name.lower() in SPLITS for name in names):
        return
    inner = {name: _inner_folders(root / name) for name in names}
    parents = sorted((name for name in names if inner[name]), key=lambda name: SPLITS.index(name.lower()))
    if parents:
        classes = ", ".join(map(repr, inner[parents[0]][:3])) + (", ..." if len(inner[parents[0]]) > 3 else "")
        raise ValueError(
            f"{root} holds splits ({', '.join(names)}), not classes, which are within {parents[0]!r} ({classes}): give "
            f"the folder of one split; did you mean {root / parents[0]}?"
        )


def _inner_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder that holds no image itself, none if it does; hidden ones do not count."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    folders = sorted(entry.name for entry in entries if entry.is_dir())
    images = any(entry.suffix.lower() in image_extensions() and not entry.is_dir() for entry in entries)
    return [] if images else folders


def _image_files(folder: Path) -> Iterator[Path]:
    """Image files below a class folder by their extension; hidden ones do not count, links are followed."""
    seen = set()
    for folder_path, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(folder_path))
        inner = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in inner if os.path.realpath(os.path.join(folder_path, name)) not in seen]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in image_extensions():
                yield Path(folder_path, name)
