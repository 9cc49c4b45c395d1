"""The table of an evaluation: text, JSON, CSV and LaTeX."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ddoq.evaluation.table import Evaluation, Row

ROWS = (
    Row("full data", "uniform", "convnet3", "dc", 9000, (90.0,)),
    Row("random subset", "uniform", "convnet3", "dc", 100, (50.0, 60.0, 55.0), 3),
    Row("decode", "uniform", "convnet3", "dc", 100, (70.0, 71.0, 70.0, 73.0), 2),
    Row("decode", "density", "convnet3", "dc", 100, (71.0, 72.0, 72.0, 75.0), 2),
    Row("decode", "uniform", "convnet3", "dc", 50, (9.5,)),
)


def test_table_text() -> None:
    head, rule, *lines = str(Evaluation(ROWS, 30, ("a note",))).splitlines()
    assert len(rule) == len(head)
    assert [" ".join(line.split()) for line in [head, *lines[:5]]] == [
        "set weights student images accuracy % n minus uniform between within IOR HLR protocol",
        "full data uniform convnet3 9000 90.00 ± - 1 dc",
        "random subset uniform convnet3 100 55.00 ± 5.00 3 35.00 dc",
        "decode uniform convnet3 100 71.00 ± 1.41 2 x 2 0.00 1.58 +16.00 19.00 dc",
        "decode density convnet3 100 72.50 ± 1.73 2 x 2 +1.50 [-4.85, +7.85] (2 distillations) "
        "0.87 1.58 +17.50 17.50 dc",
        "decode uniform convnet3 50 9.50 ± - 1 80.50 dc",
    ]
    assert lines[5:] == [
        "accuracy: mean ± standard deviation of n trainings, after the last epoch",
        "minus uniform: difference to the same images without weights, paired by distillation and student; [95% "
        "interval: Student's t over the distillations' mean differences]",
        "(2 distillations): the interval rests on two numbers, with one degree of freedom",
        "between, within: deviations between distillations, and between students of one (one-way random effects)",
        "IOR: improvement over as many random images (DD-Ranking)",
        "HLR: what is missing to the full data, with hard labels (DD-Ranking)",
        "a note",
    ]
    assert "IOR" not in str(Evaluation(ROWS[2:], 30))
    equal = replace(ROWS[3], accuracies=(71.1, 72.1, 71.1, 74.1))
    text = str(Evaluation((ROWS[2], equal), 30))
    assert "+1.10 (2 equal)" in text
    assert "equal: the distillations' differences are the same, which gives no interval" in text
    assert "[" not in text


def test_the_full_data_are_those_of_the_last_call() -> None:
    before = Evaluation((Row("full data", "uniform", "convnet3", "dc", 9000, (90.0,)), *ROWS[2:]), 30)
    full = Row("full data", "uniform", "convnet3", "dc", 8000, (88.0,))
    table = Evaluation((full, ROWS[2]), 30).gathered(before)
    assert [row.images for row in table.rows if row.set == "full data"] == [8000]
    (recovery,) = {table.hard_label_recovery(row) for row in table.rows if row == ROWS[2]}
    assert recovery == pytest.approx(88.0 - ROWS[2].mean)


def test_table_json_csv_and_latex(tmp_path: Path) -> None:
    table = Evaluation((*ROWS, Row("a_b", "any", "convnet3", "dc", 10, (1.0,))), 30, ("a note",))
    for suffix in ("json", "csv", "tex"):
        table.save(tmp_path / f"table.{suffix}")
    saved = json.loads((tmp_path / "table.json").read_text())
    assert saved == table.to_json()
    assert Evaluation.from_json(saved) == table
    density = saved["rows"][3]
    assert density["std"] == pytest.approx(np.std(ROWS[3].accuracies, ddof=1))
    assert density["mean"] == statistics.fmean(ROWS[3].accuracies)
    assert (density["ior"], density["hlr"], density["minus_uniform"]) == (17.5, 17.5, 1.5)
    assert (saved["rows"][0]["std"], saved["rows"][0]["n"], saved["rows"][0]["hlr"]) == (None, 1, None)
    with open(tmp_path / "table.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["mean"]) for line in lines] == [row.mean for row in table.rows]
    assert (lines[0]["std"], lines[3]["minus_uniform_low"]) == ("", str(density["minus_uniform_low"]))
    tex = (tmp_path / "table.tex").read_text()
    assert r"a\_b & any & convnet3 & 10 & ~1.00 $\pm$ - & 1" in tex.replace("&  1.00", "& ~1.00")
    assert tex.count("&") == 11 * 7  # the head and six rows of twelve columns
    with pytest.raises(ValueError, match="must end with"):
        table.save(tmp_path / "table.xlsx")
