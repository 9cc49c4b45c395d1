"""Shares a budget of points over classes, by their rate-distortion curves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq.quantization.budget import convex_curve, grid, share
from ddoq.quantization.checks import check_sample_weight, count_distinct
from ddoq.quantization.device_samples import DeviceSamples
from ddoq.quantization.options import Options
from ddoq.quantization.problem import Execution, checked_problem
from ddoq.quantization.solve import solve_curves


def share_budget(
    X: NDArray[Any] | DeviceSamples,
    class_index: NDArray[np.int64],
    classes: NDArray[Any],
    budget: int,
    seeds: list[np.random.SeedSequence],
    sample_weight: ArrayLike | None,
    options: Options,
    execution: Execution,
) -> NDArray[np.int64]:
    """Number (C,) of points of each class, at least one and `budget` in all, for the least sum of mass x distortion."""
    if not isinstance(options.init, str):
        raise ValueError('init must be "k-means++" or "random" with a budget, which finds the numbers of points')
    if isinstance(X, DeviceSamples):
        raise ValueError("a budget needs the samples in host memory: give X.cpu() and device='cuda'")
    if budget < len(classes):
        raise ValueError(f"budget = {budget} is below one point for each of the {len(classes)} classes: choose more")
    weights = check_sample_weight(sample_weight, len(X))
    most = budget - len(classes) + 1
    class_rows = [np.flatnonzero((class_index == c) & (weights > 0)) for c in range(len(classes))]
    limits = [max(1, count_distinct(X, rows, most)) for rows in class_rows]
    if sum(limits) < budget:
        raise ValueError(f"budget = {budget} is above the {sum(limits)} distinct samples of all classes: choose less")
    numbers = [grid(limit) for limit in limits]
    largest = np.array([ks.max() for ks in numbers])
    # the curves are of Lloyd's method, whatever quantises in the end
    options = replace(options, method="lloyd", step=None, clock="global", average=False)
    execution = replace(execution, progress=None)
    problem = checked_problem(X, class_index, classes, largest, seeds, sample_weight, options, execution)
    curves = solve_curves(problem, numbers, options, execution)
    convex = [convex_curve(ks, distortion) for ks, distortion in zip(numbers, curves, strict=True)]
    return share(convex, np.array([weights[rows].sum() for rows in class_rows]), budget)
