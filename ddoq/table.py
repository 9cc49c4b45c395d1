"""Tables, as aligned text and as JSON: accuracies of an evaluation, distances of distilled sets."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ddoq.files import write_atomic


@dataclass(frozen=True)
class Row:
    """One line of the table; accuracies in percent, in the order of the seeds."""

    set: str
    weighting: str
    student: str
    protocol: str
    images: int
    accuracies: tuple[float, ...]

    @property
    def n(self) -> int:
        """Number of trainings."""
        return len(self.accuracies)

    @property
    def mean(self) -> float:
        """Mean accuracy in percent."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1) in percent; None for one training."""
        return statistics.stdev(self.accuracies) if self.n > 1 else None


@dataclass(frozen=True)
class Evaluation:
    """The rows, how many test images they were measured on, and remarks; `str` gives an aligned table.

    Examples
    --------
    >>> row = Row("decode", "density", "convnet3", "dc", 100, (90.0, 92.0))
    >>> print(Evaluation((row,), 3000))
    set     weights  student   images  accuracy %    n  protocol
    ------  -------  --------  ------  ------------  -  --------
    decode  density  convnet3     100  91.00 ± 1.41  2  dc
    """

    rows: tuple[Row, ...]
    test_images: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = ("set", "weights", "student", "images", "accuracy %", "n", "protocol")
        wide = max((len(f"{row.mean:.2f}") for row in self.rows), default=0)
        lines = [
            (
                row.set,
                row.weighting,
                row.student,
                str(row.images),
                f"{row.mean:{wide}.2f} ± {'-' if row.std is None else f'{row.std:.2f}'}",
                str(row.n),
                row.protocol,
            )
            for row in self.rows
        ]
        return "\n".join([*aligned(head, lines, {3, 5}), *self.notes])

    def to_json(self) -> dict[str, Any]:
        """The table as plain lists, dictionaries, strings and numbers, every accuracy included."""
        rows = [
            {**asdict(row), "accuracies": list(row.accuracies), "mean": row.mean, "std": row.std, "n": row.n}
            for row in self.rows
        ]
        return {"rows": rows, "test_images": self.test_images, "notes": list(self.notes)}

    def save(self, path: str | PathLike[str]) -> None:
        """Write `to_json()` to a file, whole or not at all."""
        write_atomic(Path(path), (json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n").encode())


@dataclass(frozen=True)
class Distance:
    """W2 of each class's real latents to a set's weighted latents, in the latents' unit."""

    set: str
    weighting: str
    per_class: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the classes."""
        return statistics.fmean(self.per_class)


@dataclass(frozen=True)
class Distances:
    """W2 of distilled sets to the data under several weights; `str` gives an aligned table.

    Examples
    --------
    >>> print(Distances((Distance("decode", "uniform", (1.0, 1.5)), Distance("decode", "reencoded", (1.0, 1.25)))))
    set     weights    W2 to the data
    ------  ---------  --------------
    decode  uniform             1.250
    decode  reencoded           1.125
    """

    rows: tuple[Distance, ...]

    def __str__(self) -> str:
        lines = [(row.set, row.weighting, f"{row.mean:#.4g}") for row in self.rows]
        return "\n".join(aligned(("set", "weights", "W2 to the data"), lines, {2}))

    def to_json(self) -> dict[str, Any]:
        """The table as plain lists, dictionaries, strings and numbers, the distance of every class included."""
        return {"rows": [{**asdict(row), "per_class": list(row.per_class), "mean": row.mean} for row in self.rows]}


def aligned(head: Sequence[str], lines: Sequence[Sequence[str]], right: Collection[int]) -> list[str]:
    """Lines of a table with a rule under its head; the columns numbered in `right` are set to the right."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        pairs = enumerate(zip(cells, widths, strict=True))
        return "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in pairs).rstrip()

    return [line(cells) for cells in [head, ["-" * width for width in widths], *lines]]
