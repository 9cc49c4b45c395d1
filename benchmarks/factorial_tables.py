"""The comparisons behind the sections that factorial_page.py writes, from results/factorial.json and ablation.json."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from common import load_result
from factorial_plan import METHODS, NEAREST, Row, parts

from ddoq.evaluation.table import OFF, Evaluation
from ddoq.evaluation.variation import Difference, paired_difference

NAMES = {"digits": "digits", "mnist": "MNIST", "parity": "MNIST parity", "cifar10": "CIFAR-10 (JPEG)"}
NAMES |= {f"imagenette-{side}": f"ImageNette {side} px" for side in (64, 112, 224)}
CLASSES = {"parity": 2}  # others have 10
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
        on, off = self.pairs(points, weights, name)
        return None if weights == "uniform" or not on else paired_difference(groups(on), groups(off))

    def pairs(self, points: str, weights: str, name: str = "accuracy") -> tuple[Found, Found]:
        """With weights and without, of the students that have both."""
        on, off = self.values(points, weights, name), self.values(points, "uniform", name)
        shared = sorted(on.keys() & off.keys())
        return {key: on[key] for key in shared}, {key: off[key] for key in shared}

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


@dataclass(frozen=True)
class Comparison:
    """Weights against none, of the same students on the same points: accuracies in percent and their difference."""

    where: str  # what was trained on
    points: str
    weights: str
    uniform: float
    weighted: float
    difference: Difference
    classes: int = 10

    @property
    def near_chance(self) -> bool:
        """Whether both accuracies are less than a tenth of the way from chance to 100 %."""
        return max(self.uniform, self.weighted) < near_chance(self.classes)

    @property
    def verdict(self) -> str:
        """By the interval "help", "harm" or "cannot be told from none"; "" where there is none.

        >>> [Comparison("", "", "", 50.0, 51.0, Difference(1.0, ends, ())).verdict for ends in ((0.5, 1.5), (-1, 3))]
        ['help', 'cannot be told from none']
        """
        if self.difference.interval is None:
            return ""
        low, high = self.difference.interval
        return "help" if low > 0 else "harm" if high < 0 else "cannot be told from none"


def near_chance(classes: int) -> float:
    """The accuracy in percent below which a student shows next to nothing, a tenth of the way from chance to 100 %.

    >>> near_chance(10), near_chance(2)
    (19.0, 55.0)
    """
    chance = 100 / classes
    return chance + (100 - chance) / 10


def comparisons(found: list[Table]) -> list[Comparison]:
    """All that can be paired; the digits' from ablation.json come first."""
    made = []
    ablation = load_result("ablation")
    if ablation:
        evaluated = Evaluation.from_json(ablation)
        means = {(row.set, row.weighting): row.mean for row in evaluated.rows}
        for row in evaluated.rows:
            difference = evaluated.difference(row) if row.set in METHODS else None
            if difference is not None:
                both = means[row.set, OFF], row.mean
                made.append(Comparison("digits, IPC 10", row.set, row.weighting, *both, difference))
    for table in found:
        for points in [*METHODS, NEAREST]:
            for weights in WEIGHTS:
                difference = table.difference(points, weights)
                if difference is not None:
                    on, off = (_mean(values) for values in table.pairs(points, weights))
                    classes = CLASSES.get(table.row.data, 10)
                    made.append(Comparison(trained_on(table.row), points, weights, off, on, difference, classes))
    return made


def _mean(values: Found) -> float:
    return statistics.fmean(value for group in groups(values) for value in group)


def of(row: Row) -> str:
    return f"{NAMES[row.data]}, IPC {row.ipc}"


def trained_on(row: Row) -> str:
    what = of(row) + ("" if row.labels == "hard" else f", labels of {row.labels}")
    return what + ("" if row.student == "convnet3" else f", {row.student}")
