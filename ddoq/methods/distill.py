"""`ddoq.distill` checks the arguments that all methods share, and hands them to one method."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ddoq.data.distilled import DistilledDataset, load
from ddoq.data.image_data import ImageData, open_data
from ddoq.data.weights import ClassPrior, Weighting, class_weights
from ddoq.machine.arguments import positive
from ddoq.machine.device import torch_device
from ddoq.machine.streams import seed_sequence
from ddoq.methods.catalogue import choose_method, listed
from ddoq.methods.task import Method, Task


def distill(
    data: Any,
    out: str | PathLike[str],
    *,
    ipc: int = 10,
    method: Any = "ddoq",
    weighting: Weighting | None = None,
    class_prior: ClassPrior = "balanced",
    image_size: int | None = None,
    output_size: int | None = None,
    class_names: Sequence[str] | None = None,
    teacher: Any = None,
    seed: int = 0,
    device: str = "auto",
    n_threads: int | None = None,
    progress: bool = True,
    **options: Any,
) -> DistilledDataset:
    """Distil a labelled image data set into `ipc` weighted images per class.

    By the method "ddoq" every image is encoded; each class's latents are quantised into `ipc` points with the masses of
    their Voronoi cells as weights; the points come back to images. The same call on the same folder resumes where it
    stopped and returns at once when all is done.

    Parameters
    ----------
    data
        A folder of class folders, an (array, labels) pair, a torch Dataset of (image, label), or a Hugging Face
        `datasets.Dataset`.
    out
        The run folder: made if absent, resumed if it was made with the same configuration, refused otherwise.
    ipc
        Images per class; at most the number of distinct images of the smallest class.
    method
        "ddoq": optimal quantisation, the method of this package. "d4m": D4M with its authors' settings, on Stable
        Diffusion 1.5. "dit": a reconstruction of the paper's variant on DiT-XL/2. "random": random images of each
        class, the row that every method is held against. Or an object of a method's options, such as
        `ddoq.methods.ddoq.DDOQ(strength=0.5)`.
    weighting
        The weights that `metadata.jsonl` and the returned data set carry: "density" is each point's share of its class,
        "reencoded" that of the cell of the image's own latent (the images are encoded again, since decoding and
        diffusion have moved the points), "sqrt" the square root of the first, "uniform" none; the mean is 1. Default:
        the method's, "density" for "ddoq". `load(out, weighting=...)` gives the others.
    class_prior
        The total of each class's weights: "balanced", the same for all; "data", its share of the images.
    image_size
        Side in pixels. Default: the method's; else the one that the diffusion model was made for, if it is given with
        its autoencoder; else the images' own if all are equal squares, else the median shorter side (see `open_data`).
    output_size
        Side in pixels of the images that are written, which are resized to it. Default: the method's, else image_size.
    class_names
        Names of the classes of an (array, labels) pair, by label.
    teacher
        A trained network, for methods that use one. None of these does.
    seed
        One integer; every stage, class and image has its own stream spawned from it.
    device
        "auto" (a CUDA GPU if there is one), "cpu" or "cuda".
    n_threads
        Threads of the quantiser; default: all this process may use. The result does not depend on it.
    progress
        Show progress bars on stderr.
    **options
        The method's own: the fields of its options, `ddoq.methods.ddoq.DDOQ` for "ddoq". None is not given. On the
        command line `ddoq distill --method ddoq --help` explains them.

    Returns
    -------
    DistilledDataset
        A torch Dataset of (image, target, weight), read back from the run folder.

    Raises
    ------
    ValueError, TypeError
        Bad arguments or data, with the class, index or file at fault; an option that the method does not have.
    ddoq.RunError
        The folder belongs to another configuration or process, or an artefact is damaged.

    Examples
    --------
    >>> import ddoq, numpy as np, tempfile
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> images = (digits.images * 15).astype(np.uint8)
    >>> out = tempfile.mkdtemp()
    >>> small = ddoq.distill((images, digits.target), out, ipc=5, codec="identity", synthesis="decode", progress=False)
    >>> len(small), small.class_names[3]
    (50, '3')

    References
    ----------
    Tan and Slade, Dataset Distillation as Optimal Quantisation, arXiv 2501.07681.
    """
    known, settings = choose_method(method, options)
    image_size = known.image_size if image_size is None else positive("image_size", image_size)
    output_size = known.output_size if output_size is None else positive("output_size", output_size)
    seed_sequence(seed, "quantize")  # which checks it
    task = Task(
        method=known,
        data=open_data(data, image_size=image_size, class_names=class_names),
        out=Path(out),
        ipc=positive("ipc", ipc),
        weighting=_checked_weighting(known, weighting, class_prior),
        class_prior=class_prior,
        image_size=image_size,
        output_size=output_size,
        teacher=_checked_teacher(known, teacher),
        seed=seed,
        device=torch_device(device),
        n_threads=None if n_threads is None else positive("n_threads", n_threads),
        progress=progress,
    )
    _check_class_sizes(task.data, task.ipc)
    known.make(task, settings)
    return load(out)


def _checked_weighting(method: Method, weighting: Weighting | None, class_prior: str) -> Weighting:
    """The weighting, by default the method's; ValueError for one that is not known or not for this method."""
    weighting = method.weightings[0] if weighting is None else weighting
    class_weights(np.ones(1), np.array([0, 1]), weighting, class_prior)
    if weighting not in method.weightings:
        raise ValueError(
            f"method {method.name!r} makes images with weighting {listed(method.weightings)}, not {weighting!r}: "
            "it counts no images of the data in cells"
        )
    return weighting


def _checked_teacher(method: Method, teacher: Any) -> Any:
    if teacher is not None and not method.takes_teacher:
        raise ValueError(f"method {method.name!r} takes no teacher: leave teacher out")
    return teacher


def _check_class_sizes(data: ImageData, ipc: int) -> None:
    sizes = np.bincount(data.labels, minlength=len(data.class_names))
    smallest = int(sizes.argmin())
    if sizes[smallest] < ipc:
        name = data.class_names[smallest]
        raise ValueError(f"ipc={ipc} is more than the {sizes[smallest]} images of class {name!r}: lower ipc")
