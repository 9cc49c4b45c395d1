"""The sections of docs/results.md on where weights help, from results/factorial.json and, for digits, ablation.json."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from common import load_result
from factorial_plan import METHODS, NEAREST, RANDOM, STUDENTS, Row, missing, parts

from ddoq.evaluation import Evaluation
from ddoq.variation import Difference, components, paired_difference

NAMES = {"digits": "digits", "mnist": "MNIST", "parity": "MNIST parity", "cifar10": "CIFAR-10 (JPEG)"}
NAMES |= {f"imagenette-{side}": f"ImageNette {side} px" for side in (64, 112, 224)}
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
WEIGHTS = ("density", "sqrt", "reencoded")
Found = dict[tuple[int, int], float]  # by distillation and student


@dataclass(frozen=True)
class Table:
    """The cells of one data set, IPC, kind of labels and student, and what their points measure."""

    row: Row
    cells: dict[tuple[str, str], list[dict[str, Any]]]  # by points and weights
    measured: dict[str, list[dict[str, Any]]]  # by points

    def values(self, points: str, weights: str, name: str = "accuracy") -> Found:
        found = self.cells.get((points, weights), [])
        return {(one["distillation"], one["seed"]): one[name] for one in found if name in one}

    def difference(self, points: str, weights: str, name: str = "accuracy") -> Difference | None:
        on, off = self.values(points, weights, name), self.values(points, "uniform", name)
        shared = on.keys() & off.keys()
        if weights == "uniform" or not shared:
            return None
        pairs = ({key: values[key] for key in shared} for values in (on, off))
        return paired_difference(*(groups(values) for values in pairs))

    def measure(self, points: str, value: Callable[[dict[str, Any]], float | None]) -> float | None:
        found = [value(one) for one in self.measured.get(points, [])]
        there = [one for one in found if one is not None]
        return statistics.fmean(there) if there else None


def groups(found: Found) -> list[list[float]]:
    """Of each distillation the students that all distillations have.

    >>> groups({(0, 0): 1.0, (0, 1): 2.0, (1, 0): 3.0})
    [[1.0], [3.0]]
    """
    distillations = sorted({d for d, _ in found})
    students = [s for s in sorted({s for _, s in found}) if all((d, s) in found for d in distillations)]
    return [[found[d, s] for s in students] for d in distillations]


def tables() -> list[Table]:
    """A table for every (data, IPC, labels, student) that has a row."""
    result, found = load_result("factorial"), dict[Row, Table]()
    for part, rows in parts().items():
        for row in rows:
            kept = result.get(row.data, {}).get("rows", {}).get(row.label)
            if (
                kept is None
                or row.points == "teacher"
                or (part == "teachers" and row.labels == row.student == "resnet18")
            ):
                continue
            key = Row(row.data, "", row.ipc, labels=row.labels, student=row.student)
            table = found.setdefault(key, Table(key, {}, {}))
            if row.student:
                one = {**kept, "distillation": row.distillation, "seed": row.seed}
                table.cells.setdefault((row.points, row.weights), []).append(one)
            else:
                table.measured.setdefault(row.points, []).append(kept)
    points = {(key.data, key.ipc): table.measured for key, table in found.items() if not key.student}
    used = [table for key, table in found.items() if key.student]
    return [replace(table, measured=points.get((table.row.data, table.row.ipc), {})) for table in used]


def factorial_section() -> list[str]:
    found = tables()
    if not found:
        return []
    lines = ["## Where do weights help?", "", *_summary(found), *_said(found), *_not_measured()]
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


def differences(found: list[Table]) -> list[tuple[str, str, dict[str, Difference]]]:
    """What was trained on, which points, and the differences to uniform weights, the digits' from ablation.json."""
    rows = []
    ablation = load_result("ablation")
    if ablation:
        evaluated = Evaluation.from_json(ablation)
        for points in METHODS:
            own = {row.weighting: evaluated.difference(row) for row in evaluated.rows if row.set == points}
            rows.append(("digits, IPC 10", points, {w: one for w, one in own.items() if one is not None}))
    for table in found:
        for points in [*METHODS, NEAREST]:
            made = {w: table.difference(points, w) for w in WEIGHTS}
            if any(made.values()):
                rows.append((_trained_on(table.row), points, {w: one for w, one in made.items() if one is not None}))
    return rows


def _of(row: Row) -> str:
    return f"{NAMES[row.data]}, IPC {row.ipc}"


def _trained_on(row: Row) -> str:
    what = _of(row) + ("" if row.labels == "hard" else f", labels of {row.labels}")
    return what + ("" if row.student == "convnet3" else f", {row.student}")


def _summary(found: list[Table]) -> list[str]:
    lines = [
        "Accuracy with weights minus that of the same images without, in percentage points, paired by distillation and",
        "student; in brackets the 95 % interval, Student's t over n distillations. minibatch + density is DDOQ as",
        "published, minibatch + uniform is D4M, both without diffusion: points are decoded as they are.",
        "`benchmarks/factorial.py`.",
        "",
        "| trained on | points | density | sqrt | re-encoded | n |",
        "|---|---|---|---|---|---|",
    ]
    for what, points, made in differences(found):
        cells = [_difference(made.get(weights)) for weights in WEIGHTS]
        n = max(one.n for one in made.values())
        lines.append(f"| {what} | {points} | {' | '.join(cells)} | {n} |")
    return [*lines, ""]


def _said(found: list[Table]) -> list[str]:
    """Which intervals leave out zero, in words; where points stand; what weights do to distance and gradient."""
    rows = differences(found)
    lines = ["What was found:", ""]
    intervals = [one.interval for *_, made in rows for one in made.values() if one.interval is not None]
    apart = [low for low, high in intervals if low * high > 0]
    if intervals:
        above = sum(low > 0 for low in apart)
        lines.append(
            f"- {len(apart)} of {len(intervals)} intervals leave out zero, {above} above and {len(apart) - above} below"
            " it; by chance alone one in twenty would"
        )
    density = [one.interval for *_, made in rows if (one := made.get("density")) and one.interval is not None]
    if density:
        helped = sum(low > 0 for low, _ in density)
        harmed = sum(high < 0 for _, high in density)
        lines.append(
            f"- density weights, which are what the talk proposes, help in {helped or 'none'} of {len(density)}"
            f" comparisons and harm in {harmed or 'none'}"
        )
    for points in [*METHODS, NEAREST]:
        own = {what: made["density"] for what, name, made in rows if name == points and "density" in made}
        judged = {what: (one, one.interval) for what, one in own.items() if one.interval is not None}
        for verb, holds in (
            ("help", lambda low, high: low > 0),
            ("harm", lambda low, high: high < 0),
            ("cannot be told from none", lambda low, high: low <= 0 <= high),
        ):
            where = [f"{what} ({_difference(one)})" for what, (one, ends) in judged.items() if holds(*ends)]
            if where:
                lines.append(f"- density weights, {points}: {verb} on {'; '.join(where)}")
    for points in [*METHODS, NEAREST]:
        above = {}
        for table in found:
            own, random = (table.values(name, "uniform").values() for name in (points, RANDOM))
            if own and random:
                above[_trained_on(table.row)] = f"{statistics.fmean(own) - statistics.fmean(random):+.1f}"
        lines += _listed(f"uniform weights, {points}: accuracy minus that of as many random real images", above)
    for what, value in (("W2 of the points to the data", partial(_w2, "points")), ("error of the gradient", _gradient)):
        for points in METHODS:
            changes = {}
            for table in (table for table in found if table.row.ipc > 1):
                weighted, uniform = (table.measure(points, value(w)) for w in ("density", "uniform"))
                if weighted is not None and uniform is not None:
                    changes[_of(table.row)] = f"{100 * (weighted / uniform - 1):+.1f} %"
            lines += _listed(f"density weights, {points}: {what} against uniform ones", changes)
    return [*lines, ""]


def _listed(what: str, found: dict[str, str]) -> list[str]:
    return [f"- {what} " + "; ".join(f"{value} on {where}" for where, value in found.items())] if found else []


def _not_measured() -> list[str]:
    lacking = {part: (len(missing(rows)), len(rows)) for part, rows in parts().items()}
    told = [f"{part} {count} of {total}{_whole(parts()[part])}" for part, (count, total) in lacking.items() if count]
    return [
        *([f"Rows not yet measured: {', '.join(told)}.", ""] if told else []),
        "Not measured: the same cells with diffusion (see the models of one's own above), ImageNet-1K, random images",
        "at IPC 50. Gradient errors are those with hard labels throughout.",
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
        f" accuracies: {told}.",
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
