"""Makes samples and class labels into what the core takes: contiguous arrays of the four floating-point types."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

LARGEST = 2**63 - 1  # integer of an array


def as_samples(X: ArrayLike, name: str = "X", *, halves: bool = False) -> NDArray[Any]:
    """Samples as a C-ordered (n, d) array of float32 or float64, not copied where it is one already.

    With halves, float16 stays what it is and torch's bfloat16 becomes a view of its bits in uint16, which stands for
    nothing else: the core widens both.
    """
    bits = _bfloat16_bits(X)
    array = np.asarray(X) if bits is None else bits
    is_half = bits is not None or array.dtype == np.float16
    if is_half and not halves:
        array = widened(array)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        kinds = "float16, torch's bfloat16, float32, float64 or integers"
        raise TypeError(f"{name} must hold real numbers ({kinds}), not {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name} must have the shape (samples, features), but its shape is {array.shape}: reshape it")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: its shape is {array.shape}")
    dtype = np.dtype(np.float64 if array.dtype.kind == "f" and array.dtype.itemsize == 8 else np.float32)
    if is_half and halves:
        dtype = array.dtype.newbyteorder("=")
    return np.require(array, dtype=dtype, requirements=["C_CONTIGUOUS", "ALIGNED"])


def _bfloat16_bits(X: ArrayLike) -> NDArray[np.uint16] | None:
    """The bits of a tensor of bfloat16, which NumPy does not have, as a view; None for anything else."""
    torch = sys.modules.get("torch")  # no tensor without it, and never imported for this
    if torch is None or not isinstance(X, torch.Tensor) or X.dtype != torch.bfloat16:
        return None
    bits: NDArray[np.uint16] = X.detach().view(torch.int16).numpy().view(np.uint16)
    return bits


def real_type(dtype: DTypeLike) -> np.dtype[Any]:
    """float64 for float64 samples, float32 for all others: the type of the points and of the arithmetic."""
    return np.dtype(np.float64 if np.dtype(dtype) == np.float64 else np.float32)


def widened(X: NDArray[Any]) -> NDArray[Any]:
    """Samples from `as_samples` in their real type, copied only where they are halves."""
    if X.dtype == np.uint16:
        return (X.astype(np.uint32) << 16).view(np.float32)
    return X.astype(np.float32) if X.dtype == np.float16 else X


def as_classes(y: ArrayLike, n: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The sorted distinct labels (C,) and each sample's index among them (n,)."""
    labels = np.asarray(y)
    if labels.shape != (n,):
        raise ValueError(f"y must have one label for each of the {n} rows of X, but its shape is {labels.shape}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(f"y[{np.flatnonzero(~np.isfinite(labels))[0]}] is not finite: every sample needs a class")
    if labels.dtype.kind in "iu" and n > 0:
        low, high = int(labels.min()), int(labels.max())
        if high - low < 4 * n and high <= LARGEST:  # counting takes a fraction of the time of sorting
            number = labels.astype(np.int64) - low
            present = np.bincount(number) > 0
            classes = (np.flatnonzero(present) + low).astype(labels.dtype)
            return classes, (np.cumsum(present) - 1)[number]
    classes, class_index = np.unique(labels, return_inverse=True)
    return classes, class_index.astype(np.int64)
