"""How far a distilled set is from the data under several weights, and W2-optimal weights for anybody's image folder.

W2 is taken class by class between the real latents and the weighted latents of the images (encoded again), in the
codec's latent space; the table gives the mean over the classes. Under "reencoded" weights, the masses of the Voronoi
cells, it is the root of the distortion; under others the exact optimal transport (`ddoq.w2`).

    a run       w2/<set>.json, stage "weigh:<set>"; a set is "points" (as quantised) or a synthesis
    a folder    metadata.jsonl (columns class_name, label, weight, count, reencoded, sha256) and a run.json, so that
                `ddoq.load` reads it; metadata.original.jsonl is the file that was there before
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ddoq._device import torch_device
from ddoq.codecs import fingerprint, open_codec
from ddoq.data import ImageData, open_data
from ddoq.distilled import ClassPrior, class_weights
from ddoq.encode import encode, read_latents
from ddoq.files import RunError, digest, plain, sha256_file, write_atomic
from ddoq.folders import class_folders
from ddoq.imagefolder import METADATA
from ddoq.reencode import reencode
from ddoq.run import MANIFEST, Run
from ddoq.sources import FolderSource
from ddoq.table import Distance, Distances
from ddoq.training_set import matched_labels
from ddoq.transport import w2

GIVEN = "given"  # the set of a folder that is not a run, and the weights it came with
BEFORE = "metadata.original.jsonl"  # the user's own, put aside
WORK, WRITING = ".ddoq", "writing"  # the latents until the folder is done; in it, once metadata.jsonl is not the user's
Floats = NDArray[np.float64]


def weigh(
    folder: str | PathLike[str],
    data: Any = None,
    *,
    codec: Any = "identity",
    by_index: bool = False,
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    class_prior: ClassPrior = "balanced",
    device: str = "auto",
    progress: bool = True,
) -> Distances:
    """W2 between the data and distilled images under several weights; the best weights for images of any origin.

    Of a run that `ddoq.distill` made: the table, kept in the run folder. Of any folder of class folders of images
    (another method's distilled set, a synthetic one): its images and the data are encoded, each class's real latents
    are counted in the Voronoi cells of the images' latents, and the shares are written as weights, so that
    `ddoq.load(folder)` gives a data set to train on. An image in whose cell no real image lies gets weight 0. The same
    call resumes where it stopped, and returns at once when all is done.

    Parameters
    ----------
    folder
        A run folder, or a folder with one folder of images per class. Images are left as they are; a metadata.jsonl is
        replaced by one with its columns and ddoq's, and kept as metadata.original.jsonl.
    data
        The full data set, for a folder that is not a run: anything `ddoq.open_data` takes. Classes are matched by name.
    codec
        In whose latent space, for a folder that is not a run: "identity" (pixels), a local folder of a diffusers
        autoencoder or pipeline, such as `codec/` in a run, or an object with `encode` and `decode`. The weights depend
        on it: where images were made with an autoencoder, take that one.
    by_index
        The class folders are named by index, such as "7", "0007" or "00007_dog": class 7 of the data. Otherwise their
        names are the data's.
    image_size
        Side in pixels at which images and data are encoded; default: the folder's (see `open_data`).
    class_names
        Names of the classes of an (array, labels) pair in `data`, by label.
    class_prior
        "balanced": every class has the same total weight; "data": in proportion to its images in the data. The mean
        is 1.
    device
        "auto" (a CUDA GPU if there is one), "cpu", "cuda", or a GPU by number such as "cuda:1".
    progress
        Show progress bars on stderr.

    Returns
    -------
    Distances
        Rows of set, weighting and W2 per class; `print` shows the table.

    Raises
    ------
    ValueError, TypeError
        Classes that only one of the two has, by name; bad images or arguments.
    ddoq.run.RunError
        A damaged run; a folder that belongs to a run, has a metadata file in another format, or is in use.
    ImportError
        POT is not installed: `pip install ddoq[metrics]`.

    Examples
    --------
    >>> import ddoq, tempfile
    >>> images, labels = np.arange(12 * 64, dtype=np.uint8).reshape(12, 8, 8), np.arange(12) % 2
    >>> out = tempfile.mkdtemp()
    >>> _ = ddoq.distill((images, labels), out, ipc=2, codec="identity", synthesis="decode", progress=False)
    >>> table = ddoq.weigh(out, progress=False)
    >>> [(row.set, row.weighting) for row in table.rows if row.weighting != "uniform"]
    [('points', 'density'), ('decode', 'reencoded'), ('decode', 'density')]
    """
    place = torch_device(device)
    root = Path(folder).absolute()
    if (root / MANIFEST).exists() and "quantize" in Run.open(root).manifest["stages"]:
        if data is not None:
            raise ValueError(f"{root} is a run, which has its own data: give no data")
        return _weigh_run(root, progress)
    if data is None:
        raise ValueError(f"{root} is not a finished run of ddoq.distill: give data, the full data set of its images")
    if class_prior not in ("balanced", "data"):
        raise ValueError(f"class_prior {class_prior!r} is not known: use 'balanced' or 'data'")
    if isinstance(codec, str) and codec in ("auto", "fit"):
        raise ValueError(f"codec {codec!r} is not for weigh, which fits none: give 'identity', a folder or an object")
    return _weigh_folder(root, data, codec, by_index, image_size, class_names, class_prior, place, progress)


# ---- a run -----------------------------------------------------------------------------------------------------------


def _weigh_run(root: Path, progress: bool) -> Distances:
    found = Run.open(root)
    with Run.locked(root, found.manifest["config"], found.manifest["class_names"]) as run:
        quantised = safetensors.numpy.load_file(run.path / "quantization.safetensors")
        offsets = quantised["class_offsets"]
        masses = {"density": quantised["counts"].astype(np.float64), "uniform": np.ones(int(offsets[-1]))}
        rows = _kept(run, "points", "quantize", [], quantised["points"], offsets, masses, progress)
        for stage in [name for name in run.manifest["stages"] if name.startswith("synthesize")]:
            name = stage.partition(":")[2] or run.manifest["config"]["synthesis"]
            (file,) = (path for path in run.manifest["stages"][stage]["outputs"] if path.endswith(".safetensors"))
            images = safetensors.numpy.load_file(run.path / file)
            own = {"reencoded": images["counts"].astype(np.float64), **masses}
            rows += _kept(run, name, stage, ["quantize"], images["latents"], offsets, own, progress)
    return Distances(tuple(rows))


def _kept(
    run: Run,
    name: str,
    stage: str,
    others: Sequence[str],
    points: NDArray[Any],
    offsets: NDArray[np.int64],
    masses: dict[str, Floats],
    progress: bool,
) -> list[Distance]:
    """The rows of a set, read from the run folder if they are of these latents; otherwise computed and kept there."""
    run.verify([stage])
    inputs = {"made_from": [run.output(part) for part in ("encode", stage, *others)]}
    path = run.path / "w2" / f"{name}.json"
    if not run.done(f"weigh:{name}", inputs):
        start = time.monotonic()
        found = _distances(run, name, points, offsets, masses, progress)
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, json.dumps({weighting: list(values) for weighting, values in found.items()}).encode())
        info = {weighting: float(np.mean(values)) for weighting, values in found.items()}
        run.record(f"weigh:{name}", inputs, [path], seconds=time.monotonic() - start, info=info)
    kept = json.loads(path.read_bytes())
    return [Distance(name, weighting, tuple(values)) for weighting, values in kept.items()]


def _distances(
    run: Run, name: str, points: NDArray[Any], offsets: NDArray[np.int64], masses: dict[str, Floats], progress: bool
) -> dict[str, list[float]]:
    """W2 of each class's real latents to its points, under several masses."""
    found: dict[str, list[float]] = {weighting: [] for weighting in masses}
    spans = list(pairwise(offsets))
    for c, (begin, end) in enumerate(tqdm(spans, desc=f"W2 to {name}", unit="class", disable=not progress)):
        real = read_latents(run, c)[0].astype(np.float32)
        own = points[begin:end].reshape(end - begin, -1).astype(np.float32)
        for weighting, mass in masses.items():
            voronoi = weighting == "reencoded" or (name == "points" and weighting == "density")
            found[weighting].append(w2(real, own, None if voronoi else mass[begin:end]))
    return found


# ---- any folder ------------------------------------------------------------------------------------------------------


def _weigh_folder(
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
        "images": digest([files, own.labels]),
    }
    kept = _finished(root, config, own.class_names)
    if kept is not None:
        return kept
    _check_work(root / WORK, config)
    with Run.locked(root / WORK, config, own.class_names) as work:
        encode(work, full, opened, device=place, progress=progress)
        order = np.argsort(own.labels, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(own.labels))]).astype(np.int64)
        again = reencode(work, opened, own.images(order), offsets, device=place)
        rows = _rows([files[i] for i in order], own.labels[order], own.class_names)
        before = _before(root, work)
        theirs = [] if before is None else _read(before)
        masses = {"reencoded": again.counts.astype(np.float64), **_given(theirs, rows), "uniform": np.ones(len(rows))}
        found = _distances(work, root.name, again.latents, offsets, masses, progress)
        weights = class_weights(again.counts, offsets, "reencoded", class_prior)
        for row, weight, count in zip(rows, weights.tolist(), again.counts.tolist(), strict=True):
            row.update(weight=weight, count=count, reencoded=count)
        _write(root, work, before, _with_columns(rows, theirs), found)
    shutil.rmtree(root / WORK)
    return _table(found)


def _refuse(root: Path) -> None:
    """RunError for folders that must not be written to."""
    for parent in list(root.parents)[:2]:
        if (parent / MANIFEST).is_file() and (root / METADATA).is_file():
            name = (root / METADATA).relative_to(parent).as_posix()
            if any(name in stage["outputs"] for stage in Run.open(parent).manifest["stages"].values()):
                raise RunError(f"{root} belongs to the run {parent}: weigh the run")
    for name in ("metadata.csv", "metadata.parquet"):
        if (root / name).exists():
            raise RunError(f"{root / name} would stand beside {METADATA}, and loaders read one alone: move it away")
    if (root / MANIFEST).exists() and Run.open(root).manifest["config"].get("synthesis") != GIVEN:
        raise RunError(f"{root} is a run that is not finished: finish it with ddoq.distill")


def _check_listed(root: Path, paths: Sequence[Path]) -> None:
    """ValueError for an image in the class folders that metadata.jsonl leaves out: it would have no weight."""
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
        found = [re.match(r"\d+", name) for name in names]
        numbers = [int(match[0]) if match else -1 for match in found]
        if sorted(numbers) != list(range(len(full.class_names))):
            raise ValueError(
                f"by_index: the folders {list(names)[:8]} are not one for each of the data's {len(full.class_names)} "
                "classes, named by its index from 0"
            )
        own.labels, own.class_names = np.array(numbers)[own.labels], full.class_names
    try:
        labels = matched_labels(torch.as_tensor(full.labels), full.class_names, own.class_names, "data")
    except ValueError as error:
        raise ValueError(f"{error}; by_index=True (--by-index) takes folders named by class index") from None
    full.labels, full.class_names = labels.numpy(), own.class_names


def _rows(files: Sequence[tuple[str, str]], labels: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"file_name": name, "label": label, "class_name": names[label], "weight": 0.0, "count": 0, "sha256": sha256}
        for (name, sha256), label in zip(files, labels.tolist(), strict=True)
    ]


def _before(root: Path, work: Run) -> Path | None:
    """The user's own metadata, in its place or put aside; None if there is none, or what lies there was written here.

    RunError where both the file put aside and another one are there.
    """
    metadata, aside = root / METADATA, root / BEFORE
    written = (work.path / WRITING).exists() or not metadata.exists()
    if not written and (root / MANIFEST).exists():
        written = Run.open(root).manifest["stages"]["synthesize"]["outputs"][METADATA] == sha256_file(metadata)
    if not written and aside.exists() and aside.read_bytes() != metadata.read_bytes():
        raise RunError(f"{metadata} was changed after it was weighed, and {aside} is there already: move one away")
    return aside if aside.exists() else None if written else metadata


def _read(metadata: Path) -> list[dict[str, Any]]:
    """Rows of the user's metadata, of whatever columns."""
    try:
        rows = [json.loads(line) for line in metadata.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise RunError(f"{metadata} is not a file of one JSON object a line: {error}") from error
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("file_name"), str)]


def _given(theirs: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> dict[str, Floats]:
    """The weights that the images came with, if each has one and no class is without."""
    by_name = {row["file_name"]: row.get("weight") for row in theirs}
    weights = [by_name.get(row["file_name"]) for row in rows]
    if not all(isinstance(weight, int | float) and 0 <= weight < np.inf for weight in weights):
        return {}
    given = np.array(weights, np.float64)
    return {"given": given} if np.bincount([row["label"] for row in rows], given).all() else {}


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
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(root / METADATA, text.encode())
    stages = {"encode": {**work.manifest["stages"]["encode"], "outputs": {}}}  # the latents go
    kept = {key: work.manifest[key] for key in ("format", "config", "class_names", "versions", "machine")}
    run = Run(root, {**kept, "stages": stages})
    run.record("synthesize", {}, [root / METADATA], seconds=0, info={"images": len(rows), "w2": found})


def _finished(root: Path, config: dict[str, Any], names: Sequence[str]) -> Distances | None:
    """The table of a weighing that was finished with this configuration; None if there is none."""
    if not (root / MANIFEST).exists():
        return None
    run = Run.open(root)
    if (run.manifest["config"], run.manifest["class_names"]) != (plain(config), list(names)):
        return None
    run.verify(["synthesize"])
    return _table(run.info("synthesize")["w2"])


def _table(found: dict[str, list[float]]) -> Distances:
    return Distances(tuple(Distance(GIVEN, weighting, tuple(values)) for weighting, values in found.items()))
