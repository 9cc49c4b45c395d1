"""What must hold before quantisation starts; every error names the row, the class and the remedy."""

from __future__ import annotations

import hashlib
import sys
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ddoq.machine import backend
from ddoq.machine.limits import available_memory

GRAM, GRAM_MOVES, SKETCH, STREAMING = range(4)  # enum ddoq_form
LARGEST = 2**63 - 1  # integer of an array
BLOCK_ROWS = 1024  # rows looked at together when a bad one is searched
FEW_FEATURES = 64  # which mostly tell rows apart
# Of the core: most rows of a panel, features packed together, rows assigned together.
PANEL, PANEL_FEATURES, ASSIGNED_ROWS = 48, 256, 192


def of_class(classes: NDArray[Any], c: int) -> str:
    """Give " of class 'dog'", or nothing where the data have no classes."""
    name = classes[c : c + 1].tolist()[0]
    return "" if name is None else f" of class {name!r}"


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


def check_integer(value: object, name: str) -> int:
    """The value as an int, if it is an integer of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    if int(value) > LARGEST:
        raise ValueError(f"{name} must be below 2**63")
    return int(value)


def check_starts(n_init: object) -> int | Literal["auto"]:
    """The number of starts, or "auto"."""
    return "auto" if isinstance(n_init, str) and n_init == "auto" else check_integer(n_init, "n_init")


def check_tolerance(value: object) -> float:
    """The value as a float, if it is a finite number of at least 0."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"tol must be a number, not {value!r}")
    tol = float(value)
    if not 0 <= tol < np.inf:
        raise ValueError(f"tol must be finite and not negative, not {value}")
    return tol


def check_finite(
    X: NDArray[Any], class_index: NDArray[np.int64], classes: NDArray[Any], n_threads: int, name: str = "X"
) -> None:
    """Refuse NaN, infinity, and values whose squared distances overflow the data's type."""
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
            where = of_class(classes, int(class_index[row]))
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
        own = rows[row_offsets[c] : row_offsets[c + 1]]
        where = of_class(classes, c)
        if k_c > len(own):
            raise ValueError(f"k = {k_c} is above the {len(own)} samples of positive weight{where}: choose a smaller k")
        n_distinct = count_distinct(X, own, int(k_c))
        if n_distinct < k_c:
            raise ValueError(
                f"k = {k_c} is above the {n_distinct} distinct samples (of {len(own)}){where}: choose a smaller k"
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


def fit_bytes(
    sizes: NDArray[np.int64], k: NDArray[np.int64], d: int, itemsize: int, sketched: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Bytes that the core takes for each class: of n samples and k points, d features, reals of itemsize bytes."""
    n, k = sizes.astype(np.float64), k.astype(np.float64)
    n_gram = np.where(sketched, np.minimum(n, 600 + 4 * k), n)  # samples of the sketch
    features = np.where(k <= 16, 640, 512)  # of the sketch
    gram_and_panels = (n_gram * n_gram + (n_gram + PANEL) * min(d, PANEL_FEATURES)) * itemsize
    sums_and_vectors = 8 * (k * n_gram + 13 * n + 7 * k + 1) + (8 + 5 * itemsize) * d
    sketch_and_moves = 24 * n_gram + (n_gram * features + (k + 1 + PANEL) * d + PANEL * k) * itemsize + 8 * (k + 2) * d
    sketch_and_moves += k * d * itemsize + 8 * k * (n + 2 * np.ceil(n / PANEL) + 2)  # bounds for the final assignment
    assignment = ((k + PANEL + 3) * d + ASSIGNED_ROWS * (k + 2 * PANEL)) * itemsize
    of_sketch = np.where(sketched, sketch_and_moves + assignment, 0)
    total: NDArray[np.float64] = gram_and_panels + sums_and_vectors + of_sketch
    return total


def check_memory(
    sizes: NDArray[np.int64],
    k: NDArray[np.int64],
    d: int,
    dtype: DTypeLike,
    n_threads: int,
    classes: NDArray[Any],
    forms: NDArray[np.uint8],
    refine: str,
) -> None:
    """Refuse work that does not fit into the memory that is free.

    Classes in Gram form (`fit_bytes`) run side by side, as many as there are threads; one in streaming form takes the
    panels of its samples and what seeding keeps of each, one class at a time.
    """
    item, streaming = np.dtype(dtype).itemsize, forms == STREAMING
    n, in_gram = sizes.astype(np.float64), np.flatnonzero(~streaming)
    gram = fit_bytes(sizes, k, d, item, forms == SKETCH)
    stream = n * (d * item + 8 * (10 + np.log(k))) + k * d * (8 + 2 * item)
    side_by_side = in_gram[np.argsort(-gram[in_gram], kind="stable")][:n_threads]
    total, free = float(gram[side_by_side].sum()), available_memory()
    largest = int(np.argmax(np.where(streaming, stream, 0)))
    if free is None or max(total, float(stream[largest]) if streaming.any() else 0) <= free:
        return
    remedies = ["float32"] * (item == 8) + ["fewer samples"]
    if total <= free:
        raise MemoryError(
            f"quantising the {sizes[largest]} samples{of_class(classes, largest)} takes {stream[largest] / 2**30:.1f} "
            f"GiB, and {free / 2**30:.1f} GiB are free: use {' or '.join(remedies)}"
        )
    c, threads = int(side_by_side[0]), len(side_by_side)
    streamed = 'form="streaming", refine="none"' if refine == "hartigan" else 'form="streaming"'
    remedies = [streamed] * bool(stream[c] <= free) + ["n_threads=1"] * (threads > 1) + remedies
    raise MemoryError(
        f"quantising the {sizes[c]} samples{of_class(classes, c)} takes {gram[c] / 2**30:.1f} GiB (it grows with the "
        f"square of their number), {threads} thread(s) side by side {total / 2**30:.1f} GiB, "
        f"and {free / 2**30:.1f} GiB are free: use {' or '.join(remedies)}"
    )
