"""Calls the C core: Lloyd's method on the processor."""

from __future__ import annotations

import numpy as np

from ddoq.machine import backend
from ddoq.quantization.device_samples import DeviceSamples
from ddoq.quantization.options import Options
from ddoq.quantization.plan import Plan
from ddoq.quantization.problem import Execution, Problem, offsets_of
from ddoq.quantization.result import ClassQuantization
from ddoq.quantization.samples import real_type
from ddoq.quantization.starts import starts


def empty_result(problem: Problem) -> ClassQuantization:
    """Allocate the arrays that a quantisation fills."""
    offsets = offsets_of(problem.k)
    n_points, n_classes = int(offsets[-1]), len(problem.classes)
    return ClassQuantization(
        classes=problem.classes,
        class_index=problem.class_index,
        points=np.empty((n_points, problem.X.shape[1]), dtype=real_type(problem.X.dtype)),
        weights=np.empty(n_points, dtype=np.float64),
        counts=np.empty(n_points, dtype=np.int64),
        offsets=offsets,
        labels=np.empty(len(problem.X), dtype=np.int64),
        distortion=np.empty(n_classes, dtype=np.float64),
        n_iter=np.empty(n_classes, dtype=np.int64),
    )


def quantize_on_host(problem: Problem, options: Options, plan: Plan, execution: Execution) -> ClassQuantization:
    """Quantise every class; samples of weight zero stay without labels, as do those of a class that is repeated."""
    assert not isinstance(problem.X, DeviceSamples)
    result = empty_result(problem)
    labels = np.empty(len(problem.rows), dtype=np.int64)
    backend.core.quantize_classes(
        problem.X,
        problem.weights,
        problem.rows,
        problem.offsets,
        result.offsets,
        int(plan.n_starts.max()),
        plan.n_starts,
        *starts(options.init, plan.n_starts, problem, result.points),
        options.max_iter,
        options.tol,
        plan.forms,
        execution.n_threads,
        backend.isa(),
        result.points,
        result.weights,
        result.counts,
        labels,
        result.distortion,
        result.n_iter,
        execution.progress,
    )
    result.labels[problem.rows] = labels
    return result
