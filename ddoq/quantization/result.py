"""Holds the results of a quantisation: weighted points of one data set, or of every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Quantization:
    """A weighted set of points that stands for the samples it was made from.

    Attributes
    ----------
    points
        (k, d), the samples' float32 or float64: the weighted mean of each cell.
    weights
        (k,) float64: mass of each cell over the whole mass; they sum to one.
    counts
        (k,) int64: samples of positive weight in each cell.
    labels
        (n,) int64: index of each sample's nearest point.
    distortion
        Weighted mean squared distance to the nearest point: the squared 2-Wasserstein distance.
    n_iter
        Lloyd iterations of the start with the lowest distortion.

    Examples
    --------
    >>> import ddoq
    >>> pair = ddoq.quantize([[0.0], [1.0], [2.0], [9.0]], 2, random_state=0)
    >>> sorted(zip(pair.points[:, 0].tolist(), pair.weights.tolist()))
    [(1.0, 0.75), (9.0, 0.25)]
    """

    points: NDArray[Any]
    weights: NDArray[np.float64]
    counts: NDArray[np.int64]
    labels: NDArray[np.int64]
    distortion: float
    n_iter: int


@dataclass(frozen=True)
class ClassQuantization:
    """The quantisations of C classes side by side, in the sorted order of their labels; `[i]` is the one of class i.

    Attributes
    ----------
    classes
        (C,): the distinct labels in sorted order.
    class_index
        (n,) int64: index of each sample's class in `classes`.
    points
        (K, d): the points of all classes, class by class.
    weights, counts
        (K,): of each point, within its class: the weights of a class sum to one.
    offsets
        (C + 1,) int64: class i has the points offsets[i] to offsets[i + 1].
    labels
        (n,) int64: index of each sample's nearest point within its class.
    distortion, n_iter
        (C,): of each class.

    Examples
    --------
    >>> import ddoq
    >>> both = ddoq.quantize_classes([[0.0], [2.0], [5.0], [5.0]], ["cat", "cat", "dog", "dog"], 1)
    >>> both.points.tolist(), both.distortion.tolist(), both[1].counts.tolist()
    ([[1.0], [5.0]], [1.0, 0.0], [2])
    """

    classes: NDArray[Any]
    class_index: NDArray[np.int64]
    points: NDArray[Any]
    weights: NDArray[np.float64]
    counts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    distortion: NDArray[np.float64]
    n_iter: NDArray[np.int64]

    def __len__(self) -> int:
        """Give the number of classes."""
        return len(self.classes)

    def __getitem__(self, i: int) -> Quantization:
        """Give the quantisation of the i-th class; its labels are those of the class's samples, in the data's order."""
        i = range(len(self))[i]
        in_class = point_range(self, i)
        return Quantization(
            points=self.points[in_class],
            weights=self.weights[in_class],
            counts=self.counts[in_class],
            labels=self.labels[self.class_index == i],
            distortion=float(self.distortion[i]),
            n_iter=int(self.n_iter[i]),
        )


def point_range(result: ClassQuantization, c: int) -> slice:
    """Where the points of one class are among those of all classes."""
    return slice(int(result.offsets[c]), int(result.offsets[c + 1]))
