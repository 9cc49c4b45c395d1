"""The demo runs all of ddoq on the handwritten digits of scikit-learn: no download, minutes on two cores."""

from __future__ import annotations

import time
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ddoq
from ddoq.evaluation.table import Evaluation

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]

# As many steps as protocol "dc" makes here (300 epochs of one step), on a tenth of the 100 images each: a sixth of the
# time. The table names the difference.
EPOCHS, BATCH_SIZE = 30, 10


def digits() -> tuple[Labelled, Labelled]:
    """Return (images, labels) of 1,437 digits to distil and of 360, every fifth, to test on: uint8 (n, 8, 8) in 0..255.

    Examples
    --------
    >>> (images, labels), (test_images, test_labels) = digits()
    >>> images.shape, images.dtype, int(images.max()), len(test_labels)
    ((1437, 8, 8), dtype('uint8'), 255, 360)
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    test = np.arange(len(images)) % 5 == 0
    return (images[~test], bunch.target[~test]), (images[test], bunch.target[test])


def demo(
    out: str | PathLike[str] = "ddoq-demo", *, ipc: int = 10, seeds: int = 3, seed: int = 0, progress: bool = True
) -> Evaluation:
    """Distil scikit-learn's digits, train students on the result, print a table of their accuracies, write a report.

    Ten weighted images per digit replace 1,437 of 8 x 8 pixels, by way of an autoencoder and a diffusion model fitted
    to them; then a small ConvNet is trained on random, nearest, decoded and diffused images, with the weights and
    without. Run again, it resumes, and when all is done prints the table at once.

    Parameters
    ----------
    out
        Folder for the run, the report, the picture and the table; made if absent.
    ipc
        Images per class.
    seeds
        Trainings of each row of the table.
    seed
        One integer, from which the random streams of the distillation are spawned.
    progress
        Show progress bars on stderr.

    Returns
    -------
    Evaluation
        The table that was printed.
    """
    from ddoq.reporting.weights_picture import weights_picture

    start = time.monotonic()
    folder = Path(out)
    run, picture, table = folder / "run", folder / "weights.png", folder / "table.txt"
    train_set, test_set = digits()
    small = ddoq.distill(train_set, run, ipc=ipc, controls=("nearest", "decode"), seed=seed, progress=progress)
    weights_picture(small, picture)
    print(f"{len(train_set[0])} digits became {len(small)} weighted images; now training on them", flush=True)
    evaluation = ddoq.evaluate(
        run,
        test_set,
        data=train_set,
        gradients=3,
        seeds=seeds,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        progress=progress,
    )
    table.write_text(f"{evaluation}\n", encoding="utf-8")
    evaluation.save(folder / "table.json")
    ddoq.weigh(run, progress=progress)
    page = ddoq.report(run)
    print(
        f"\n{evaluation}\n\n"
        f"on {len(test_set[0])} test images after the last epoch, mean and deviation of {seeds} trainings\n"
        f"all of it as a page:          {page}\n"
        f"the images and their weights: {picture}\n"
        f"this table:                   {table}\n"
        f"the run:                      {run}   (ddoq.load({str(run)!r}) in Python)\n"
        f"{time.monotonic() - start:.0f} s"
    )
    return evaluation
