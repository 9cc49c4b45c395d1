"""W2-optimal weights for anybody's image folder: beside the images, whole or not at all, nothing of the folder lost.

metadata.jsonl             a row per image: file_name, label, class_name, weight, count, sha256, reencoded, and the
                           columns that the user's own file had
metadata.original.jsonl    the user's own file, if there was one
run.json                   a manifest, so that `ddoq.load` reads and verifies the folder
.ddoq/                     the data's latents until it is done: a stopped call resumes
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
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
from ddoq.models.codecs.codec import open_codec
from ddoq.models.fingerprint import fingerprint
from ddoq.quantization.transport import pot
from ddoq.stages.distances import Distance, Distances, class_distances
from ddoq.stages.encode import encode
from ddoq.stages.reencode import Floats, reencode
from ddoq.storage.files import RunError, sha256_file, write_atomic
from ddoq.storage.image_folder import METADATA, json_line
from ddoq.storage.manifest import MANIFEST, NoRunError
from ddoq.storage.run import Run
from ddoq.storage.values import digest, plain

GIVEN = "given"  # the set of a folder that is not a run
ORIGINAL = "original"  # the weights that it came with
BEFORE = "metadata.original.jsonl"  # the user's own, put aside
WORK, WRITING = ".ddoq", "writing"  # the latents until the folder is done; in it, once metadata.jsonl is not the user's


def weigh_folder(
    root: Path,
    data: Any,
    codec: Any,
    by_index: bool,
    image_size: int | None,
    class_names: Sequence[str] | None,
    class_prior: str,
    place: torch.device,
    progress: bool,
) -> Distances:
    """The folder's part of `ddoq.weigh`, where the parameters are explained; `root` is an absolute path."""
    _refuse(root)
    opened = open_codec(codec, device=place)
    own = open_data(root, image_size=image_size)
    assert isinstance(own.source, FolderSource)
    paths = own.source.paths
    _check_listed(root, paths)
    channels = getattr(opened, "channels", None)
    full = open_data(data, image_size=own.image_size, channels=channels, class_names=class_names)
    own = open_data(own, channels=full.channels)
    _match(own, full, by_index)
    files = [(path.relative_to(root).as_posix(), sha256_file(path)) for path in paths]
    config: dict[str, Any] = {
        "synthesis": GIVEN,
        "weighting": "reencoded",
        "class_prior": class_prior,
        "given": {"image_size": own.image_size, "channels": own.channels},
        "data": full.fingerprint,
        "codec": fingerprint(opened),
        # in no order: weighing sorts the rows of metadata.jsonl by class
        "images": digest(sorted((*file, own.class_names[c]) for file, c in zip(files, own.labels, strict=True))),
    }
    kept = _finished(root, config, own.class_names)
    if kept is not None:
        _clear_finished(root / WORK, config, own.class_names)
        return kept
    _check_work(root / WORK, config)
    pot("ddoq.weigh of a folder")
    _theirs(root)  # whatever can be refused is, before hours of encoding
    with Run.locked(root / WORK, config, own.class_names) as work:
        encode(work, full, opened, device=place, progress=progress)
        order = np.argsort(own.labels, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(own.labels))]).astype(np.int64)
        again = reencode(work, opened, own.images(order), offsets, device=place)
        rows = _rows([files[i] for i in order], own.labels[order], own.class_names)
        before, theirs = _theirs(root)  # as they are now
        masses = {
            "reencoded": again.counts.astype(np.float64),
            **_original(theirs, rows),
            "uniform": np.ones(len(rows)),
        }
        found = class_distances(work, root.name, again.latents, offsets, masses, progress)
        weights = class_weights(again.counts, offsets, "reencoded", class_prior)
        for row, weight, count in zip(rows, weights.tolist(), again.counts.tolist(), strict=True):
            row.update(weight=weight, count=count, reencoded=count)
        _write(root, work, before, _with_columns(rows, theirs), found)
        _clear(work)
    return _table(found)


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
    if (root / MANIFEST).exists() and Run.open(root).kind == "distilled":
        raise RunError(f"{root} is a run that is not finished: finish it with ddoq.distill")


def _check_listed(root: Path, paths: Sequence[Path]) -> None:
    """ValueError for an image in the class folders that metadata.jsonl leaves out, which would have no weight, and for
    a file name that metadata.jsonl cannot hold.
    """
    for path in paths:
        if any("\ud800" <= char <= "\udfff" for char in str(path.relative_to(root))):
            raise ValueError(f"the image {os.fsencode(path)!r} has a name that is not UTF-8: rename it")
    unlisted = sorted(set(class_folders(root)[1]) - set(paths))
    if unlisted:
        raise ValueError(f"{unlisted[0]} is not in {root / METADATA}: move one of the two away")


def _check_work(work: Path, config: dict[str, Any]) -> None:
    if (work / MANIFEST).exists() and Run.open(work).manifest["config"] != plain(config):
        raise RunError(f"{work} is of a weighing with other arguments, data or images that was stopped: delete it")


def _match(own: ImageData, full: ImageData, by_index: bool) -> None:
    """Give both the classes of one list of names in one order; ValueError for classes that only one has."""
    names = own.class_names
    if by_index and set(names) != set(full.class_names):
        numbers = numbers_in(names, len(full.class_names))
        own.labels, own.class_names = np.array(numbers)[own.labels], full.class_names
    try:
        there, renaming = torch.as_tensor(full.labels), full.source.renaming
        labels = matched_labels(
            there, full.class_names, own.class_names, "data", f"{renaming}, or {own.source.renaming}"
        )
    except ValueError as error:
        raise ValueError(f"{error}; by_index=True (--by-index) takes folders named by class index") from None
    full.labels, full.class_names = labels.numpy(), own.class_names


def _rows(files: Sequence[tuple[str, str]], labels: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"file_name": name, "label": label, "class_name": names[label], "weight": 0.0, "count": 0, "sha256": sha256}
        for (name, sha256), label in zip(files, labels.tolist(), strict=True)
    ]


def _theirs(root: Path) -> tuple[Path | None, list[dict[str, Any]]]:
    """The user's own metadata and their rows; RunError for what is not readable or would be lost."""
    before = _before(root)
    return before, [] if before is None else _read(before)


def _before(root: Path) -> Path | None:
    """The user's own metadata, in its place or put aside; None if there is none, or what lies there was written here.

    RunError where both the file put aside and another one are there.
    """
    metadata, aside = root / METADATA, root / BEFORE
    written = (root / WORK / WRITING).exists() or not metadata.exists()
    if not written and (root / MANIFEST).exists():
        written = Run.open(root).manifest["stages"]["weigh"]["outputs"][METADATA] == sha256_file(metadata)
    if not written and aside.exists() and aside.read_bytes() != metadata.read_bytes():
        raise RunError(f"{metadata} was changed after it was weighed, and {aside} is there already: move one away")
    return aside if aside.exists() else None if written else metadata


def _read(metadata: Path) -> list[dict[str, Any]]:
    """Rows of the user's metadata, of whatever columns."""
    try:
        with open(metadata, encoding="utf-8") as file:  # splitlines would cut at U+2028 within a text
            rows = [json.loads(line) for line in file if line.strip()]
    except (ValueError, RecursionError) as error:
        raise RunError(f"{metadata} is not a file of one JSON object a line: {error}") from error
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("file_name"), str)]


def _original(theirs: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> dict[str, Floats]:
    """The weights that the images came with, if each has one and no class is without."""
    by_name = {row["file_name"]: row.get("weight") for row in theirs}
    weights = [by_name.get(row["file_name"]) for row in rows]
    if not all(isinstance(weight, int | float) and 0 <= weight < np.inf for weight in weights):
        return {}
    given = np.array(weights, np.float64)
    return {ORIGINAL: given} if np.bincount([row["label"] for row in rows], given).all() else {}


def _with_columns(rows: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the user's further columns."""
    by_name = {row["file_name"]: row for row in theirs}
    return [{**row, **{k: v for k, v in by_name.get(row["file_name"], {}).items() if k not in row}} for row in rows]


def _write(
    root: Path, work: Run, before: Path | None, rows: Sequence[dict[str, Any]], found: dict[str, list[float]]
) -> None:
    """The user's metadata aside, then ours, then the manifest that makes it count."""
    if before == root / METADATA:
        write_atomic(root / BEFORE, before.read_bytes())
    write_atomic(work.path / WRITING, b"")
    text = "".join(json_line(row) + "\n" for row in rows)
    write_atomic(root / METADATA, text.encode())
    run = Run.new(root, work.config, work.class_names, {"data": work.manifest["stages"]["data"]})
    with run.stage("weigh", {}) as stage:
        stage.outputs, stage.info = [root / METADATA], {"images": len(rows), "w2": found}


def _finished(root: Path, config: dict[str, Any], names: Sequence[str]) -> Distances | None:
    """The table of a weighing that was finished with this configuration; None if there is none, or a file is gone."""
    if not (root / MANIFEST).exists():
        return None
    run = Run.open(root)
    if (run.manifest["config"], run.manifest["class_names"]) != (plain(config), list(names)):
        return None
    return _table(run.info("weigh")["w2"]) if run.done("weigh", {}) else None


def _clear(work: Run) -> None:
    """Remove the latents' folder, by a process that has its lock; stopped in between, it is a folder of a run still."""
    shutil.rmtree(work.path / "latents", ignore_errors=True)  # it may be gone already
    (work.path / WRITING).unlink(missing_ok=True)
    shutil.rmtree(work.path)


def _clear_finished(work: Path, config: dict[str, Any], names: Sequence[str]) -> None:
    """The same of what a process left that was stopped at the very end; a weighing with other arguments keeps its."""
    if not work.exists() or ((work / MANIFEST).exists() and Run.open(work).manifest["config"] != plain(config)):
        return
    with Run.locked(work, config, names) as run:
        _clear(run)


def _table(found: dict[str, list[float]]) -> Distances:
    return Distances(tuple(Distance(GIVEN, weighting, tuple(values)) for weighting, values in found.items()))
