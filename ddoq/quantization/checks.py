"""Checks what must hold before quantisation starts; every error names the row, the class and the remedy."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq.machine import backend
from ddoq.quantization.samples import real_type, widened

BLOCK_ROWS = 1024  # rows looked at together when a bad one is searched
FEW_FEATURES = 64  # which mostly tell rows apart


def of_class(classes: NDArray[Any], c: int) -> str:
    """Give " of class 'dog'", or nothing where the data have no classes."""
    name = classes[c : c + 1].tolist()[0]
    return "" if name is None else f" of class {name!r}"


def check_finite(
    X: NDArray[Any],
    n_threads: int,
    name: str = "X",
    *,
    class_index: NDArray[np.int64] | None = None,
    classes: NDArray[Any] | None = None,
) -> None:
    """Refuse NaN, infinity, and values whose squared distances overflow the data's type.

    The error names the class of a bad row where both the index of each row's class and the classes are given.
    """
    largest = backend.core.largest(X, n_threads, backend.isa())
    if np.isfinite(largest):
        dtype = real_type(X.dtype)
        # |x|^2 is then at most a sixteenth of the greatest number, and |x - y|^2 a quarter, as the streaming form wants
        limit = float(np.sqrt(np.finfo(dtype).max / (16 * X.shape[1])))
        if largest > limit:
            raise ValueError(
                f"{name} has values up to {largest:.3g}, whose squared distances overflow {dtype} "
                f"(limit {limit:.3g} for {X.shape[1]} features): scale the data"
            )
        return
    for start in range(0, len(X), BLOCK_ROWS):
        block = widened(X[start : start + BLOCK_ROWS])
        bad = np.argwhere(~np.isfinite(block))
        if len(bad):
            row, column = start + int(bad[0, 0]), int(bad[0, 1])
            where = "" if classes is None or class_index is None else of_class(classes, int(class_index[row]))
            value = block[row - start, column]
            raise ValueError(f"{name}[{row}, {column}]{where} is {value}: every value must be finite")


def check_sample_weight(sample_weight: ArrayLike | None, n: int, name: str = "sample_weight") -> NDArray[np.float64]:
    """Weights as float64 (n,); all one where None is given."""
    if sample_weight is None:
        return np.ones(n)
    w = np.require(sample_weight, dtype=np.float64, requirements=["C_CONTIGUOUS", "ALIGNED"])
    if w.shape != (n,):
        raise ValueError(f"{name} must have the shape ({n},), one for each row, but its shape is {w.shape}")
    bad = np.flatnonzero(~(np.isfinite(w) & (w >= 0)))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {w[bad[0]]}: weights must be finite and not negative")
    return w


def check_number_of_points(
    X: NDArray[Any],
    rows: NDArray[np.int64],
    row_offsets: NDArray[np.int64],
    k: NDArray[np.int64],
    classes: NDArray[Any],
) -> None:
    """Refuse more points than a class has distinct rows of positive weight."""
    for c, k_c in enumerate(k):
        class_rows = rows[row_offsets[c] : row_offsets[c + 1]]
        where = of_class(classes, c)
        if k_c > len(class_rows):
            raise ValueError(
                f"k = {k_c} is above the {len(class_rows)} samples of positive weight{where}: choose a smaller k"
            )
        n_distinct = count_distinct(X, class_rows, int(k_c))
        if n_distinct < k_c:
            raise ValueError(
                f"k = {k_c} is above the {n_distinct} distinct samples (of {len(class_rows)}){where}: "
                "choose a smaller k"
            )


def count_distinct(X: NDArray[Any], rows: NDArray[np.int64], enough: int) -> int:
    """Count the distinct rows, and stop as soon as there are enough."""
    step = -(-X.shape[1] // FEW_FEATURES)
    for features in (slice(None, None, step), slice(None)) if step > 1 else (slice(None),):
        seen: set[bytes] = set()
        for row in rows:
            # adding zero makes -0.0 and 0.0, which are equal, the same bytes
            values = widened(X[row, features]) + np.float32(0)
            seen.add(hashlib.blake2b(values.tobytes(), digest_size=16).digest())
            if len(seen) == enough:
                return enough
    return len(seen)
