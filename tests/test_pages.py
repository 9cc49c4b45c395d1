"""The sentences of the pages that benchmarks/tables.py writes: what is counted, and what stands apart."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from ddoq.evaluation.variation import Difference

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("name", ["factorial_tables", "factorial_page", "quantiser_page"])
def test_examples_in_docstrings(name: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert found.attempted
    assert not found.failed


def test_comparisons_near_chance_and_of_few_distillations_are_told_apart() -> None:
    page, tables = (importlib.import_module(f"factorial_{name}") for name in ("page", "tables"))

    def compared(where: str, uniform: float, ends: tuple[float, float] | None, n: int, classes: int = 10) -> object:
        mean = -1.0 if ends is None else sum(ends) / 2
        difference = Difference(mean, ends, (mean,) * n)
        return tables.Comparison(where, "lloyd", "density", uniform, uniform + mean, difference, classes)

    text = "\n".join(
        page.said_of_weights(
            [
                compared("helped", 30.0, (1.0, 3.0), 3),
                compared("harmed", 30.0, (-3.0, -1.0), 2),
                compared("two classes", 54.0, (-3.0, -1.0), 3, 2),
                compared("ten classes", 18.9, (-3.0, -1.0), 3),
                compared("harmed into chance", 20.0, (-5.0, -1.0), 3),
                compared("alone", 30.0, None, 1),
            ]
        )
    )
    assert "of 3 comparisons (1 with n < 3) they help in 1 and harm in 2 (1 with n < 3)" in text
    assert "not counted: 2 comparisons near chance" in text
    assert "(55 % of 2 classes and 19 % of 10 classes)" in text
    assert "(none of their intervals are above zero, 2 below)" in text
    assert "not counted: 1 without an interval" in text
    assert "lloyd: harm on harmed (-2.00 [-3.00, -1.00], n = 2); harmed into chance (-3.00 [-5.00, -1.00])" in text
    assert "near chance, lloyd, on ten classes: density 18.9 to 16.9 %" in text
