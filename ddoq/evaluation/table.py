"""Holds the table of an evaluation: a row per set, weighting and student; as text, CSV, LaTeX and JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

from ddoq.evaluation.variation import LEVEL, Difference, components, grouped, paired_difference
from ddoq.storage.files import write_atomic
from ddoq.storage.tables import aligned, comma_separated, latex

RANDOM, FULL, ANY = "random subset", "full data", "any"  # sets; the weighting of images whose weights are all alike
OFF = "uniform"  # the weighting that is no weighting


@dataclass(frozen=True)
class Row:
    """One line of the table; accuracies in percent, those of the first distillation's students first."""

    set: str
    weighting: str
    student: str
    protocol: str
    images: int
    accuracies: tuple[float, ...]
    distillations: int = 1  # or random draws; each with equally many trainings
    labels: str = "hard"  # or "soft"
    bests: tuple[float, ...] = ()  # of the looks at the test set, where a protocol looks on the way
    images_hash: str = ""  # of its distillations' images; none for random ones and the full data

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
        """Sample standard deviation (n - 1) of all trainings in percent; None for one training."""
        return statistics.stdev(self.accuracies) if self.n > 1 else None

    @property
    def best(self) -> float | None:
        """Mean of the best looks in percent; None where the protocol looks once."""
        return statistics.fmean(self.bests) if self.bests else None

    @property
    def groups(self) -> list[Sequence[float]]:
        """The accuracies of each distillation."""
        return grouped(self.accuracies, self.distillations)

    @property
    def components(self) -> tuple[float | None, float | None]:
        """Deviations between distillations and between the students of one (see `variation.components`)."""
        return components(self.groups)


@dataclass(frozen=True)
class Evaluation:
    """The rows, how many test images they were measured on, and remarks; `str` gives an aligned table.

    Beside the accuracies stand, where the rows for them are there,
    - "minus uniform": the difference to the same images without weights, paired by distillation and student, and its
      95 % interval over the distillations (Student's t), marked where it rests on two; none where they are equal;
    - "between", "within": deviations between distillations, and between the students of one;
    - "IOR": improvement over random of DD-Ranking (Li et al., arXiv 2505.13300): the accuracy minus that of as many
      random images under the same protocol;
    - "HLR": its hard label recovery: the accuracy of the full data minus the set's, both with hard labels; less is
      better. There the learning rate is tuned for each, here both have the protocol's;
    - "best %": the mean of the best looks at the test set, of protocols that look on the way, as some papers print it.

    Examples
    --------
    >>> rows = [Row("decode", "uniform", "convnet3", "dc", 100, (88.0, 92.0))]
    >>> rows += [Row("decode", "density", "convnet3", "dc", 100, (90.0, 92.0))]
    >>> print(Evaluation(tuple(rows), 3000))
    set     weights  student   images  accuracy %    n  minus uniform  protocol
    ------  -------  --------  ------  ------------  -  -------------  --------
    decode  uniform  convnet3     100  90.00 ± 2.83  2                 dc
    decode  density  convnet3     100  91.00 ± 1.41  2  +1.00          dc
    accuracy: mean ± standard deviation of n trainings, after the last epoch
    minus uniform: difference to the same images without weights, paired by distillation and student
    """

    rows: tuple[Row, ...]
    test_images: int
    notes: tuple[str, ...] = ()
    test_set: str = ""  # hash of the test images and their labels

    def difference(self, row: Row) -> Difference | None:
        """A row's accuracy minus that of the same images with uniform weights; None without trainings to pair."""
        same = (row.images_hash, row.n, row.distillations)
        off = (
            other for other in self._beside(row, row.set) if (other.images_hash, other.n, other.distillations) == same
        )
        baseline = None if row.weighting == OFF else next(off, None)
        return None if baseline is None else paired_difference(row.groups, baseline.groups)

    def improvement_over_random(self, row: Row) -> float | None:
        """IOR in percentage points; None without a row of as many random images."""
        random = (row_of_random for row_of_random in self._beside(row, RANDOM) if row_of_random.images == row.images)
        other = None if row.set in (RANDOM, FULL) else next(random, None)
        return None if other is None else row.mean - other.mean

    def hard_label_recovery(self, row: Row) -> float | None:
        """HLR in percentage points; None under soft labels, or without a row of the full data."""
        other = None if row.set == FULL or row.labels != "hard" else next(self._beside(row, FULL), None)
        return None if other is None else other.mean - row.mean

    def _beside(self, row: Row, name: str) -> Iterator[Row]:
        """The rows of a set with uniform weights, of the same student and protocol."""
        wanted = (name, OFF, row.student, row.protocol)
        return (other for other in self.rows if (other.set, other.weighting, other.student, other.protocol) == wanted)

    def gathered(self, before: Evaluation) -> Evaluation:
        """These rows with those of an earlier table on the same test set, by protocol.

        A row made anew replaces the one of the same images, weighting, student and protocol: of random ones that of as
        many, and that of the full data, which is one for all sets, the one of however many images.
        """
        rows_by_key = {
            (row.set, row.set == FULL or row.images, row.images_hash, row.weighting, row.student, row.protocol): row
            for row in (*before.rows, *self.rows)
        }
        protocols = list(dict.fromkeys(row.protocol for row in rows_by_key.values()))
        students = list(dict.fromkeys(row.student for row in rows_by_key.values()))
        sets = list(dict.fromkeys([RANDOM, FULL, *(row.set for row in rows_by_key.values())]))
        hashes = list(dict.fromkeys(row.images_hash for row in rows_by_key.values()))
        least = min((row.images for row in rows_by_key.values()), default=0)

        def place(row: Row) -> tuple[int, ...]:
            images = least if row.set == FULL else row.images
            position = sets.index(row.set), hashes.index(row.images_hash)
            return protocols.index(row.protocol), students.index(row.student), images, *position

        notes = tuple(dict.fromkeys((*before.notes, *self.notes)))
        return replace(self, rows=tuple(sorted(rows_by_key.values(), key=place)), notes=notes)

    @property
    def columns(self) -> dict[str, list[str]]:
        """The table by column, as text; columns in which no row has anything are left out."""
        wide = max((len(f"{row.mean:.2f}") for row in self.rows), default=0)
        several = any(1 < row.distillations < row.n for row in self.rows)
        columns = {
            "set": [row.set for row in self.rows],
            "weights": [row.weighting for row in self.rows],
            "student": [row.student for row in self.rows],
            "images": [str(row.images) for row in self.rows],
            "accuracy %": [f"{row.mean:{wide}.2f} ± {_number(row.std) or '-'}" for row in self.rows],
            "best %": [_number(row.best) for row in self.rows],
            "n": [_trainings(row) for row in self.rows],
            "minus uniform": [_difference(self.difference(row)) for row in self.rows],
            "between": [_number(row.components[0]) if several else "" for row in self.rows],
            "within": [_number(row.components[1]) if several else "" for row in self.rows],
            "IOR": [_number(self.improvement_over_random(row), "+.2f") for row in self.rows],
            "HLR": [_number(self.hard_label_recovery(row)) for row in self.rows],
            "protocol": [row.protocol for row in self.rows],
        }
        return {name: cells for name, cells in columns.items() if any(cells) or not self.rows}

    def __str__(self) -> str:
        columns = self.columns
        right = {
            i for i, name in enumerate(columns) if name in ("images", "best %", "n", "between", "within", "IOR", "HLR")
        }
        lines = aligned(list(columns), list(zip(*columns.values(), strict=True)), right)
        return "\n".join([*lines, *explained(columns), *self.notes])

    def to_latex(self) -> str:
        """The same table for LaTeX, with the package booktabs, and the remarks under it."""
        columns = self.columns
        return latex(list(columns), list(zip(*columns.values(), strict=True)), self.notes)

    def to_csv(self) -> str:
        """A line per row with numbers in full, empty where there is none, and last the remarks on its set."""
        records = [{**self._record(row), "notes": self._remarks(row)} for row in self.rows]
        lists = ("accuracies", "bests")
        return comma_separated([{k: v for k, v in record.items() if k not in lists} for record in records])

    def to_json(self) -> dict[str, Any]:
        """The table as plain lists, dictionaries, strings and numbers, every accuracy included."""
        return {
            "rows": [self._record(row) for row in self.rows],
            "test_images": self.test_images,
            "notes": list(self.notes),
            "test_set": self.test_set,
        }

    def _remarks(self, row: Row) -> str:
        start = f"{row.set}: "
        return "; ".join(note.removeprefix(start) for note in self.notes if note.startswith(start))

    def _record(self, row: Row) -> dict[str, Any]:
        difference = self.difference(row)
        low, high = (None, None) if difference is None else difference.interval or (None, None)
        between, within = row.components
        return {
            **asdict(row),
            "accuracies": list(row.accuracies),
            "bests": list(row.bests),
            "best": row.best,
            "n": row.n,
            "mean": row.mean,
            "std": row.std,
            "between": between,
            "within": within,
            "minus_uniform": None if difference is None else difference.mean,
            "minus_uniform_low": low,
            "minus_uniform_high": high,
            "ior": self.improvement_over_random(row),
            "hlr": self.hard_label_recovery(row),
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Evaluation:
        """What `to_json` gave; KeyError or TypeError for anything else."""
        rows = []
        for row in facts["rows"]:
            values: dict[str, Any] = {f.name: row[f.name] for f in fields(Row) if f.name in row}
            values.update({name: tuple(value) for name, value in values.items() if isinstance(value, list)})
            rows.append(Row(**values))
        return cls(tuple(rows), facts["test_images"], tuple(facts["notes"]), facts.get("test_set", ""))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the table, whole or not at all: CSV if the name ends with .csv, LaTeX with .tex, JSON with .json.

        ValueError for another ending.
        """
        path = Path(path)
        if path.suffix == ".json":
            text = json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"
        elif path.suffix in (".csv", ".tex"):
            text = self.to_csv() if path.suffix == ".csv" else self.to_latex()
        else:
            raise ValueError(f"{path} must end with .json, .csv or .tex")
        write_atomic(path, text.encode())


def stored(path: Path) -> Evaluation | None:
    """The table that a file of `Evaluation.save` holds; None where there is none, or a damaged one."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        evaluation = Evaluation.from_json(json.loads(path.read_bytes()))
        str(evaluation), evaluation.to_json()  # every cell is there
        return evaluation
    return None


def explained(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """What the columns of a table mean, a sentence for each that needs one."""
    lines = ["accuracy: mean ± standard deviation of n trainings, after the last epoch"]
    if "best %" in columns:
        lines.append("best: mean of the best looks at the test set on the way, chosen by that set")
    if "minus uniform" in columns:
        bracket = f"; [{LEVEL:.0%} interval: Student's t over the distillations' mean differences]"
        line = "minus uniform: difference to the same images without weights, paired by distillation and student"
        cells = columns["minus uniform"]
        lines.append(line + bracket * any("[" in cell for cell in cells))
        if any("(2 distillations)" in cell for cell in cells):
            lines.append("(2 distillations): the interval rests on two numbers, with one degree of freedom")
        if any("equal)" in cell for cell in cells):
            lines.append("equal: the distillations' differences are the same, which gives no interval")
    if "within" in columns:
        lines.append(
            "between, within: deviations between distillations, and between students of one (one-way random effects)"
        )
    if "IOR" in columns:
        lines.append("IOR: improvement over as many random images (DD-Ranking)")
    if "HLR" in columns:
        lines.append("HLR: what is missing to the full data, with hard labels (DD-Ranking)")
    return lines


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else f"{value:{form}}"


def _trainings(row: Row) -> str:
    students = row.n // row.distillations
    return f"{row.distillations} x {students}" if 1 < row.distillations < row.n else str(row.n)


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return ""
    interval = "" if difference.interval is None else f" [{difference.interval[0]:+.2f}, {difference.interval[1]:+.2f}]"
    remark = f" ({difference.remark})" if difference.remark else ""
    return f"{difference.mean:+.2f}{interval}{remark}"
