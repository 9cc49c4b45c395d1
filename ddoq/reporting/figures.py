"""Draws the figures of a report as SVG and as marks on strips of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddoq.evaluation.gradients import Agreement
from ddoq.evaluation.table import FULL, RANDOM, Evaluation
from ddoq.reporting import findings
from ddoq.reporting.charts import Axis, Line, line_chart, map_chart
from ddoq.reporting.latent_map import Map, latent_map
from ddoq.stages.distances import Distance
from ddoq.storage.run import Run

STYLES = 10  # colours of lines and classes in the style sheet
COLOURS = {"density": "s0", "uniform": "s1", "sqrt": "s2", "reencoded": "s4"}


def spread_row(spread: findings.Spread, spreads: Sequence[findings.Spread]) -> dict[str, Any]:
    most = max(float(class_spread.weights.max()) for class_spread in spreads)
    return {"spread": spread, "dots": (100 * spread.weights / most).round(2).tolist(), "one": 100 / most}


def distance_bars(rows: Sequence[Distance]) -> list[dict[str, Any]]:
    """W2 by set, each with its share of the greatest."""
    most = max((row.mean for row in rows), default=1.0) or 1.0
    groups: dict[str, list[tuple[str, float, float]]] = {}
    for row in rows:
        groups.setdefault(row.set, []).append((row.weighting, row.mean, 100 * row.mean / most))
    return [{"set": name, "bars": bars} for name, bars in groups.items()]


def curve_chart(curve: findings.Curve, ipc: int | None) -> str:
    share = 100 * curve.distortion / np.maximum(curve.distortion[:, :1], 1e-300)
    k = curve.k.tolist()
    lines = [
        Line(k, y.tolist(), f"s{c}", name, marks=True)
        for c, (name, y) in enumerate(zip(curve.names, share, strict=True))
    ]
    x = Axis.around([1, *k], log=True)
    mark = None if ipc is None else (float(ipc), f"this run: {ipc}")
    y = Axis.around(share.ravel().tolist(), zero=True)
    return line_chart(lines, x, y, "points per class", "% of one point's", "Distortion by number of points", mark)


def class_map(class_of_map: Map) -> str:
    clouds = [(latents, f"s{c % STYLES}") for c, latents in enumerate(class_of_map.latents)]
    points = [
        (points, weights, f"s{c % STYLES}", name)
        for c, (points, weights, name) in enumerate(
            zip(class_of_map.points, class_of_map.weights, class_of_map.names, strict=True)
        )
    ]
    return map_chart(clouds, points, "Latents and points of all classes in a plane")


def panels(run: Run, most: int = 6) -> list[tuple[str, str]]:
    """A map of its own for each of the first classes."""
    panels = []
    for c in range(min(len(run.class_names), most)):
        plane = latent_map(run, range(c, c + 1))
        if plane is not None:
            drawn = [(plane.points[0], plane.weights[0], "s0", plane.names[0])]
            title = f"Latents and points of {plane.names[0]}"
            panels.append((plane.names[0], map_chart([(plane.latents[0], "none")], drawn, title, side=240)))
    return panels


def accuracy_strips(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Every training's accuracy as a place on one axis, by row; full data apart, which may be far away."""
    shown = [row for row in evaluation.rows if row.set != FULL]
    values = [value for row in shown for value in row.accuracies]
    axis = Axis.around(values or [0.0])
    return [
        {
            "row": row,
            "dots": [round(100 * axis.place(value), 2) for value in row.accuracies],
            "mean": round(100 * axis.place(row.mean), 2),
            "low": axis.low,
            "high": axis.high,
            "quiet": row.set == RANDOM,
        }
        for row in shown
    ]


def difference_strips(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Weights on minus off: each distillation's mean difference and the interval, on one axis with 0."""
    differences = [
        (row, difference) for row in evaluation.rows if (difference := evaluation.difference(row)) is not None
    ]
    values = [
        0.0,
        *(value for _, difference in differences for value in (*difference.values, *(difference.interval or ()))),
    ]
    axis = Axis.around(values)
    return [
        {
            "row": row,
            "difference": difference,
            "dots": [round(100 * axis.place(value), 2) for value in difference.values],
            "mean": round(100 * axis.place(difference.mean), 2),
            "zero": round(100 * axis.place(0.0), 2),
            "interval": difference.interval and [round(100 * axis.place(value), 2) for value in difference.interval],
        }
        for row, difference in differences
    ]


def agreement_chart(name: str, how: str, agreement: Agreement) -> dict[str, Any]:
    """The gradient's error by epoch, a line for each weighting, measured as `how` says."""
    lines = [
        Line(agreement.epochs, values, COLOURS.get(weighting, "s8"), weighting, marks=True)
        for weighting, values in agreement.errors.items()
    ]
    y = Axis.around([value for line in lines for value in line.y], zero=True)
    svg = line_chart(
        lines, Axis.around(list(agreement.epochs)), y, "epoch", "|g − g set| / |g|", f"Gradient error of {name}"
    )
    return {"name": name, "how": how, "svg": svg, "legend": [(line.style, line.name) for line in lines]}


def training_charts(run: Run, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Charts of the loss and, where protocols look on the way, the accuracy by epoch, with their legends: of each
    protocol, a line for each of the first STYLES rows whose logs are here.
    """
    charts = []
    for protocol in dict.fromkeys(row.protocol for row in evaluation.rows):
        rows = [row for row in evaluation.rows if row.protocol == protocol]
        for value, title, label in (("loss", "Loss", "mean weighted loss"), ("accuracy", "Accuracy on the way", "%")):
            lines: list[Line] = []
            for row in rows:
                epochs, values = findings.curve(run, evaluation.test_set, row, value)  # type: ignore[arg-type]
                if len(epochs) > 1 and len(lines) < STYLES:
                    name = f"{row.set}, {row.weighting}, {row.student}, {row.images} images"
                    lines.append(Line(epochs, values, f"s{len(lines)}", name))
            if lines:
                x = Axis.around([epoch for line in lines for epoch in line.x])
                y = Axis.around([number for line in lines for number in line.y], log=value == "loss")
                svg = line_chart(lines, x, y, "epoch", label, f"{title} by epoch, {protocol}")
                legend = [(line.style, line.name) for line in lines]
                charts.append({"title": title, "protocol": protocol, "svg": svg, "legend": legend})
    return charts
