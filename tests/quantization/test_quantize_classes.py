"""Quantisation class by class: each class on its own, groups of classes, threads, starting points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fits import DTYPES, assert_identical, normal
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from test_quantize import assert_same_fit, isa

from ddoq.quantization import reference
from ddoq.quantization.quantize import quantize, quantize_classes

__all__ = ["isa"]


SIZES, POINTS_OF = (40, 7, 1, 33, 16), (5, 2, 1, 9, 16)


def ragged(dtype: str = "float32") -> tuple[NDArray[Any], NDArray[np.str_]]:
    names = np.repeat(["10", "2", "a b", "y", "é"], SIZES)
    shuffled = np.random.default_rng(3).permutation(len(names))
    return normal(len(names), 10, dtype), names[shuffled]


@pytest.mark.parametrize("k", [1, POINTS_OF, np.array(POINTS_OF)])
def test_classes_are_quantised_each_on_its_own(k: Any, isa: str) -> None:
    X, y = ragged()
    q = quantize_classes(X, y, k, random_state=11)
    ks = np.broadcast_to(k, 5)
    assert q.classes.tolist() == ["10", "2", "a b", "y", "é"]
    assert len(q) == 5
    assert_array_equal(q.offsets, np.concatenate([[0], np.cumsum(ks)]))
    for c, (name, k_c) in enumerate(zip(q.classes, ks, strict=True)):
        seed = np.random.SeedSequence(11, spawn_key=(c,))
        alone = quantize_classes(X[y == name], y[y == name], int(k_c), random_state=[seed])
        assert_identical(q[c], alone[0])
        assert q[c].points.shape == (k_c, 10)
    assert_identical(q[-1], q[4])
    with pytest.raises(IndexError):
        q[5]


def test_a_group_of_classes_draws_as_within_the_whole() -> None:
    X, y = ragged()
    whole = quantize_classes(X, y, POINTS_OF, random_state=2)
    group = np.isin(y, ["2", "y"])
    seeds = [np.random.SeedSequence(2, spawn_key=(c,)) for c in (1, 3)]
    part = quantize_classes(X[group], y[group], [2, 9], random_state=seeds)
    assert_identical(part[0], whole[1])
    assert_identical(part[1], whole[3])


def test_one_class_is_quantize() -> None:
    X = normal(50, 4)
    assert_identical(quantize_classes(X, np.zeros(50, dtype=int), 5, random_state=6)[0], quantize(X, 5, random_state=6))


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(dtype: str, isa: str) -> None:
    X, y = ragged(dtype)
    serial = quantize_classes(X, y, POINTS_OF, random_state=0, n_threads=1, refine="hartigan", n_init=2)
    for n_threads in (2, 3, 5, 8):
        parallel = quantize_classes(X, y, POINTS_OF, random_state=0, n_threads=n_threads, refine="hartigan", n_init=2)
        assert_identical(serial, parallel)


def test_starting_points_of_all_classes() -> None:
    X, y = ragged("float64")
    start = normal(sum(POINTS_OF), 10, seed=9)
    q = quantize_classes(X, y, POINTS_OF, init=start, refine="none")
    for c, name in enumerate(q.classes):
        class_samples = X[y == name]
        fit = reference.quantize_class(
            class_samples,
            np.ones(len(class_samples)),
            POINTS_OF[c],
            start_points=start[q.offsets[c] : q.offsets[c + 1]],
        )
        assert_same_fit(q[c], fit, class_samples)


def test_weights_of_zero_within_classes() -> None:
    X, y = ragged("float64")
    w = np.where(np.arange(len(X)) % 4 == 0, 0.0, 1.0)
    w[np.isin(y, ["a b", "é"])] = 1.0
    q = quantize_classes(X, y, (5, 1, 1, 9, 16), sample_weight=w, random_state=0)
    for c, name in enumerate(q.classes):
        assert_array_equal(q[c].labels, reference.assign(X[y == name], q[c].points)[0])
        assert q[c].counts.sum() == np.count_nonzero(w[y == name])
