"""The rows of factorial.py: which student learns from which points under which weights, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from common import load_result

METHODS: dict[str, dict[str, Any]] = {
    "minibatch": {"quantizer": "minibatch"},
    "lloyd": {"refine": "none"},
    "lloyd + hartigan": {"refine": "hartigan"},
}
RANDOM, NEAREST = "random real images", "nearest real images"
STUDENTS = ("resnet18", "mobilenetv2", "efficientnet_b0", "swin_tiny")  # the first of them are teachers too
PIXELS, CODED = ("uniform", "density", "sqrt"), ("uniform", "density", "sqrt", "reencoded")


@dataclass(frozen=True)
class Row:
    """One student on one distillation (or draw of random images); without a student, what its points measure."""

    data: str
    points: str
    ipc: int = 10
    distillation: int = 0
    weights: str = ""
    labels: str = "hard"  # or the teacher
    student: str = ""
    seed: int = 0

    @property
    def label(self) -> str:
        if self.points == "teacher":
            return f"teacher {self.student}"
        start = f"{self.points}, ipc {self.ipc}, distillation {self.distillation}"
        if not self.student:
            return f"{start}, points"
        return f"{start}, {self.weights}, {self.labels} labels, {self.student}, student {self.seed}"


def factorial(
    row: Row, weightings: tuple[str, ...], methods: tuple[str, ...] = tuple(METHODS), students: int = 2
) -> Iterator[Row]:
    """The cells and the rows beside them, for a row's data, IPC, labels and student; points are measured once."""
    for seed in range(students):
        for distillation in range(3):
            here = replace(row, distillation=distillation, seed=seed)
            if seed == 0:
                yield from (replace(here, points=method, student="", labels="hard") for method in methods)
            if row.ipc == 10:
                yield replace(here, points=RANDOM, weights="uniform")
                yield from (replace(here, points=NEAREST, weights=weights) for weights in ("uniform", "density"))
            yield from (replace(here, points=method, weights=w) for method in methods for w in weightings)


def one_point(row: Row) -> Iterator[Row]:
    """IPC 1, where every weight is 1."""
    row = replace(row, ipc=1, points="lloyd")
    yield replace(row, student="")
    yield from (replace(row, weights="uniform", seed=seed) for seed in range(2))


def beside_ablation(row: Row) -> Iterator[Row]:
    """What results/ablation.json does not have."""
    yield from one_point(row)
    yield from (one for one in factorial(row, ()) if one.points == NEAREST)


def teachers(row: Row, students: tuple[str, ...], judges: tuple[str, ...]) -> Iterator[Row]:
    """Every student by every teacher, which come first, with weights on and off; one student a distillation."""
    yield from (replace(row, points="teacher", student=name) for name in judges)
    for distillation in range(3):
        for student in students:
            for teacher in judges:
                for weights in ("uniform", "density"):
                    own = {"student": student, "labels": teacher, "weights": weights, "distillation": distillation}
                    yield replace(row, points="minibatch", **own)


def parts() -> dict[str, list[Row]]:
    """The rows of each part; some are in two."""
    convnet = {name: Row(name, "", student="convnet3") for name in ("digits", "mnist", "parity", "cifar10")}
    soft = replace(convnet["cifar10"], labels="resnet20")
    nette = Row("imagenette-64", "", student="resnet18", labels="resnet18")
    own_teacher = replace(nette, points="teacher")
    two, four = ("uniform", "density"), ("minibatch", "lloyd + hartigan")
    return {
        "digits": list(beside_ablation(convnet["digits"])),
        "mnist": [*one_point(convnet["mnist"]), *factorial(convnet["mnist"], PIXELS)],
        "parity": [*one_point(convnet["parity"]), *factorial(convnet["parity"], PIXELS)],
        "cifar10": [*one_point(convnet["cifar10"]), *factorial(convnet["cifar10"], CODED)],
        "cifar10-soft": [*one_point(soft), *factorial(soft, CODED)],
        "cifar10-ipc50": list(factorial(replace(convnet["cifar10"], ipc=50), two, four, students=1)),
        "imagenette": [own_teacher, *one_point(nette), *factorial(nette, CODED, students=1)],
        "imagenette-ipc50": [own_teacher, *factorial(replace(nette, ipc=50), two, ("minibatch",), students=1)],
        "teachers": list(teachers(nette, STUDENTS[:3], STUDENTS[:2])),
        "teachers-112": [
            *teachers(replace(nette, data="imagenette-112"), STUDENTS, STUDENTS[:2]),
            *teachers(replace(nette, data="imagenette-112", ipc=50), STUDENTS, STUDENTS[:1]),
        ],
        "teachers-224": list(teachers(replace(nette, data="imagenette-224"), STUDENTS, STUDENTS[:1])),
    }


def missing(rows: list[Row]) -> list[Row]:
    result = load_result("factorial")
    return [row for row in rows if row.label not in result.get(row.data, {}).get("rows", {})]
