"""Computes how much varies between distillations and between the students of one, and paired differences.

Trainings of a cell are balanced: S students, with the same S seeds, on each of D distillations. The distillations are
the units of inference: two students of one distillation share its images, and their spread says nothing of another
distillation. An interval is therefore Student's t over the D means, with D - 1 degrees of freedom.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

LEVEL = 0.95  # of every interval
SAME = 1e-9  # percentage points: rounding. One of a million test images moves the mean of a hundred students by 1e-6


@dataclass(frozen=True)
class Difference:
    """A mean over distillations, its interval, and what each gave.

    One distillation has no interval (None), nor have several that gave the same: their spread is less than the test
    images can show, which does not make it zero.
    """

    mean: float
    interval: tuple[float, float] | None
    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """Number of distillations."""
        return len(self.values)

    @property
    def remark(self) -> str:
        """What tells the reader to trust the interval little, or why there is none."""
        if self.interval is None:
            return f"{self.n} equal" if self.n > 1 else ""
        return "2 distillations" if self.n == 2 else ""


def grouped(values: Sequence[float], distillations: int) -> list[Sequence[float]]:
    """Values in the order of the distillations, cut into one group each.

    >>> grouped((1.0, 2.0, 3.0, 4.0), 2)
    [(1.0, 2.0), (3.0, 4.0)]
    """
    size, rest = divmod(len(values), distillations)
    if rest or not size:
        raise ValueError(f"{len(values)} trainings are not equally many for each of {distillations} distillations")
    return [values[i : i + size] for i in range(0, len(values), size)]


def components(groups: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
    """Standard deviations between distillations, and between the students of one: a one-way random-effects model.

    x_ds = m + a_d + e_ds. The mean squares between and within the D groups of S estimate S var(a) + var(e) and var(e)
    (the method of moments); an estimate of var(a) below zero is given as zero. One distillation leaves the first
    unknown, one student each leaves both: they cannot be told apart.

    References
    ----------
    Searle, Casella and McCulloch, Variance Components, 1992, section 3.5.

    Examples
    --------
    >>> components([(0.0, 2.0), (4.0, 6.0)])  # within: 2, between: (16 - 2) / 2
    (2.6457513110645907, 1.4142135623730951)
    """
    size = len(groups[0])
    if size < 2:
        return None, None
    within = statistics.fmean(statistics.variance(group) for group in groups)
    if len(groups) < 2:
        return None, math.sqrt(within)
    between = size * statistics.variance([statistics.fmean(group) for group in groups])
    return math.sqrt(max(0.0, (between - within) / size)), math.sqrt(within)


def paired_difference(on: Sequence[Sequence[float]], off: Sequence[Sequence[float]]) -> Difference:
    """Mean of on minus off and its LEVEL interval over the distillations.

    Within a distillation a student is compared with itself: same images, same seed, other weights. The mean of these
    differences is one number a distillation, and the interval is Student's t over these.

    Examples
    --------
    >>> paired_difference([(2.0, 3.0), (4.0, 5.0)], [(1.0, 2.0), (1.0, 2.0)])  # 1 and 3; t = 12.7
    Difference(mean=2.0, interval=(-10.706..., 14.706...), values=(1.0, 3.0))
    """
    means = [
        statistics.fmean(x - y for x, y in zip(with_weights, without, strict=True))
        for with_weights, without in zip(on, off, strict=True)
    ]
    mean = statistics.fmean(means)
    if max(means) - min(means) <= SAME:
        return Difference(mean, None, tuple(means))
    quantile = float(stdtrit(len(means) - 1, (1 + LEVEL) / 2))
    half = quantile * statistics.stdev(means) / math.sqrt(len(means))
    return Difference(mean, (mean - half, mean + half), tuple(means))
