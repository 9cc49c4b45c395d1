"""Quantisation from checked samples to a result: forms and starts are chosen, then the core computes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq.machine import backend
from ddoq.quantization.assign import label_left_out
from ddoq.quantization.checks import check_finite, check_number_of_points, check_sample_weight
from ddoq.quantization.device_samples import DeviceSamples, Place
from ddoq.quantization.footprint import check_memory
from ddoq.quantization.forms import curve_forms, forms_of
from ddoq.quantization.gpu import quantize_on_gpu
from ddoq.quantization.one_pass import one_pass
from ddoq.quantization.options import (
    Clock,
    Form,
    Init,
    Method,
    Progress,
    Refine,
    check_integer,
    check_starts,
    check_tolerance,
)
from ddoq.quantization.result import ClassQuantization
from ddoq.quantization.samples import real_type
from ddoq.quantization.starts import automatic_starts, starts


def solve(
    X: NDArray[Any] | DeviceSamples,
    class_index: NDArray[np.int64],
    classes: NDArray[Any],
    k: NDArray[np.int64],
    seeds: list[np.random.SeedSequence],
    *,
    method: Method,
    sample_weight: ArrayLike | None,
    init: Init,
    n_init: int | Literal["auto"],
    refine: Refine,
    form: Form,
    max_iter: int,
    tol: float,
    progress: Progress | None,
    n_threads: int | None,
    step: tuple[float, float] | None = None,
    clock: Clock = "global",
    average: bool = False,
    repeats: NDArray[np.int64] | None = None,
    place: Place | None = None,
) -> ClassQuantization:
    n_init, max_iter = check_starts(n_init), check_integer(max_iter, "max_iter")
    if refine not in ("auto", "hartigan", "none"):
        raise ValueError(f'refine must be "auto", "hartigan" or "none", not {refine!r}')
    if form not in ("auto", "gram", "streaming"):
        raise ValueError(f'form must be "auto", "gram" or "streaming", not {form!r}')
    if form == "streaming" and refine == "hartigan":
        raise ValueError('refine="hartigan" needs the Gram matrix: use form="gram", or refine="none"')
    tol = check_tolerance(tol)
    if method not in ("lloyd", "clvq", "minibatch"):
        raise ValueError(f'method must be "lloyd", "clvq" or "minibatch", not {method!r}')
    options = (init, n_init, refine, form, max_iter, tol)
    plain = isinstance(init, str) and options == ("k-means++", "auto", "auto", "auto", 300, 1e-4)
    if method != "lloyd" and (sample_weight is not None or not plain):
        names = "sample_weight, init, n_init, refine, form, max_iter and tol"
        raise ValueError(f'{names} are for method="lloyd", not {method!r}')
    if method != "clvq" and (step is not None or clock != "global" or average):
        raise ValueError(f'step, clock and average are for method="clvq", not {method!r}')
    if place is not None and (method != "lloyd" or form == "streaming"):
        raise ValueError('a GPU has method="lloyd" in Gram form alone: use device="cpu"')
    threads, isa = backend.n_threads(n_threads), backend.isa()
    w = check_sample_weight(sample_weight, len(X))
    own_classes, own_k = classes, k
    if repeats is not None:
        first = np.cumsum(repeats) - repeats
        own_classes, own_k = classes[first], np.maximum.reduceat(k, first)
    if not isinstance(X, DeviceSamples):
        check_finite(X, class_index, own_classes, threads)

    rows = np.flatnonzero(w > 0)
    narrow = np.uint16 if len(own_classes) <= 2**16 else np.int64  # which NumPy sorts in linear time
    rows = rows[np.argsort(class_index[rows].astype(narrow), kind="stable")]
    sizes = np.bincount(class_index[rows], minlength=len(own_classes))
    if not isinstance(X, DeviceSamples):  # otherwise the GPU tells which classes to look at
        check_number_of_points(X, rows, _offsets(sizes), own_k, own_classes)
    form = "gram" if place is not None else form
    forms = own_forms = forms_of(form, refine, sizes, own_k, X.shape[1])
    if repeats is not None:
        forms = curve_forms(forms_of(form, refine, np.repeat(sizes, repeats), k, X.shape[1]), np.repeat(forms, repeats))
    if method == "lloyd" and place is None:
        check_memory(sizes, own_k, X.shape[1], real_type(X.dtype), threads, own_classes, own_forms, refine)
    if repeats is not None:
        own = np.split(rows, np.cumsum(sizes)[:-1])
        rows = np.concatenate([part for part, repeat in zip(own, repeats, strict=True) for _ in range(repeat)])
        sizes = np.repeat(sizes, repeats)
    row_offsets, point_offsets = _offsets(sizes), _offsets(k)
    n_starts = np.full(len(k), n_init) if n_init != "auto" else automatic_starts(init, forms, k, place is not None)
    n_init = int(n_starts.max())

    result = _empty_result(X, class_index, classes, point_offsets)
    if method != "lloyd":
        assert not isinstance(X, DeviceSamples)
        one_pass(result, X, method, step, clock, average, seeds, progress, threads, isa)
        return result
    if place is not None:
        return quantize_on_gpu(
            place,
            X,
            result,
            forms,
            k,
            seeds,
            w,
            rows,
            row_offsets,
            init=init,
            n_starts=n_starts,
            max_iter=max_iter,
            progress=progress,
            n_threads=threads,
            label_all=repeats is None,
        )
    assert not isinstance(X, DeviceSamples)
    labels = np.empty(len(rows), dtype=np.int64)
    backend.core.quantize_classes(
        X,
        w,
        rows,
        row_offsets,
        point_offsets,
        n_init,
        n_starts,
        *starts(init, n_init, seeds, w, rows, row_offsets, k, result.points),
        max_iter,
        tol,
        forms,
        threads,
        isa,
        result.points,
        result.weights,
        result.counts,
        labels,
        result.distortion,
        result.n_iter,
        progress,
    )
    if repeats is None:
        result.labels[rows] = labels
        label_left_out(result, X, w, threads, isa)
    return result


def _empty_result(
    X: NDArray[Any] | DeviceSamples, class_index: NDArray[np.int64], classes: NDArray[Any], offsets: NDArray[np.int64]
) -> ClassQuantization:
    """Allocate the arrays that the core fills."""
    n_points, n_classes = int(offsets[-1]), len(classes)
    return ClassQuantization(
        classes=classes,
        class_index=class_index,
        points=np.empty((n_points, X.shape[1]), dtype=real_type(X.dtype)),
        weights=np.empty(n_points, dtype=np.float64),
        counts=np.empty(n_points, dtype=np.int64),
        offsets=offsets,
        labels=np.empty(len(X), dtype=np.int64),
        distortion=np.empty(n_classes, dtype=np.float64),
        n_iter=np.empty(n_classes, dtype=np.int64),
    )


def _offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
