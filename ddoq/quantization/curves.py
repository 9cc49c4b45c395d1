"""Rate-distortion curves of all classes, and the sharing of a budget of points by them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq.quantization.budget import convex_curve, grid, share
from ddoq.quantization.checks import check_sample_weight, count_distinct
from ddoq.quantization.device_samples import DeviceSamples
from ddoq.quantization.options import Init
from ddoq.quantization.solve import solve


def quantize_curves(
    X: NDArray[Any],
    class_index: NDArray[np.int64],
    classes: NDArray[Any],
    k: list[NDArray[np.int64]],
    seeds: list[np.random.SeedSequence],
    *,
    sample_weight: ArrayLike | None,
    **options: Any,
) -> list[NDArray[np.float64]]:
    """Distortion of each class for each of its own numbers of points k; options as for `solve`.

    The core shares the Gram matrix among consecutive classes of the same rows: each class is given once for each k, in
    the form of its largest one.
    """
    repeats = np.array([len(numbers) for numbers in k])
    result = solve(
        X,
        class_index,
        np.repeat(classes, repeats),
        np.concatenate(k),
        [seed for seed, repeat in zip(seeds, repeats, strict=True) for _ in range(repeat)],
        method="lloyd",
        sample_weight=sample_weight,
        progress=None,
        repeats=repeats,
        **options,
    )
    return np.split(result.distortion, np.cumsum(repeats)[:-1])


def share_budget(
    X: NDArray[Any] | DeviceSamples,
    class_index: NDArray[np.int64],
    classes: NDArray[Any],
    budget: int,
    seeds: list[np.random.SeedSequence],
    *,
    sample_weight: ArrayLike | None,
    init: Init,
    **options: Any,
) -> NDArray[np.int64]:
    if not isinstance(init, str):
        raise ValueError('init must be "k-means++" or "random" with a budget, which finds the numbers of points')
    if isinstance(X, DeviceSamples):
        raise ValueError("a budget needs the samples in host memory: give X.cpu() and device='cuda'")
    if budget < len(classes):
        raise ValueError(f"budget = {budget} is below one point for each of the {len(classes)} classes: choose more")
    w = check_sample_weight(sample_weight, len(X))
    most = budget - len(classes) + 1
    own = [np.flatnonzero((class_index == c) & (w > 0)) for c in range(len(classes))]
    limits = [max(1, count_distinct(X, rows, most)) for rows in own]
    if sum(limits) < budget:
        raise ValueError(f"budget = {budget} is above the {sum(limits)} distinct samples of all classes: choose less")
    numbers = [grid(limit) for limit in limits]
    curves = quantize_curves(X, class_index, classes, numbers, seeds, sample_weight=sample_weight, init=init, **options)
    convex = [convex_curve(k, distortion) for k, distortion in zip(numbers, curves, strict=True)]
    return share(convex, np.array([w[rows].sum() for rows in own]), budget)
