"""Shares points out over classes so that the total distortion falls the most."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray


def grid(most: int) -> NDArray[np.int64]:
    """Numbers of points from 1 to `most` at which a curve is measured, steps of about the square root of two."""
    exponents = np.arange(2 * most.bit_length())
    numbers = np.unique(np.append(np.rint(2 ** (exponents / 2)).astype(np.int64), most))
    return numbers[numbers <= most]


def convex_curve(k: NDArray[np.int64], distortion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distortion for 1 to k[-1] points, not rising and convex, from a curve measured at k = 1 to k[-1].

    Between measurements a power law, linear in the logarithms, as distortion is for large k (Zador); linear next to a
    distortion of zero. Then the lower convex hull: what luck of a local minimum put above it does not count.
    """
    measured = np.minimum.accumulate(distortion)
    numbers = np.arange(1, k[-1] + 1)
    curve = np.interp(numbers, k, measured)
    positive = measured > 0
    if positive.any():
        inside = numbers <= k[positive][-1]
        curve[inside] = np.exp(np.interp(np.log(numbers[inside]), np.log(k[positive]), np.log(measured[positive])))
    hull: list[int] = []
    for i in range(len(curve)):
        while len(hull) > 1 and _above(curve, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(i)
    return np.interp(numbers, numbers[hull], curve[hull])


def _above(curve: NDArray[np.float64], a: int, b: int, c: int) -> bool:
    """Whether the curve at b is on or above the straight line from a to c."""
    return bool((curve[b] - curve[a]) * (c - a) >= (curve[c] - curve[a]) * (b - a))


def share(curves: list[NDArray[np.float64]], mass: NDArray[np.float64], budget: int) -> NDArray[np.int64]:
    """Points of each class, `budget` in all and at least one each, least sum of mass times distortion.

    curves[c][j - 1] is class c's convex distortion for j points: taking the steepest step each time is then optimal.
    The first class on ties.
    """
    k = np.ones(len(curves), dtype=np.int64)

    def step(c: int) -> tuple[float, int]:
        return float(mass[c] * (curves[c][k[c]] - curves[c][k[c] - 1])), c

    steps = [step(c) for c in range(len(curves)) if len(curves[c]) > 1]
    heapq.heapify(steps)
    for _ in range(budget - len(curves)):
        c = heapq.heappop(steps)[1]
        k[c] += 1
        if k[c] < len(curves[c]):
            heapq.heappush(steps, step(c))
    return k
