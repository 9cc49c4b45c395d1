"""Calls the CUDA part, and the C core for the classes that it leaves over.

The arithmetic is that of the C core in Gram form (`csrc/cuda`), from the same random numbers. What the GPU cannot tell
from its products alone - samples too alike for float32, values that are not finite - goes to the CPU's checks and core,
class by class.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ddoq.machine import gpu
from ddoq.quantization.assign import label_left_out
from ddoq.quantization.checks import check_finite, check_number_of_points, of_class
from ddoq.quantization.device_samples import DeviceSamples, dlpack_capsule, is_torch_tensor
from ddoq.quantization.footprint import check_memory
from ddoq.quantization.forms import GRAM, GRAM_MOVES
from ddoq.quantization.host import empty_result, quantize_on_host
from ddoq.quantization.options import Options
from ddoq.quantization.plan import Plan
from ddoq.quantization.problem import Execution, Problem
from ddoq.quantization.result import ClassQuantization, point_range
from ddoq.quantization.samples import widened
from ddoq.quantization.starts import starts


def quantize_on_gpu(problem: Problem, options: Options, plan: Plan, execution: Execution) -> ClassQuantization:
    """Quantise every class; samples of weight zero stay without labels. Points of torch's tensors are a tensor."""
    assert execution.gpu is not None
    module = gpu.usable()
    gpu.load_cublas()
    # the product is cheap here: no sketch
    plan = replace(plan, forms=np.where(plan.forms == GRAM, GRAM, GRAM_MOVES).astype(np.uint8))
    result = empty_result(problem)
    labels, problems = np.empty(len(problem.rows), dtype=np.int64), np.empty(len(problem.k), dtype=np.uint8)
    start = starts(options.init, plan.n_starts, problem, result.points)
    points = _points_on_device(problem, result)
    module.quantize_classes(
        problem.X.capsule() if isinstance(problem.X, DeviceSamples) else problem.X,
        problem.weights,
        problem.rows,
        problem.offsets,
        result.offsets,
        int(plan.n_starts.max()),
        plan.n_starts,
        *start,
        options.max_iter,
        plan.forms,
        execution.gpu.number,
        execution.gpu.stream,
        0,
        result.points if points is None else dlpack_capsule(points, execution.gpu),
        result.weights,
        result.counts,
        labels,
        result.distortion,
        result.n_iter,
        problems,
        execution.progress,
    )
    result.labels[problem.rows] = labels
    for c in map(int, np.flatnonzero(problems)):
        if problems[c] == module.NOT_FINITE:
            _refuse(problem.X[problem.class_rows(c)], problem.class_rows(c), problem, c, execution)
        _quantize_class_on_host(c, problem, options, plan, execution, result)
        if points is not None:
            in_class = point_range(result, c)
            points[in_class] = sys.modules["torch"].as_tensor(result.points[in_class])
    return result if points is None else replace(result, points=points)


def label_left_out_on_gpu(result: ClassQuantization, problem: Problem, execution: Execution) -> ClassQuantization:
    """Label the samples of weight zero, mostly none or few, on the CPU; those on the GPU are not checked yet."""
    on_host, points = result, cast(Any, result.points)
    if not isinstance(result.points, np.ndarray):
        on_host = replace(result, points=np.empty(tuple(result.points.shape), dtype=np.float32))
    if isinstance(problem.X, DeviceSamples):
        for c in map(int, np.unique(result.class_index[problem.weights == 0])):
            rows = np.flatnonzero((result.class_index == c) & (problem.weights == 0))
            _refuse(problem.X[rows], rows, problem, c, execution)
            if on_host is not result:
                in_class = point_range(result, c)
                on_host.points[in_class] = points[in_class].cpu().numpy()
    label_left_out(on_host, problem, execution.n_threads)
    return result


def _points_on_device(problem: Problem, result: ClassQuantization) -> Any:
    """Memory for points beside the samples of a torch tensor on the GPU; None where the points are NumPy's."""
    if not (isinstance(problem.X, DeviceSamples) and is_torch_tensor(problem.X.array)):
        return None
    torch = sys.modules["torch"]
    return torch.empty(result.points.shape, dtype=torch.float32, device=problem.X.array.device)


def _refuse(samples: NDArray[Any], rows: NDArray[np.int64], problem: Problem, c: int, execution: Execution) -> None:
    """ValueError for values that are not finite, or whose products overflow."""
    bad = np.argwhere(~np.isfinite(widened(samples)))
    if len(bad):
        row, column = int(bad[0, 0]), int(bad[0, 1])
        value = widened(samples)[row, column]
        where = of_class(problem.classes, c)
        raise ValueError(f"X[{rows[row]}, {column}]{where} is {value}: every value must be finite")
    check_finite(samples, execution.n_threads)


def _quantize_class_on_host(
    c: int, problem: Problem, options: Options, plan: Plan, execution: Execution, result: ClassQuantization
) -> None:
    """Quantise one class by the C core, from the same start, if it has enough distinct samples."""
    alone, in_class = problem.only(c), point_range(result, c)
    assert not isinstance(alone.X, DeviceSamples)
    check_finite(alone.X, execution.n_threads, class_index=alone.class_index, classes=alone.classes)
    check_number_of_points(alone.X, alone.rows, alone.offsets, alone.k, alone.classes)
    init = options.init if isinstance(options.init, str) else np.asarray(options.init)[in_class]
    plan = Plan(plan.forms[c : c + 1], plan.n_starts[c : c + 1])
    check_memory(alone, plan.forms, options.refine, execution.n_threads)
    single = quantize_on_host(alone, replace(options, init=init), plan, replace(execution, gpu=None, progress=None))
    result.points[in_class], result.weights[in_class], result.counts[in_class] = (
        single.points,
        single.weights,
        single.counts,
    )
    result.labels[problem.class_rows(c)] = single.labels
    result.distortion[c], result.n_iter[c] = single.distortion[0], single.n_iter[0]
