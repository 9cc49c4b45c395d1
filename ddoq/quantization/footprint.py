"""The memory that a quantisation will take, and the error where that much is not free."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ddoq.machine.limits import available_memory
from ddoq.quantization.checks import of_class
from ddoq.quantization.forms import SKETCH, STREAMING

# Of the core: most rows of a panel, features packed together, rows assigned together.
PANEL, PANEL_FEATURES, ASSIGNED_ROWS = 48, 256, 192


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
