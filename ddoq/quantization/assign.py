"""The full assignment of samples to their nearest points, which gives weights, counts and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddoq.machine import backend

if TYPE_CHECKING:
    from ddoq.quantization.device_samples import DeviceSamples
    from ddoq.quantization.result import ClassQuantization


def label_left_out(
    result: ClassQuantization, X: NDArray[Any] | DeviceSamples, w: NDArray[np.float64], n_threads: int, isa: str
) -> None:
    """Label the samples of weight zero, which took no part, by their nearest points."""
    for c in np.unique(result.class_index[w == 0]):
        left_out = np.flatnonzero((result.class_index == c) & (w == 0))
        points = result.points[result.offsets[c] : result.offsets[c + 1]]
        labels = np.empty(len(left_out), dtype=np.int64)
        backend.core.assign(X[left_out], points, labels, np.empty(len(left_out)), n_threads, isa)
        result.labels[left_out] = labels
