"""Anybody's image folder gets W2-optimal weights: beside the images, whole or not at all, nothing of the folder lost.

metadata.jsonl             a row per image: file_name, label, class_name, weight, count, sha256, reencoded, and the
                           columns that the user's own file had
metadata.original.jsonl    the user's own file, if there was one
run.json                   a manifest, so that `ddoq.load` reads and verifies the folder
.ddoq/                     the data's latents until it is done: a stopped call resumes
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddoq.data.classes import matched_labels, numbers_in
from ddoq.data.folders import class_folders
from ddoq.data.image_data import ImageData, open_data
from ddoq.data.sources import FolderSource
from ddoq.data.weights import class_weights
from ddoq.machine.extras import need
from ddoq.models.codecs.codec import Codec, open_codec
from ddoq.models.fingerprint import fingerprint
from ddoq.stages.distances import Distance, Distances, class_distances
from ddoq.stages.encode import encode
from ddoq.stages.reencode import Floats, Reencoded, reencode
from ddoq.stages.user_metadata import UserMetadata, read_user_metadata
from ddoq.storage.files import RunError, sha256_file, write_atomic
from ddoq.storage.image_folder import METADATA
from ddoq.storage.manifest import MANIFEST, NoRunError
from ddoq.storage.run import Run
from ddoq.storage.values import digest, json_line, plain

GIVEN = "given"  # the set of a folder that is not a run
ORIGINAL = "original"  # the weights that it came with
WORK, WRITING = ".ddoq", "writing"  # the latents until the folder is done; in it, once metadata.jsonl is not the user's


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder, class by class.

    Attributes
    ----------
    data
        The opened folder, its classes in the order of the full data set's.
    order
        (M,): the number in `data` of each image.
    """

    data: ImageData
    order: NDArray[np.int64]

    @classmethod
    def of(cls, data: ImageData) -> FolderImages:
        """Those of an opened folder."""
        return cls(data, np.argsort(data.labels, kind="stable"))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Some of the images, uint8 (b, c, h, w)."""
        return self.data.images(self.order[rows])

    @property
    def class_offsets(self) -> NDArray[np.int64]:
        """(C + 1,): class c has the images class_offsets[c] to class_offsets[c + 1]."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.data.labels))]).astype(np.int64)

    def rows(self, root: Path) -> list[dict[str, Any]]:
        """Rows of metadata.jsonl, in class order, without weights."""
        assert isinstance(self.data.source, FolderSource)
        paths, names, rows = self.data.source.paths, self.data.class_names, []
        for i in self.order.tolist():
            label = int(self.data.labels[i])
            row = {"file_name": paths[i].relative_to(root).as_posix(), "label": label, "class_name": names[label]}
            rows.append({**row, "weight": 0.0, "count": 0, "sha256": sha256_file(paths[i])})
        return rows


def weigh_folder(
    root: Path,
    data: Any,
    codec: Any,
    *,
    by_index: bool,
    image_size: int | None,
    class_names: Sequence[str] | None,
    class_prior: str,
    device: torch.device,
    progress: bool,
) -> Distances:
    """The folder's part of `ddoq.weigh`, where the parameters are explained; `root` is an absolute path."""
    _refuse(root)
    opened = open_codec(codec, device=device)
    folder_data = open_data(root, image_size=image_size)
    _check_listed(root, folder_data)
    channels = getattr(opened, "channels", None)
    full = open_data(data, image_size=folder_data.image_size, channels=channels, class_names=class_names)
    folder_data, full = _matched(open_data(folder_data, channels=full.channels), full, by_index)
    images = FolderImages.of(folder_data)
    rows = images.rows(root)
    config = _configuration(folder_data, full, opened, rows, class_prior)
    table = _finished(root, config, folder_data.class_names)
    if table is not None:
        _clear_finished(root / WORK, config, folder_data.class_names)
        return table
    _check_work(root / WORK, config)
    need("ot", "ddoq.weigh of a folder")
    _user_metadata(root)  # whatever can be refused is, before hours of encoding
    with Run.locked(root / WORK, config, folder_data.class_names) as work:
        encode(work, full, opened, device=device, progress=progress)
        again = reencode(work, opened, images, images.class_offsets, device=device)
        user = _user_metadata(root)  # as they are now
        masses = _masses(again, user, rows)
        distances = class_distances(work, root.name, again.latents, images.class_offsets, masses, progress)
        weights = class_weights(again.counts, images.class_offsets, "reencoded", class_prior)
        for row, weight, count in zip(rows, weights.tolist(), again.counts.tolist(), strict=True):
            row.update(weight=weight, count=count, reencoded=count)
        _write(root, work, user, rows, distances)
        _clear(work)
    return _table(distances)


def _configuration(
    folder_data: ImageData, full: ImageData, codec: Codec, rows: Sequence[dict[str, Any]], class_prior: str
) -> dict[str, Any]:
    return {
        "synthesis": GIVEN,
        "weighting": "reencoded",
        "class_prior": class_prior,
        "given": {"image_size": folder_data.image_size, "channels": folder_data.channels},
        "data": full.fingerprint,
        "codec": fingerprint(codec),
        # in no order: the folder's own metadata may list them in another
        "images": digest(sorted((row["file_name"], row["sha256"], row["class_name"]) for row in rows)),
    }


def _masses(again: Reencoded, user: UserMetadata, rows: Sequence[dict[str, Any]]) -> dict[str, Floats]:
    """The weights whose distances are measured, by name."""
    masses, original = {"reencoded": again.counts.astype(np.float64)}, user.weights(rows)
    if original is not None:
        masses[ORIGINAL] = original
    return masses | {"uniform": np.ones(len(rows))}


def _refuse(root: Path) -> None:
    """RunError for folders that must not be written to."""
    real = root.resolve()
    for parent in list(real.parents)[:2]:
        stages: dict[str, Any] = {}
        with suppress(NoRunError):
            stages = Run.open(parent).manifest["stages"]
        name = (real / METADATA).relative_to(parent).as_posix()
        if any(name in stage["outputs"] for stage in stages.values()):
            raise RunError(f"{root} belongs to the run {parent}: weigh the run")
    for name in ("metadata.csv", "metadata.parquet"):
        if (root / name).exists():
            raise RunError(f"{root / name} would stand beside {METADATA}, and loaders read one alone: move it away")


def _check_listed(root: Path, folder_data: ImageData) -> None:
    """ValueError for an image in the class folders that metadata.jsonl leaves out, which would have no weight, and for
    a file name that metadata.jsonl cannot hold.
    """
    assert isinstance(folder_data.source, FolderSource)
    for path in folder_data.source.paths:
        if any("\ud800" <= char <= "\udfff" for char in str(path.relative_to(root))):
            raise ValueError(f"the image {os.fsencode(path)!r} has a name that is not UTF-8: rename it")
    unlisted = sorted(set(class_folders(root)[1]) - set(folder_data.source.paths))
    if unlisted:
        raise ValueError(f"{unlisted[0]} is not in {root / METADATA}: move one of the two away")


def _check_work(work: Path, config: dict[str, Any]) -> None:
    if (work / MANIFEST).exists() and Run.open(work).config != plain(config):
        raise RunError(f"{work} is of a weighing with other arguments, data or images that was stopped: delete it")


def _matched(folder_data: ImageData, full: ImageData, by_index: bool) -> tuple[ImageData, ImageData]:
    """Both with the classes of one list of names in one order; ValueError for classes that only one has."""
    names = folder_data.class_names
    if by_index and set(names) != set(full.class_names):
        numbers = np.array(numbers_in(names, len(full.class_names)))
        folder_data = folder_data.renumbered(numbers[folder_data.labels], full.class_names)
    names = folder_data.class_names
    renaming = f"{full.source.renaming}, or {folder_data.source.renaming}"
    try:
        labels = matched_labels(torch.as_tensor(full.labels), full.class_names, names, "data", renaming)
    except ValueError as error:
        raise ValueError(f"{error}; by_index=True (--by-index) takes folders named by class index") from None
    return folder_data, full.renumbered(labels.numpy(), names)


def _user_metadata(root: Path) -> UserMetadata:
    return read_user_metadata(root, is_ours=(root / WORK / WRITING).exists())


def _write(
    root: Path, work: Run, user: UserMetadata, rows: Sequence[dict[str, Any]], distances: dict[str, list[float]]
) -> None:
    """The user's metadata aside, then ours, then the manifest that makes it count."""
    user.put_aside(root)
    write_atomic(work.path / WRITING, b"")
    text = "".join(json_line(user.extended(row)) + "\n" for row in rows)
    write_atomic(root / METADATA, text.encode())
    run = Run.new(root, work.config, work.class_names, {"data": work.manifest["stages"]["data"]})
    with run.stage("weigh", {}) as stage:
        stage.outputs, stage.info = [root / METADATA], {"images": len(rows), "w2": distances}


def _finished(root: Path, config: dict[str, Any], names: Sequence[str]) -> Distances | None:
    """The table of a weighing that was finished with this configuration; None if there is none, or a file is gone."""
    if not (root / MANIFEST).exists():
        return None
    run = Run.open(root)
    if (run.config, run.class_names) != (plain(config), tuple(names)):
        return None
    return _table(run.info("weigh")["w2"]) if run.done("weigh", {}) else None


def _clear(work: Run) -> None:
    """Remove the latents' folder, by a process that has its lock; stopped in between, it is a folder of a run still."""
    shutil.rmtree(work.path / "latents", ignore_errors=True)  # it may be gone already
    (work.path / WRITING).unlink(missing_ok=True)
    shutil.rmtree(work.path)


def _clear_finished(work: Path, config: dict[str, Any], names: Sequence[str]) -> None:
    """The same of what a process left that was stopped at the very end; a weighing with other arguments keeps its."""
    if not work.exists() or ((work / MANIFEST).exists() and Run.open(work).config != plain(config)):
        return
    with Run.locked(work, config, names) as run:
        _clear(run)


def _table(distances: dict[str, list[float]]) -> Distances:
    return Distances(tuple(Distance(GIVEN, weighting, tuple(values)) for weighting, values in distances.items()))
