"""The checks that all functions share: positive integers, optional libraries."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ddoq.machine.arguments import positive
from ddoq.machine.extras import need


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.uint8(2)])
def test_a_positive_integer_becomes_an_int(value: int) -> None:
    assert type(positive("k", value)) is int
    assert positive("k", value) == value


@pytest.mark.parametrize("value", [0, -1, np.int64(0)])
def test_a_small_one_is_refused_by_name(value: int) -> None:
    with pytest.raises(ValueError, match="k must be an integer of at least 1, got"):
        positive("k", value)
    assert positive("k", value, least=-1) == value


@pytest.mark.parametrize("value", [True, 1.0, "1", None, np.float64(2)])
def test_what_is_no_integer_is_refused_by_name(value: object) -> None:
    with pytest.raises(TypeError, match="k must be an integer of at least 1, got"):
        positive("k", value)


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModuleNotFoundError, match=r"a report needs jinja2: pip install 'ddoq\[report\]'"):
        need("jinja2", "a report")


def test_a_library_that_is_broken_inside_says_so_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2.nothing_of_the_kind", None)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_the_kind"):
        need("jinja2.nothing_of_the_kind", "a report")
