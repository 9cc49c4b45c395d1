"""Quantisation on a GPU: where the samples lie, and what the CUDA part needs and leaves.

The arithmetic is that of the C core in Gram form (`csrc/cuda`), from the same random numbers. What the GPU cannot tell
from its products alone - samples too alike for float32, values that are not finite - goes to the CPU's checks and core,
class by class.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddoq.machine import backend, gpu
from ddoq.quantization.assign import label_left_out
from ddoq.quantization.checks import check_finite, check_number_of_points, of_class
from ddoq.quantization.device_samples import DeviceSamples, Place, dlpack_capsule, is_torch_tensor
from ddoq.quantization.forms import GRAM, GRAM_MOVES
from ddoq.quantization.options import Init
from ddoq.quantization.samples import widened
from ddoq.quantization.starts import starts

if TYPE_CHECKING:
    from ddoq.quantization.options import Progress
    from ddoq.quantization.result import ClassQuantization


def quantize_on_gpu(
    place: Place,
    X: NDArray[Any] | DeviceSamples,
    result: ClassQuantization,
    forms: NDArray[np.uint8],
    k: NDArray[np.int64],
    seeds: list[np.random.SeedSequence],
    w: NDArray[np.float64],
    rows: NDArray[np.int64],
    row_offsets: NDArray[np.int64],
    *,
    init: Init,
    n_starts: NDArray[np.int64],
    max_iter: int,
    progress: Progress | None,
    n_threads: int,
    label_all: bool,
) -> ClassQuantization:
    """Fill the result of the classes, whose rows of positive weight are `rows`.

    Points of torch's tensors become one. label_all: those of weight zero get labels too.
    """
    module = gpu.usable()
    gpu.load_cublas()
    forms = np.where(forms == GRAM, GRAM, GRAM_MOVES).astype(np.uint8)  # the product is cheap here: no sketch
    n_init = int(n_starts.max())
    start = starts(init, n_init, seeds, w, rows, row_offsets, k, result.points)
    labels, problems = np.empty(len(rows), dtype=np.int64), np.empty(len(k), dtype=np.uint8)
    points: Any = result.points
    if isinstance(X, DeviceSamples) and is_torch_tensor(X.array):
        torch = sys.modules["torch"]
        points = torch.empty(result.points.shape, dtype=torch.float32, device=X.array.device)
    on_device = points is not result.points
    module.quantize_classes(
        X.capsule() if isinstance(X, DeviceSamples) else X,
        w,
        rows,
        row_offsets,
        result.offsets,
        n_init,
        n_starts,
        *start,
        max_iter,
        forms,
        place.device,
        place.stream,
        0,
        dlpack_capsule(points, place) if on_device else points,
        result.weights,
        result.counts,
        labels,
        result.distortion,
        result.n_iter,
        problems,
        progress,
    )
    result.labels[rows] = labels
    options = {"max_iter": max_iter, "n_threads": n_threads}
    for c in map(int, np.flatnonzero(problems)):
        own, part = rows[row_offsets[c] : row_offsets[c + 1]], slice(result.offsets[c], result.offsets[c + 1])
        if problems[c] == module.NOT_FINITE:
            _refuse(X[own], own, result, c, n_threads)
        again = init if isinstance(init, str) else np.asarray(init)[part]
        refine = "none" if forms[c] == GRAM else "hartigan"
        start_of = {"init": again, "n_init": int(n_starts[c]), "random_state": [seeds[c]]}
        _on_cpu(X[own], own, result, c, w[own], refine=refine, **start_of, **options)
        if on_device:
            points[part] = sys.modules["torch"].as_tensor(result.points[part])
    if label_all:
        _label_left_out(result, points, X, w, n_threads)
    if not on_device:
        return result
    fields = {name: getattr(result, name) for name in result.__dataclass_fields__}
    return type(result)(**{**fields, "points": points})


def _label_left_out(
    result: ClassQuantization, points: Any, X: NDArray[Any] | DeviceSamples, w: NDArray[np.float64], n_threads: int
) -> None:
    """Label the samples of weight zero, mostly none or few, on the CPU; those on the GPU are not checked yet."""
    for c in map(int, np.unique(result.class_index[w == 0]) if isinstance(X, DeviceSamples) else ()):
        left_out = np.flatnonzero((result.class_index == c) & (w == 0))
        _refuse(X[left_out], left_out, result, c, n_threads)
        if points is not result.points:
            part = slice(result.offsets[c], result.offsets[c + 1])
            result.points[part] = points[part].cpu().numpy()
    label_left_out(result, X, w, n_threads, backend.isa())


def _refuse(samples: NDArray[Any], own: NDArray[np.int64], result: ClassQuantization, c: int, n_threads: int) -> None:
    """ValueError for values that are not finite, or whose products overflow."""
    bad = np.argwhere(~np.isfinite(widened(samples)))
    if len(bad):
        row, column = int(bad[0, 0]), int(bad[0, 1])
        value = widened(samples)[row, column]
        where = of_class(result.classes, c)
        raise ValueError(f"X[{own[row]}, {column}]{where} is {value}: every value must be finite")
    check_finite(samples, np.full(len(samples), c), result.classes, n_threads)


def _on_cpu(
    samples: NDArray[Any],
    own: NDArray[np.int64],
    result: ClassQuantization,
    c: int,
    w: NDArray[np.float64],
    **options: Any,
) -> None:
    """One class by the C core, from the same start, if it has enough distinct samples."""
    from ddoq.quantization.quantize import quantize_classes

    part = slice(result.offsets[c], result.offsets[c + 1])
    k = np.array([part.stop - part.start])
    check_number_of_points(samples, np.arange(len(own)), np.array([0, len(own)]), k, result.classes[c : c + 1])
    samples = widened(samples) if samples.dtype == np.uint16 else samples  # whose bits are torch's alone
    y = np.zeros(len(own), dtype=np.int64)
    one = quantize_classes(samples, y, int(k[0]), sample_weight=w, form="gram", **options)
    for name in ("points", "weights", "counts"):
        getattr(result, name)[part] = getattr(one, name)
    result.labels[own] = one.labels
    result.distortion[c], result.n_iter[c] = one.distortion[0], one.n_iter[0]
