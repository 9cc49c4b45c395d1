"""Random images of a class are drawn here, for the method "random" and for the random rows of an evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ddoq.machine.streams import seed_sequence


def draw_images(class_rows: NDArray[np.int64], count: int, seed: int, class_index: int) -> NDArray[np.int64]:
    """Draw `count` distinct images of a class, whose indices in the data are `class_rows`; each class has its stream.

    Examples
    --------
    >>> sorted(draw_images(np.array([4, 7, 9]), 3, seed=0, class_index=1).tolist())
    [4, 7, 9]
    """
    stream = np.random.default_rng(seed_sequence(seed, "random subset", class_index))
    return stream.choice(class_rows, count, replace=False)
