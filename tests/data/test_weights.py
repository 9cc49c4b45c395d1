"""Weights from counts: by hand, their laws, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddoq.data.weights import class_weights

COUNTS, OFFSETS = np.array([9, 1, 20, 15, 5, 50]), np.array([0, 2, 5, 6])  # classes of 10, 40 and 50 images


@pytest.mark.parametrize(
    ("weighting", "prior", "wanted"),
    [
        ("density", "balanced", [1.8, 0.2, 1, 0.75, 0.25, 2]),
        ("density", "data", [0.54, 0.06, 1.2, 0.9, 0.3, 3]),
        ("uniform", "balanced", [1, 1, 2 / 3, 2 / 3, 2 / 3, 2]),
        ("uniform", "data", [0.3, 0.3, 0.8, 0.8, 0.8, 3]),
        ("sqrt", "balanced", [1.5, 0.5, 0.8556, 0.7410, 0.4278, 2]),
    ],
)
def test_weights_by_hand(weighting: str, prior: str, wanted: list[float]) -> None:
    weights = class_weights(COUNTS, OFFSETS, weighting, prior)
    np.testing.assert_allclose(weights, wanted, atol=2e-2 if weighting == "sqrt" else 1e-12)
    assert weights.dtype == np.float64


@pytest.mark.parametrize("weighting", ["density", "sqrt", "uniform"])
def test_laws_of_weights(weighting: str) -> None:
    balanced = class_weights(COUNTS, OFFSETS, weighting, "balanced")
    data = class_weights(COUNTS, OFFSETS, weighting, "data")
    assert balanced.mean() == pytest.approx(1)
    assert data.mean() == pytest.approx(1)
    np.testing.assert_allclose(np.add.reduceat(balanced, OFFSETS[:-1]), 2)
    np.testing.assert_allclose(np.add.reduceat(data, OFFSETS[:-1]), 6 * np.array([10, 40, 50]) / 100)
    power = {"density": 1, "sqrt": 0.5, "uniform": 0}[weighting]
    assert balanced[0] / balanced[1] == pytest.approx(9**power)
    assert data[2] / data[4] == pytest.approx(4**power)


def test_density_of_equal_classes_is_share_times_ipc() -> None:
    counts = np.array([3, 7, 4, 6])
    np.testing.assert_allclose(class_weights(counts, np.array([0, 2, 4]), "density"), counts / 10 * 2)


def test_an_empty_cell_weighs_nothing() -> None:
    assert class_weights(np.array([0, 4]), np.array([0, 2]), "density").tolist() == [0, 2]


@pytest.mark.parametrize(
    ("counts", "offsets", "weighting", "prior", "message"),
    [
        ([1, 1], [0, 2], "cubic", "balanced", "cubic"),
        ([1, 1], [0, 2], "density", "fair", "fair"),
        ([1, 1], [0, 1], "density", "balanced", "class_offsets"),
        ([1, 1], [0, 0, 2], "density", "balanced", "class_offsets"),
        ([1, 0], [0, 1, 2], "density", "balanced", r"classes \[1\]"),
        ([2, -1], [0, 2], "density", "balanced", "negative"),
    ],
)
def test_bad_weights(counts: Any, offsets: Any, weighting: str, prior: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_weights(np.array(counts), np.array(offsets), weighting, prior)
