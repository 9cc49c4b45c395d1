"""Solves a checked problem: it is planned and computed, and the samples that took no part are labelled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ddoq.quantization.assign import label_left_out
from ddoq.quantization.footprint import check_memory
from ddoq.quantization.gpu import label_left_out_on_gpu, quantize_on_gpu
from ddoq.quantization.host import quantize_on_host
from ddoq.quantization.one_pass import one_pass
from ddoq.quantization.options import Options
from ddoq.quantization.plan import plan_of, plan_of_curves
from ddoq.quantization.problem import Execution, Problem
from ddoq.quantization.result import ClassQuantization


def solve(problem: Problem, options: Options, execution: Execution) -> ClassQuantization:
    """Quantise every class of a problem into its number of points."""
    if options.method != "lloyd":
        return one_pass(problem, options, execution)
    plan = plan_of(problem, options, on_gpu=execution.gpu is not None)
    if execution.gpu is not None:
        return label_left_out_on_gpu(quantize_on_gpu(problem, options, plan, execution), problem, execution)
    check_memory(problem, plan.forms, options.refine, execution.n_threads)
    result = quantize_on_host(problem, options, plan, execution)
    label_left_out(result, problem, execution.n_threads)
    return result


def solve_curves(
    problem: Problem, numbers: list[NDArray[np.int64]], options: Options, execution: Execution
) -> list[NDArray[np.float64]]:
    """Distortion of each class for each of its own `numbers` of points; the problem's k are the largest of them.

    Each class is computed in the form of its largest number of points, so that all of them share its Gram matrix.
    """
    on_gpu = execution.gpu is not None
    largest = plan_of(problem, options, on_gpu=on_gpu)
    repeats = np.array([len(ks) for ks in numbers])
    repeated = problem.repeated(numbers)
    plan = plan_of_curves(repeated, largest, repeats, options, on_gpu=on_gpu)
    if on_gpu:
        result = quantize_on_gpu(repeated, options, plan, execution)
    else:
        check_memory(problem, largest.forms, options.refine, execution.n_threads)
        result = quantize_on_host(repeated, options, plan, execution)
    return np.split(result.distortion, np.cumsum(repeats)[:-1])
