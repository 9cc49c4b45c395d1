"""What the core tells of its forms: their numbers, the memory that a class takes in each, the trials of a seed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ddoq import _core as core
from ddoq.quantization.reference import n_trials


def test_forms_are_numbered_as_the_core_reads_them() -> None:
    assert (core.GRAM, core.GRAM_MOVES, core.SKETCH, core.STREAMING) == (0, 1, 2, 3)


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize(("n", "k", "d"), [(40, 2, 5), (700, 90, 300), (5_000_000, 2, 1)])
def test_bytes_in_gram_form_by_hand(n: int, k: int, d: int, itemsize: int) -> None:
    matrix_and_panels = (n * n + (n + 48) * min(d, 256)) * itemsize
    sums_and_vectors = 8 * (k * n + 13 * n + 7 * k + 1) + (8 + 5 * itemsize) * d
    for form in (core.GRAM, core.GRAM_MOVES):
        assert core.form_bytes(form, n, k, d, itemsize) == matrix_and_panels + sums_and_vectors


def test_a_sketch_takes_less_than_the_whole_matrix_and_streaming_the_samples() -> None:
    n, k, d = 4000, 50, 6000
    in_gram, in_sketch, streaming = (core.form_bytes(form, n, k, d, 4) for form in (1, 2, 3))
    assert in_sketch < 0.4 * in_gram
    assert 4 * n * d < streaming < 1.2 * 4 * n * d
    # there is no sketch of features that are as few already
    assert core.form_bytes(core.SKETCH, n, k, 512, 4) == core.form_bytes(core.GRAM_MOVES, n, k, 512, 4)


def test_trials_of_a_seed() -> None:
    ks = [*range(1, 3000), 10**6, 2**53]
    assert [core.seed_trials(k) for k in ks] == [2 + int(math.log(k)) for k in ks]
    assert [core.seed_trials(k) for k in ks] == [n_trials(k) for k in ks]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((4, 9, 2, 5, 4), ValueError),
        ((-1, 9, 2, 5, 4), ValueError),
        (("gram", 9, 2, 5, 4), TypeError),
        ((0, 0, 2, 5, 4), ValueError),
        ((0, 9, 2.0, 5, 4), TypeError),
        ((0, 9, 2, 2**63, 4), ValueError),
        ((2**99, 9, 2, 5, 4), OverflowError),
        ((0, 9, 2, 5), TypeError),
    ],
)
def test_bad_arguments_of_form_bytes(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        core.form_bytes(*arguments)


@pytest.mark.parametrize(("arguments", "error"), [((0,), ValueError), (("2",), TypeError), ((), TypeError)])
def test_bad_arguments_of_seed_trials(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        core.seed_trials(*arguments)
