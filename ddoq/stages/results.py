"""Every method of distillation ends here: its images are written with labels, counts and weights, and recorded.

Main images go to images/ as the stage "synthesize", those of a control to controls/<name>/ as "synthesize:<name>".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddoq.data.weights import ClassPrior, Weighting, counts_for, image_weights
from ddoq.stages.batches import Images, resized
from ddoq.storage.files import clean
from ddoq.storage.image_folder import write_images
from ddoq.storage.run import Run, Stage


@dataclass(frozen=True)
class Style:
    """How a method's images are written, whatever they are.

    Attributes
    ----------
    weighting, class_prior
        The weights that are written (see `class_weights`).
    output_size
        Side in pixels that the images are resized to (bicubic, antialiased); None: as they are.
    made_by, note
        The maker of the images, for the dataset card; a sentence on it that stands wherever it shows, for run.json.
    """

    weighting: Weighting = "density"
    class_prior: ClassPrior = "balanced"
    output_size: int | None = None
    made_by: str = "ddoq"
    note: str = ""


@dataclass(frozen=True)
class Counts:
    """What images stand for, (K,) each: images of the full set in the cells of the points that they were made of, and
    in those of their own latents, where somebody counted them.
    """

    points: NDArray[np.int64]
    reencoded: NDArray[np.int64] | None = None


def result_stage(control: str | None) -> str:
    """The name of the stage that records main images, or those of a control.

    >>> result_stage(None), result_stage("nearest")
    ('synthesize', 'synthesize:nearest')
    """
    return "synthesize" if control is None else f"synthesize:{control}"


def result_folder(run: Run, control: str | None) -> Path:
    """The folder of main images, or of those of a control."""
    return run.path / "images" if control is None else run.path / "controls" / control


def write_result(
    run: Run,
    stage: Stage,
    control: str | None,
    images: Iterable[Images],
    labels: NDArray[np.int64],
    counts: Counts,
    style: Style,
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
    outputs: Sequence[Path] = (),
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write images as an image folder, whole or not at all, and tell the stage what there is to record.

    Parameters
    ----------
    stage
        At work, as `run.stage(result_stage(control), inputs)` gives it.
    control
        None for the run's main images, otherwise the control's name.
    images
        uint8 (c, h, w) each, K in all; they are written one after the other, and never held together.
    labels
        (K,): class index.
    counts, style
        See there; the weights are made of both.
    columns
        Further columns of metadata.jsonl, K values each.
    outputs, info
        Further files that the stage leaves, and facts for run.json.
    """
    names, prior = run.class_names, style.class_prior
    weighted = counts_for(style.weighting, counts.points, counts.reencoded)
    weights = image_weights(weighted, labels, len(names), style.weighting, prior)
    further: dict[str, Sequence[Any]] = {} if counts.reencoded is None else {"reencoded": counts.reencoded.tolist()}
    further |= columns or {}
    rows = [{name: values[i] for name, values in further.items()} for i in range(len(labels))]
    folder, images = result_folder(run, control), _at_size(images, style.output_size)
    if folder.parent.is_dir():
        clean(folder.parent)
    written = write_images(folder, images, labels, weights, counts.points, names, rows, style.made_by)
    stage.outputs = [*written, *outputs]
    stage.info = dict(info or {}) | {"images": len(labels)} | ({"note": style.note} if style.note else {})


def _at_size(images: Iterable[Images], size: int | None) -> Iterator[Images]:
    for image in images:
        yield resized(image[None], size)[0]
