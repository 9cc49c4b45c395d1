"""Variance components and intervals: by hand, against scipy, and as laws of a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ddoq.evaluation.variation import components, grouped, paired_difference


def test_components_by_hand() -> None:
    # means 2, 6, 4 with mean square between 2 * 4 = 8; within each group 2; (8 - 2) / 2 = 3
    between, within = components([(1.0, 3.0), (5.0, 7.0), (3.0, 5.0)])
    assert (between, within) == (pytest.approx(3**0.5), pytest.approx(2**0.5))
    assert components([(0.0, 4.0), (1.0, 5.0)])[0] == 0.0  # an estimate below zero
    assert components([(1.0, 2.0, 3.0)]) == (None, 1.0)
    assert components([(1.0,), (2.0,)]) == (None, None)


def test_components_are_those_that_made_the_numbers() -> None:
    rng = np.random.default_rng(0)
    groups = 50 + 2 * rng.normal(size=(4000, 1)) + 0.5 * rng.normal(size=(4000, 3))
    between, within = components(groups.tolist())
    assert between == pytest.approx(2, rel=0.05)  # its standard error is 1.1 %
    assert within == pytest.approx(0.5, rel=0.05)


def test_interval_is_that_of_a_t_test_over_the_means() -> None:
    rng = np.random.default_rng(1)
    on, off = rng.normal(size=(2, 5, 3))
    found = paired_difference(on.tolist(), off.tolist())
    expected = stats.ttest_1samp((on - off).mean(axis=1), 0).confidence_interval(0.95)
    assert found.interval == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert (found.n, found.mean) == (5, pytest.approx((on - off).mean()))


def test_equal_differences_give_no_interval() -> None:
    for students in (1, 3):  # of 10,000 test images; sums of such percentages round
        off = [[70.01 + 0.1 * d + 0.37 * s for s in range(students)] for d in range(4)]
        on = [[accuracy + 1.13 for accuracy in group] for group in off]
        found = paired_difference(on, off)
        assert (found.mean, found.interval, found.remark) == (pytest.approx(1.13), None, "4 equal")
        on[2][0] += 0.01  # one test image
        assert paired_difference(on, off).interval is not None
    assert paired_difference([(2.0,), (3.0,)], [(1.0,), (1.0,)]).remark == "2 distillations"
    assert paired_difference([(2.0,), (3.0,), (5.0,)], [(1.0,)] * 3).remark == ""
    assert paired_difference([(2.0,)], [(1.0,)]).remark == ""


def test_students_are_no_distillations() -> None:
    one = paired_difference([(1.0, 2.0, 3.0)], [(0.0, 0.0, 0.0)])
    assert (one.mean, one.interval, one.n) == (2.0, None, 1)
    twice = paired_difference([(1.0, 1.5), (3.0, 3.5)], [(0.0, 0.5), (0.0, 0.5)])
    more = paired_difference([(1.0, 1.5) * 9, (3.0, 3.5) * 9], [(0.0, 0.5) * 9, (0.0, 0.5) * 9])
    assert twice.interval == pytest.approx(more.interval)


def test_trainings_that_are_not_balanced() -> None:
    with pytest.raises(ValueError, match="not equally many"):
        grouped((1.0, 2.0, 3.0), 2)
