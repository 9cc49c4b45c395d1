"""Images that several files of tests share."""

from __future__ import annotations

import numpy as np


def pictures(n_classes: int, per_class: int, channels: int = 3) -> np.ndarray:
    """Images that say their class: pixel (0, 0) is the class, pixel (0, 1) the number within it."""
    images = np.zeros((n_classes, per_class, channels, 8, 8), np.uint8)
    images[..., 0, 0] = np.arange(n_classes)[:, None, None]
    images[..., 0, 1] = np.arange(per_class)[:, None]
    images[:, :, 0, 7, 7] = 200
    return images.reshape(-1, channels, 8, 8)
