"""Foretells the memory that a quantisation will take, and refuses work where that much is not free."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ddoq.machine.backend import core
from ddoq.machine.limits import available_memory
from ddoq.quantization.checks import of_class
from ddoq.quantization.forms import STREAMING
from ddoq.quantization.options import Refine
from ddoq.quantization.problem import Problem
from ddoq.quantization.samples import real_type


def form_bytes(
    forms: NDArray[np.uint8], sizes: NDArray[np.int64], k: NDArray[np.int64], d: int, itemsize: int
) -> NDArray[np.float64]:
    """Bytes that the core takes for each class: of n samples and k points, d features, reals of itemsize bytes."""
    classes = zip(forms.tolist(), sizes.tolist(), k.tolist(), strict=True)
    return np.array([core.form_bytes(form, n, k_c, d, itemsize) for form, n, k_c in classes], dtype=np.float64)


def check_memory(problem: Problem, forms: NDArray[np.uint8], refine: Refine, n_threads: int) -> None:
    """Refuse work that does not fit into the memory that is free.

    Classes in Gram form run side by side, as many as there are threads; those in streaming form one after the other.
    """
    sizes, k, d, classes = problem.sizes, problem.k, problem.X.shape[1], problem.classes
    item, streaming = real_type(problem.X.dtype).itemsize, forms == STREAMING
    in_gram = np.flatnonzero(~streaming)
    gram = form_bytes(forms, sizes, k, d, item)
    stream = form_bytes(np.full_like(forms, STREAMING), sizes, k, d, item)
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
