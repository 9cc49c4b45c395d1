"""Tables are written as aligned text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

# what LaTeX takes for a command
ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
ESCAPES |= {"\\": r"\textbackslash{}", "±": r"$\pm$"}


def aligned(head: Sequence[str], lines: Sequence[Sequence[str]], right: Collection[int]) -> list[str]:
    """Lines of a table with a rule under its head; the columns numbered in `right` are set to the right."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        pairs = enumerate(zip(cells, widths, strict=True))
        return "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in pairs).rstrip()

    return [line(cells) for cells in [head, ["-" * width for width in widths], *lines]]


def comma_separated(records: Sequence[Mapping[str, Any]]) -> str:
    r"""Records of the same keys as CSV, None as nothing.

    >>> comma_separated([{"set": "a, b", "mean": 1.5}, {"set": "c", "mean": None}])
    'set,mean\n"a, b",1.5\nc,\n'
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([list(records[0]), *(list(record.values()) for record in records)] if records else [])
    return file.getvalue()


def latex(head: Sequence[str], lines: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    r"""A table for LaTeX, with the package booktabs, and small print under it.

    >>> print(latex(["set", "%"], [["a_b", "1 ± 2"]], ["a_b: a note"]))
    \begin{tabular}{ll}
    \toprule
    set & \% \\
    \midrule
    a\_b & 1 $\pm$ 2 \\
    \bottomrule
    \end{tabular}
    {\footnotesize a\_b: a note\par}
    """
    rows = [" & ".join(map(_escaped, cells)) + r" \\" for cells in [head, *lines]]
    top = [rf"\begin{{tabular}}{{{'l' * len(head)}}}", r"\toprule", rows[0], r"\midrule"]
    small = [rf"{{\footnotesize {_escaped(note)}\par}}" for note in notes]
    return "\n".join([*top, *rows[1:], r"\bottomrule", r"\end{tabular}", *small, ""])


def _escaped(text: str) -> str:
    return "".join(ESCAPES.get(c, c) for c in text)
