"""`ddoq.weigh` tells how far distilled sets are from the data, and gives W2-optimal weights to anybody's image folder.

W2 is taken class by class between the real latents and the weighted latents of the images (encoded again), in the
codec's latent space; the table gives the mean over the classes. Under "reencoded" weights, the masses of the Voronoi
cells, it is the root of the distortion; under others the exact optimal transport (`ddoq.w2`).

A run keeps it as w2/<set>.json, stage "weigh:<set>"; a set is "points" (as quantised) or a synthesis. Folders that are
no runs are weigh_folder.py's part.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddoq.data.weights import ClassPrior
from ddoq.machine.device import torch_device
from ddoq.stages.distances import Distance, Distances, class_distances
from ddoq.stages.reencode import Floats, read_reencoded
from ddoq.stages.weigh_folder import weigh_folder
from ddoq.storage.files import RunError, clean, write_atomic
from ddoq.storage.manifest import MANIFEST, images_stage, method_label
from ddoq.storage.run import Run


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
    ddoq.RunError
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
    root = Path(folder).absolute()
    if (root / MANIFEST).exists() and Run.open(root).kind == "distilled":
        _check_points(Run.open(root))
        if data is not None:
            raise ValueError(f"{root} is a run, which has its own data: leave data out")
        return _weigh_run(root, progress)
    if data is None:
        raise ValueError(
            f"{root} is no finished run of ddoq.distill: give data (--data), the full data set of its images"
        )
    if class_prior not in ("balanced", "data"):
        raise ValueError(f"class_prior {class_prior!r} is not known: use 'balanced' or 'data'")
    if isinstance(codec, str) and codec in ("auto", "fit"):
        raise ValueError(f"codec {codec!r} is not for weigh, which fits none: give 'identity', a folder or an object")
    return weigh_folder(
        root,
        data,
        codec,
        by_index=by_index,
        image_size=image_size,
        class_names=class_names,
        class_prior=class_prior,
        device=torch_device(device),
        progress=progress,
    )


def _check_points(run: Run) -> None:
    """RunError for a run that has no points: of a method that encodes nothing, or not finished."""
    if run.has("quantize"):
        return
    if run.syntheses():
        raise RunError(
            f"{run.path} was made by method {method_label(run.manifest)!r}, which leaves no latents to weigh it in: "
            f"copy {run.path / 'images'} elsewhere, and weigh the copy with data and a codec"
        )
    raise RunError(f"{run.path} is not finished, it has no points yet: finish it with the same ddoq.distill")


def _weigh_run(root: Path, progress: bool) -> Distances:
    opened = Run.open(root)
    with Run.locked(root, opened.config, opened.class_names) as run:
        quantised = run.points()
        masses = {"density": quantised.counts.astype(np.float64), "uniform": np.ones(len(quantised.points))}
        rows = _stored(run, "points", "quantize", quantised.points, quantised.offsets, masses, progress)
        for name in run.syntheses():
            stage = images_stage(run.manifest, name)
            (file,) = (path for path in run.outputs(stage) if path.suffix == ".safetensors")
            images = read_reencoded(file)
            masses_of_images = {"reencoded": images.counts.astype(np.float64)}
            rows += _stored(run, name, stage, images.latents, quantised.offsets, masses_of_images | masses, progress)
    label = method_label(opened.manifest)
    return Distances(tuple(rows), (f"method {label}",) if label else ())


def _stored(
    run: Run,
    name: str,
    images_stage: str,
    points: NDArray[Any],
    offsets: NDArray[np.int64],
    masses: dict[str, Floats],
    progress: bool,
) -> list[Distance]:
    """The rows of a set, read from the run folder if they are of these latents; otherwise computed and stored there."""
    run.verify([images_stage])
    parts = ["encode", "quantize"] if images_stage == "quantize" else ["encode", images_stage, "quantize"]
    path = run.path / "w2" / f"{name}.json"
    with run.stage(f"weigh:{name}", {"made_from": [run.output(part) for part in parts]}) as stage:
        if not stage.done:
            distances = class_distances(run, name, points, offsets, masses, progress)
            path.parent.mkdir(exist_ok=True)
            clean(path.parent)
            write_atomic(path, json.dumps(distances).encode())
            stage.outputs = [path]
            stage.info = {weighting: float(np.mean(values)) for weighting, values in distances.items()}
    return [Distance(name, weighting, tuple(values)) for weighting, values in json.loads(path.read_bytes()).items()]
