"""The sections of docs/results.md on where weights help, from results/factorial.json and, for digits, ablation.json."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from common import load_result
from factorial_plan import METHODS, NEAREST, RANDOM, STUDENTS, Row, missing, parts
from factorial_tables import (
    NAMES,
    WEIGHTS,
    Comparison,
    Table,
    comparisons,
    groups,
    near_chance,
    of,
    tables,
    trained_on,
)

from ddoq.evaluation.variation import Difference, components

ABOUT = {
    "digits": "8 x 8, quantised in pixels; 360 test images. The cells are below, under the digits' own heading.",
    "mnist": "28 x 28, quantised in pixels; the first 3,000 test images.",
    "parity": "MNIST's even and odd digits, quantised in pixels: 5,280, 2,640, 1,320, 660 and 330 images of 0, 2, 4, 6,"
    " 8 and of 1, 3, 5, 7, 9. Accuracy is that in the population of these masses, from the accuracy of each digit among"
    " the first 3,000 test images; beside it that where all digits are equally frequent.",
    "cifar10": "JPEG, quality 75; TAEF2 at 64 px, decoded and halved; 10,000 test images. Soft labels are of ResNet-20,"
    " accuracies by the true labels; chance is 10 %.",
    "imagenette-64": "TAEF2; resnet18 with its standard stem; 3,925 validation images; soft labels of networks trained"
    " on all images.",
    "imagenette-112": "As at 64 px, on a GPU: minibatch points alone.",
    "imagenette-224": "As at 64 px, on a GPU: minibatch points alone.",
}
UNMEASURED = "the variation of their weights, W2 and errors of gradients were not measured"


def factorial_section() -> list[str]:
    found = tables()
    if not found:
        return []
    compared = comparisons(found)
    lines = ["## Where do weights help?", "", *_summary(compared), *_said(found, compared), *_not_measured(found)]
    for data in dict.fromkeys(table.row.data for table in found):
        own = [table for table in found if table.row.data == data]
        lines += [f"### {NAMES[data]}", "", ABOUT[data], ""]
        for table in own:
            if (
                table.row.labels == "hard"
                or table.row.data == "cifar10"
                or (data == "imagenette-64" and table.row.student == table.row.labels == "resnet18")
            ):
                lines += _cells(table)
        for ipc in (10, 50):
            lines += _teachers([table for table in own if table.row.labels in STUDENTS and table.row.ipc == ipc])
        lines += [f"{place}." for place in load_result("factorial")[data]["facts"]] + [""]
    return lines


def _summary(compared: list[Comparison]) -> list[str]:
    lines = [
        "Accuracy with weights minus that of the same images without, in percentage points, paired by distillation and",
        "student; in brackets the 95 % interval, Student's t over n distillations. minibatch + density is DDOQ as",
        "published, minibatch + uniform is D4M, both without diffusion: points are decoded as they are. ~: near",
        "chance with and without weights. `benchmarks/factorial.py`.",
        "",
        "| trained on | points | uniform % | density | sqrt | re-encoded | n |",
        "|---|---|---|---|---|---|---|",
    ]
    rows: dict[tuple[str, str], dict[str, Comparison]] = {}
    for one in compared:
        rows.setdefault((one.where, one.points), {})[one.weights] = one
    for (where, points), made in rows.items():
        cells = [
            _difference(made[weights].difference) + " ~" * made[weights].near_chance if weights in made else ""
            for weights in WEIGHTS
        ]
        uniform = f"{next(iter(made.values())).uniform:.1f}"
        n = " / ".join(dict.fromkeys(str(one.difference.n) for one in made.values()))
        lines.append(f"| {where} | {points} | {uniform} | {' | '.join(cells)} | {n} |")
    return [*lines, ""]


def said_of_weights(compared: list[Comparison]) -> list[str]:
    """Which intervals leave out zero, in words. Comparisons near chance and those without one are apart."""
    near = [one for one in compared if one.near_chance]
    judged = [one for one in compared if one.verdict and not one.near_chance]
    lines = []
    if judged:
        lines.append(
            f"- weights of any kind: of {_counted(judged, 'intervals')} {_verdict(judged, 'help')} are above zero and"
            f" {_verdict(judged, 'harm')} below; by luck alone one in twenty would leave it out"
        )
    density = [one for one in judged if one.weights == "density"]
    if density:
        lines.append(
            f"- density weights, which are what the talk proposes: of {_counted(density, 'comparisons')} they help"
            f" in {_verdict(density, 'help')} and harm in {_verdict(density, 'harm')}"
        )
    if near:
        limits = " and ".join(f"{near_chance(c):.0f} % of {c} classes" for c in sorted({one.classes for one in near}))
        lines.append(
            f"- not counted: {_counted(near, 'comparisons')} near chance, where both accuracies are less than a tenth"
            f" of the way from chance to 100 % ({limits}): such students can show next to nothing of weights"
            f" ({_verdict(near, 'help')} of their intervals are above zero, {_verdict(near, 'harm')} below)"
        )
    alone = [one for one in compared if not one.verdict and not one.near_chance]
    if alone:
        lines.append(
            f"- not counted: {len(alone)} without an interval, of one distillation or of several that are equal"
        )
    for points in dict.fromkeys(one.points for one in compared):
        for verdict in ("help", "harm", "cannot be told from none"):
            where = [
                f"{one.where} ({_difference(one.difference)}{_few(one)})"
                for one in density
                if (one.points, one.verdict) == (points, verdict)
            ]
            lines += [f"- density weights, {points}: {verdict} on {'; '.join(where)}"] * bool(where)
    apart: dict[str, list[str]] = {}
    for one in near:
        text = f"{one.weights} {one.uniform:.1f} to {one.weighted:.1f} %{_few(one)}"
        apart.setdefault(f"{one.points}, on {one.where}", []).append(text)
    lines += [f"- near chance, {where}: {'; '.join(texts)}" for where, texts in apart.items()]
    return lines


def _verdict(found: list[Comparison], verdict: str) -> str:
    return _counted([one for one in found if one.verdict == verdict])


def _counted(found: list[Comparison], what: str = "") -> str:
    """How many, and how many of these are of fewer than 3 distillations.

    >>> made = [Comparison("", "", "", 50.0, 51.0, Difference(1.0, (0.5, 1.5), (1.0,) * n)) for n in (3, 2)]
    >>> _counted(made, "intervals"), _counted(made[:1]), _counted([])
    ('2 intervals (1 with n < 3)', '1', 'none')
    """
    few = sum(one.difference.n < 3 for one in found)
    return f"{len(found) or 'none'} {what}".rstrip() + f" ({few} with n < 3)" * bool(few)


def _few(one: Comparison) -> str:
    """A mark for fewer than 3 distillations, whose interval is wide or missing."""
    return f", n = {one.difference.n}" if one.difference.n < 3 else ""


def _said(found: list[Table], compared: list[Comparison]) -> list[str]:
    """What weights do to accuracies, where points stand, and what weights do to distance and gradient, in words."""
    lines = ["What was found:", "", *said_of_weights(compared)]
    for points in [*METHODS, NEAREST]:
        above = {}
        for table in found:
            own, random = (table.values(name, "uniform").values() for name in (points, RANDOM))
            if own and random:
                above[trained_on(table.row)] = f"{statistics.fmean(own) - statistics.fmean(random):+.1f}"
        lines += _listed(f"uniform weights, {points}: accuracy minus that of as many random real images", above)
    for what, value in (("W2 of the points to the data", partial(_w2, "points")), ("error of the gradient", _gradient)):
        for points in METHODS:
            changes = {}
            for table in (table for table in found if table.row.ipc > 1):
                weighted, uniform = (table.measure(points, value(w)) for w in ("density", "uniform"))
                if weighted is not None and uniform is not None:
                    changes[of(table.row)] = f"{100 * (weighted / uniform - 1):+.1f} %"
            lines += _listed(f"density weights, {points}: {what} against uniform ones", changes)
    return [*lines, ""]


def _listed(what: str, found: dict[str, str]) -> list[str]:
    return [f"- {what} " + "; ".join(f"{value} on {where}" for where, value in found.items())] if found else []


def _not_measured(found: list[Table]) -> list[str]:
    lacking = {part: (len(missing(rows)), len(rows)) for part, rows in parts().items()}
    told = [f"{part} {count} of {total}{_whole(parts()[part])}" for part, (count, total) in lacking.items() if count]
    # the digits' points are measured in ablation.json
    bare = dict.fromkeys(of(table.row) for table in found if not table.measured and table.row.data != "digits")
    return [
        *([f"Rows not yet measured: {', '.join(told)}.", ""] if told else []),
        "Not measured: the same cells with diffusion (see the models of one's own above), ImageNet-1K, random images",
        "at IPC 50. Gradient errors are those with hard labels throughout.",
        *([f"The points of {'; '.join(bare)} have accuracies alone: {UNMEASURED}."] if bare else []),
        "",
    ]


def _whole(rows: list[Row]) -> str:
    """Which students and IPCs are missing altogether, in brackets."""
    left = missing(rows)
    done = [row for row in rows if row not in left and row.points != "teacher"]
    names = [row.student for row in left if row.student not in {one.student for one in done}]
    names += [f"IPC {row.ipc}" for row in left if row.ipc not in {one.ipc for one in done}]
    return f" (all of {' and of '.join(dict.fromkeys(names))})" if done and names else ""


def _cells(table: Table) -> list[str]:
    row = table.row
    protocol = _protocol([table])
    labels = "hard labels" if row.labels == "hard" else f"soft labels of {row.labels}"
    equal = ["equally frequent", "minus uniform"] * (row.data == "parity")
    images = [of for of in ("points", "images") if any(table.measure(p, _w2(of, "uniform")) for p in table.measured)]
    head = ["points", "weights", "accuracy %", "n", "minus uniform", "between", "within", "minus random", *equal]
    head += ["variation", *(f"W2 of the {of}" for of in images), "gradient error"]
    lines = [f"**IPC {row.ipc}**, {labels}, {row.student}, protocol `{protocol}`", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    random = table.values(RANDOM, "uniform")
    for points, weights in sorted(table.cells, key=lambda cell: _order(*cell)):
        cell = groups(table.values(points, weights))
        mean = statistics.fmean(value for group in cell for value in group)
        between, within = components(cell)
        above = mean - statistics.fmean(random.values()) if random and points != RANDOM else None
        texts = [points, weights if row.ipc > 1 else "any", _accuracy(cell), f"{len(cell)} x {len(cell[0])}"]
        texts += [_difference(table.difference(points, weights)), _number(between), _number(within)]
        texts.append(_number(above, "+.1f"))
        if equal:
            texts += [_accuracy(groups(table.values(points, weights, "equal")))]
            texts.append(_difference(table.difference(points, weights, "equal")))
        texts.append(_number(table.measure(points, lambda one, w=weights: one["variation"].get(w))))  # type: ignore[misc]
        texts += [_number(table.measure(points, _w2(of, weights)), ".3f") for of in images]
        texts.append(_number(table.measure(points, _gradient(weights)), ".3f"))
        lines.append("| " + " | ".join(texts) + " |")
    one = [one for one in tables() if (one.row.data, one.row.ipc) == (row.data, 1)]
    distance = one[0].measure("lloyd", _w2("points", "density")) if one and row.ipc != 1 else None
    lines += ["", *([f"W2 of one point per class: {distance:.3f}.", ""] if distance is not None else [])]
    return lines


def _teachers(found: list[Table]) -> list[str]:
    """Table 4 in small, of one data set and IPC."""
    by_pair = {(table.row.labels, table.row.student): table for table in found}
    if len(by_pair) < 2:
        return []
    row = found[0].row
    rows = load_result("factorial")[row.data]["rows"]
    names = [name for name in STUDENTS if any(name == teacher for teacher, _ in by_pair)]
    students = [name for name in STUDENTS if any(name == student for _, student in by_pair)]
    told = ", ".join(f"{name} {rows[f'teacher {name}']['accuracy']:.1f} %" for name in names)
    lines = [
        f"Table 4 of the talk in small: minibatch points, IPC {row.ipc}, protocol `{_protocol(found)}`. Teachers' own"
        f" accuracies: {told}." + ("" if found[0].measured else f" These points have accuracies alone: {UNMEASURED}."),
        "",
        "| teacher | weights | " + " | ".join(f"student {name}" for name in students) + " |",
        "|---" * (2 + len(students)) + "|",
    ]
    for teacher in names:
        for weights in ("uniform", "density", "density minus uniform"):
            cells = []
            for student in students:
                table = by_pair.get((teacher, student))
                there = table is not None and table.values("minibatch", "density")
                if table is None or not there:
                    cells.append("")
                elif weights.endswith("uniform") and weights != "uniform":
                    cells.append(_difference(table.difference("minibatch", "density")))
                else:
                    cells.append(_accuracy(groups(table.values("minibatch", weights))))
            lines.append(f"| {teacher} | {weights} | {' | '.join(cells)} |")
    return [*lines, ""]


def _protocol(found: list[Table]) -> str:
    return " / ".join(dict.fromkeys(one["protocol"] for t in found for cell in t.cells.values() for one in cell))


def _w2(of: str, weights: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda one: one["w2"].get(of, {}).get(weights)


def _gradient(weights: str) -> Callable[[dict[str, Any]], float | None]:
    def mean(one: dict[str, Any]) -> float | None:
        errors = one["gradients"]["errors"].get(weights)
        return None if errors is None else statistics.fmean(errors)

    return mean


def _order(points: str, weights: str) -> tuple[int, int]:
    return [RANDOM, NEAREST, *METHODS].index(points), ["uniform", *WEIGHTS].index(weights)


def _accuracy(cell: list[list[float]]) -> str:
    values = [value for group in cell for value in group]
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _difference(found: Difference | None) -> str:
    if found is None:
        return ""
    interval = "" if found.interval is None else f" [{found.interval[0]:+.2f}, {found.interval[1]:+.2f}]"
    return f"{found.mean:+.2f}{interval}"


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else f"{value:{form}}"
