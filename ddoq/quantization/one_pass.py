"""What fills in the part of a result that the core does not: online methods, and samples of weight zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddoq.machine import backend
from ddoq.quantization.samples import widened

if TYPE_CHECKING:
    from ddoq.quantization.options import Clock, Progress
    from ddoq.quantization.result import ClassQuantization


def one_pass(
    result: ClassQuantization,
    X: NDArray[Any],
    method: str,
    step: tuple[float, float] | None,
    clock: Clock,
    average: bool,
    seeds: list[np.random.SeedSequence],
    progress: Progress | None,
    n_threads: int,
    isa: str,
) -> None:
    """Fill in the result of an online method, class by class."""
    from ddoq.quantization.minibatch import minibatch_points
    from ddoq.quantization.online import OnlineQuantizer

    for c, seed in enumerate(seeds):
        rows, part = np.flatnonzero(result.class_index == c), slice(result.offsets[c], result.offsets[c + 1])
        rng, k, samples = np.random.Generator(np.random.PCG64(seed)), part.stop - part.start, widened(X[rows])
        if method == "clvq":
            stream = OnlineQuantizer(int(k), step=step, clock=clock, average=average, n_threads=n_threads)
            stream.update(samples[rng.permutation(len(rows))])
            result.points[part] = stream.points
        else:
            result.points[part] = minibatch_points(samples, int(k), rng)
        labels, dist2 = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))
        backend.core.assign(samples, result.points[part], labels, dist2, n_threads, isa)
        result.labels[rows] = labels
        result.counts[part] = np.bincount(labels, minlength=k)
        result.weights[part] = result.counts[part] / len(rows)
        result.distortion[c] = dist2.mean()
        result.n_iter[c] = 1
        if progress:
            progress(c + 1)
