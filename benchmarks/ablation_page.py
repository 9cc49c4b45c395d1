"""The section of docs/results.md on the ablation of points and weights, from results/ablation.json."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from common import load_result

from ddoq.evaluation.table import Evaluation, explained

WEIGHTINGS = ("uniform", "density", "sqrt")


def ablation_section(machine: Callable[[dict[str, Any]], str]) -> list[str]:
    result = load_result("ablation")
    if not result:
        return []
    table = Evaluation.from_json(result)
    columns = {name: cells for name, cells in table.columns.items() if name not in ("student", "protocol", "images")}
    protocol, first = table.rows[0].protocol, next(row for row in table.rows if row.weighting == "density")
    return [
        "## scikit-learn's digits: points and weights",
        "",
        f"{first.images} of 1,437 images, IPC 10, quantised in pixels and decoded as they are; ConvNet-3, protocol",
        f"`{protocol}`, {table.test_images} test images. n: distillations x students. `benchmarks/ablation.py`.",
        "",
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
        *("| " + " | ".join(cells) + " |" for cells in zip(*columns.values(), strict=True)),
        "",
        *(f"- {line}" for line in explained(columns)),
        "",
        "The same points, means over distillations and classes:",
        "",
        "| points | coefficient of variation | W2 weighted | W2 uniform | gradient error: "
        + " | ".join(WEIGHTINGS)
        + " |",
        "|---" * (4 + len(WEIGHTINGS)) + "|",
        *(_points(name, found) for name, found in result["points"].items()),
        "",
        f"W2 of one point per class: {result['one_point_w2']:.3f}. The gradient error is the mean along one student's "
        "training (`ddoq.evaluation.gradients`).",
        "",
        f"{machine(result['facts'])}.",
        "",
    ]


def _points(name: str, found: list[dict[str, Any]]) -> str:
    variation = statistics.fmean(value for each in found for value in each["variation"])
    distances = [statistics.fmean(each["w2"][weighting] for each in found) for weighting in ("density", "uniform")]
    errors = [statistics.fmean(value for each in found for value in each["gradient_errors"][w]) for w in WEIGHTINGS]
    return f"| {name} | {variation:.2f} | " + " | ".join(f"{value:.3f}" for value in [*distances, *errors]) + " |"
