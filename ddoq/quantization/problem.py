"""Puts a problem together: the checked samples of every class, the points that each one gets, and how to compute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq.machine import backend
from ddoq.quantization.checks import check_finite, check_number_of_points, check_sample_weight
from ddoq.quantization.device_samples import DeviceSamples, Gpu
from ddoq.quantization.options import OF_LLOYD, Options, Progress


@dataclass(frozen=True, eq=False)
class Execution:
    """Where and with how many threads a problem is solved, and who is told of the progress."""

    n_threads: int
    gpu: Gpu | None = None
    progress: Progress | None = None


@dataclass(frozen=True, eq=False)
class Problem:
    """The samples X (n, d) of C classes, and the number of points of each class.

    Attributes
    ----------
    X, class_index
        (n, d) and (n,): the samples, and the index of each one's class.
    classes
        (C,): the labels of the classes, for results and errors.
    k, seeds
        (C,): the points of each class, and its random stream.
    weights
        (n,) float64: the weight of each sample.
    rows, offsets
        The rows of X with a positive weight, class by class: class c has rows[offsets[c]:offsets[c + 1]].
    """

    X: NDArray[Any] | DeviceSamples
    class_index: NDArray[np.int64]
    classes: NDArray[Any]
    k: NDArray[np.int64]
    seeds: list[np.random.SeedSequence]
    weights: NDArray[np.float64]
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number (C,) of samples of positive weight in each class."""
        return np.diff(self.offsets)

    def class_rows(self, c: int) -> NDArray[np.int64]:
        """The rows of positive weight of one class."""
        return self.rows[self.offsets[c] : self.offsets[c + 1]]

    def repeated(self, numbers: list[NDArray[np.int64]]) -> Problem:
        """The problem in which each class stands once for each of its numbers of points, one after the other.

        The core shares the Gram matrix among consecutive classes of the same rows.
        """
        repeats = np.array([len(ks) for ks in numbers])
        copies = np.repeat(np.arange(len(repeats)), repeats)
        return replace(
            self,
            classes=self.classes[copies],
            k=np.concatenate(numbers),
            seeds=[self.seeds[c] for c in copies],
            rows=np.concatenate([self.class_rows(int(c)) for c in copies]),
            offsets=offsets_of(self.sizes[copies]),
        )

    def only(self, c: int) -> Problem:
        """The problem of one class alone, with its samples copied to the host."""
        rows = self.class_rows(c)
        return Problem(
            X=self.X[rows],
            class_index=np.zeros(len(rows), dtype=np.int64),
            classes=self.classes[c : c + 1],
            k=self.k[c : c + 1],
            seeds=self.seeds[c : c + 1],
            weights=self.weights[rows],
            rows=np.arange(len(rows)),
            offsets=np.array([0, len(rows)]),
        )


def checked_problem(
    X: NDArray[Any] | DeviceSamples,
    class_index: NDArray[np.int64],
    classes: NDArray[Any],
    k: NDArray[np.int64],
    seeds: list[np.random.SeedSequence],
    sample_weight: ArrayLike | None,
    options: Options,
    execution: Execution,
) -> Problem:
    """Put a problem together; samples on a GPU are not looked at here, since the GPU tells which classes to look at.

    Raises
    ------
    ValueError
        A weight, a sample or a number of points is wrong, with the class and the row; options that need a CPU.
    """
    if options.method != "lloyd" and sample_weight is not None:
        raise ValueError(f'{OF_LLOYD} are for method="lloyd", not {options.method!r}')
    if execution.gpu is not None and (options.method != "lloyd" or options.form == "streaming"):
        raise ValueError('a GPU has method="lloyd" in Gram form alone: use device="cpu"')
    weights = check_sample_weight(sample_weight, len(X))
    if not isinstance(X, DeviceSamples):
        check_finite(X, execution.n_threads, class_index=class_index, classes=classes)
    rows = np.flatnonzero(weights > 0)
    narrow = np.uint16 if len(classes) <= 2**16 else np.int64  # which NumPy sorts in linear time
    rows = rows[np.argsort(class_index[rows].astype(narrow), kind="stable")]
    offsets = offsets_of(np.bincount(class_index[rows], minlength=len(classes)))
    if not isinstance(X, DeviceSamples):
        check_number_of_points(X, rows, offsets, k, classes)
    return Problem(X, class_index, classes, k, seeds, weights, rows, offsets)


def checked_execution(n_threads: int | None, gpu: Gpu | None = None, progress: Progress | None = None) -> Execution:
    """How to compute: with the threads asked for, or as many as the process may use."""
    return Execution(backend.n_threads(n_threads), gpu, progress)


def offsets_of(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of consecutive parts of these sizes begins, and at last where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
