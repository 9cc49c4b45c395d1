"""Trains a teacher on all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from ddoq.data.image_data import open_data
from ddoq.training.train import TrainResult, train


def train_teacher(
    data: Any,
    out: str | PathLike[str],
    *,
    student: str = "resnet18",
    test: Any = None,
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: int = 0,
    log: Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> TrainResult:
    """Train a network on all images, to give soft labels: protocol "teacher" of `ddoq.train`, on hard labels.

    Broken off by Ctrl-C, it goes on from its last step when called again; killed, from its last minute. Flips are among
    its views: for digits leave them out.

    Parameters
    ----------
    data
        All images: anything `ddoq.open_data` takes.
    out
        The checkpoint, in safetensors format: what `teacher` takes in `ddoq.train` and `ddoq.label`. One that is there
        with the same settings is read instead of training again, and tested; one with others, or any other file, is an
        error and left alone.
    student
        "convnet3", "convnet4" or the name of a timm model.
    test
        A test set: anything `ddoq.open_data` takes. Its classes are matched by name. None: no accuracy.
    image_size
        Side in pixels, that of the distilled images; default as `ddoq.open_data`.
    class_names
        Names of the classes of (array, labels) pairs in `data` and `test`, by label.
    seed, epochs, batch_size, lr, settings, workers, log, device, progress
        As for `ddoq.train`.

    Returns
    -------
    TrainResult
        The network as `model`, its accuracy in percent, losses.

    Raises
    ------
    ValueError, OSError, ddoq.RunError
        As `ddoq.train`.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    >>> path = Path(tempfile.mkdtemp()) / "teacher.safetensors"
    >>> result = train_teacher((images, ["x", "y"] * 3), path, student="convnet3", epochs=1, progress=False)
    >>> path.exists(), result.recipe.protocol
    (True, 'teacher, epochs=1')
    """
    return train(
        open_data(data, image_size=image_size, class_names=class_names),
        student,
        protocol="teacher",
        test=test,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        settings=settings,
        class_names=class_names,
        workers=workers,
        device=device,
        log=log,
        checkpoint=Path(out),
        progress=progress,
    )
