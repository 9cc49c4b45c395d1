"""Takes random real images: the row that every method is held against.

They are those that an evaluation draws for its row "random subset" with the same seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddoq.data.draw import draw_images
from ddoq.data.image_data import ImageData
from ddoq.data.weights import even_counts
from ddoq.methods.task import Method, Task
from ddoq.stages.data import record_data
from ddoq.stages.results import Counts, result_stage, write_result

READ = 64  # images read at once


@dataclass(frozen=True)
class Random:
    """The options of random images: there are none."""


def make_images(task: Task, options: Random) -> None:
    """Draw `ipc` images of each class, without replacement, and write them."""
    data, n_classes = task.data, len(task.data.class_names)
    with task.run({}) as run:
        record_data(run, data, progress=task.progress)
        inputs = {
            "data": [data.fingerprint, data.image_size, data.channels],
            "ipc": task.ipc,
            "seed": task.seed,
            "class_prior": task.class_prior,
            "output_size": task.output_size,
        }
        with run.stage(result_stage(None), inputs) as stage:
            if stage.done:
                return
            classes = [np.flatnonzero(data.labels == c) for c in range(n_classes)]
            drawn = [draw_images(rows, task.ipc, task.seed, c) for c, rows in enumerate(classes)]
            labels, sources = np.repeat(np.arange(n_classes), task.ipc), np.concatenate(drawn)
            write_result(
                run,
                stage,
                None,
                _images(data, sources),
                labels,
                Counts(even_counts(labels, np.array([len(rows) for rows in classes]))),
                task.style,
                columns={"source_index": sources.tolist()},
                info={"weightings": task.method.weightings},
            )


def _images(data: ImageData, sources: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    for begin in range(0, len(sources), READ):
        yield from data.images(sources[begin : begin + READ])


METHOD = Method("random", Random, make_images, weightings=("uniform",))
