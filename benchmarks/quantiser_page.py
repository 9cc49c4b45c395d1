"""The sections of docs/quantiser.md and its figure, from results/*.json; tables.py writes them. What is not there yet
is left out. In each row the best is bold, whoever it is, and a sentence counts the rows in which it is not ddoq.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import load_result

Record = dict[str, Any]
BEST = ", best of 10"  # ends the name of a method whose best start of 10 is meant
GRAM_GOAL = 0.85  # of the machine's peak
LOSS_GOALS = {"256": 3, "8192": 1.5}  # times faster than plain torch, by the number of rows
INTRODUCTION = """# The quantiser, measured

Made by `python benchmarks/tables.py` from benchmarks/results; `make bench` lists the scripts. Every library has the
same two threads unless a section says otherwise. Bold is the best of a row. Times of two machines or instruction sets
do not compare; ratios do, a little."""


def quantiser_page() -> str:
    sections = (classes, distortion, gram, streaming, competitive_learning, loss, threads)
    return "\n\n".join([INTRODUCTION, *(text for section in sections if (text := section()))]) + "\n"


def machines(name: str) -> Iterator[tuple[str, Record]]:
    """Of a result: each "cpu, instruction set" with its part; older scripts write the part of one machine alone."""
    result = load_result(name)
    facts = result.get("facts", result)
    if "cpu" in facts:
        result = {f"{facts['cpu']}, {facts['instruction_set']}": {"facts": facts, **result}}
    yield from result.items()


def section(title: str, text: str, name: str, body: Callable[[str, Record], list[str]]) -> str:
    """A heading, what was measured, and for each machine its tables and versions; nothing if there is no result."""
    parts = []
    for machine, part in machines(name):
        facts = part["facts"]
        versions = [f"{library} {version}" for library, version in facts["versions"].items() if version != "absent"]
        blas = [f"{library}: {kernels}" for library, kernels in part.get("blas", {}).items()]
        notes = [f"ddoq {facts['ddoq']}, Python {facts['python']}, {', '.join(versions)}", *blas]
        lines = [f"**{machine}**, {facts['cores']} cores", "", *body(machine.split(", ")[-1], part), ""]
        parts.append("\n".join([*lines, "; ".join(notes) + "."]))
    return "\n\n".join([f"## {title}", text.strip(), *parts]) if parts else ""


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def number(value: object) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def best_in_bold(texts: dict[str, str], values: dict[str, float]) -> list[str]:
    """The cells of a row, of which the one with the least value is bold."""
    least = min(values.values(), default=None)
    return [f"**{text}**" if least is not None and values.get(name) == least else text for name, text in texts.items()]


def losses(what: str, rows: int, lost: list[str]) -> str:
    if not rows:
        return ""
    return f"{what} in {rows - len(lost)} of {rows} rows" + (f"; not in {'; '.join(lost)}." if lost else ".")


def columns_of(cells: Record) -> list[str]:
    return list(dict.fromkeys(method for row in cells.values() for method in row))


def timed_table(isa: str, cells: Record, unit: str) -> list[str]:
    """Times, with the distortion in brackets: ddoq's own, and the others' relative to it; ratios; where ddoq loses."""
    methods = columns_of(cells)
    peers = [method for method in methods if not method.startswith("ddoq")]
    has_scikit_learn = "scikit-learn" in peers
    header = ["data", *methods, f"fastest peer / ddoq, {isa}"]
    header += [f"scikit-learn / ddoq, {isa}"] * has_scikit_learn
    rows, lost, compared = [], [], 0
    for cell, row in cells.items():
        times = {method: row[method][unit] for method in methods if method in row}
        texts = dict.fromkeys(methods, "")
        for method in times:
            texts[method] = number(times[method]) + ("" if row[method].get("even", True) else " ~")
            if "distortion" in row[method] and "ddoq" in row:
                own, other = row["ddoq"]["distortion"], row[method]["distortion"]
                texts[method] += f" ({number(own)})" if method == "ddoq" else f" ({100 * (other / own - 1):+.2f} %)"
            if "share_of_peak" in row[method]:
                texts[method] += f", {100 * row[method]['share_of_peak']:.0f} % of peak"
        measured = [times[peer] for peer in peers if peer in times]
        ratio = min(measured) / times["ddoq"] if measured and "ddoq" in times else math.nan
        compared += not math.isnan(ratio)
        if ratio < 1:
            lost.append(cell)
        line = [cell, *best_in_bold(texts, times), "" if math.isnan(ratio) else f"{ratio:.2f}"]
        if has_scikit_learn:
            line.append(
                f"{times['scikit-learn'] / times['ddoq']:.1f}" if {"scikit-learn", "ddoq"} <= times.keys() else ""
            )
        rows.append(line)
    return [*table(header, rows), "", losses(f"On {isa} ddoq is faster than every peer", compared, lost)]


def classes() -> str:
    text = """
Whole job, all classes of a data set (10 of ImageNette through TAEF2 at 112 px, 858 to 993 latents of 6,272 each; 20
synthetic ones of 1,300 x 4,096; the first 1,024 features of both): median milliseconds, and in brackets the distortion,
the others' relative to ddoq's (+: theirs is higher). The others make one start. `ddoq` is the default; `refine="none"`
is Lloyd alone, as the others do, but from several starts, which its Gram matrix serves. A time with ~ was taken while
the machine's peak was more than 5 % below its best. ddoq's default and faiss with two classes side by side were
measured last, in one run; the other columns are some hours older. `python benchmarks/classes.py WORK`.

![Milliseconds against the number of points](quantiser.png)"""
    return section("Classes: time", text, "classes", lambda isa, p: timed_table(isa, p["cells"], "milliseconds_median"))


def gram() -> str:
    text = """
The symmetric product of one class (n samples, d features, float32), packing and mirroring included, on one thread and
two side by side: billions of useful operations, n (n + 1) d, in a second, and their share of the peak of multiply-adds
of the same instruction set and threads. The goal is 85 %. A row with ~ was taken while the peak was more than 5 % below
its best. `python benchmarks/gram.py`."""

    def body(isa: str, part: Record) -> list[str]:
        rows, missed = [], []
        for cell, by_threads in part["cells"].items():
            for threads, row in by_threads.items():
                name = f"{cell}, {threads} {'thread' if threads == '1' else 'threads'}"
                peak = part["peaks"][threads]["peak_gflops"]
                shares = [row[f"gflops_{which}"] / peak for which in ("median", "max")]
                figures = [number(row["gflops_median"]), number(row["gflops_max"]), number(peak)]
                rows.append([name + ("" if row["even"] else " ~"), *figures, *(f"{100 * s:.1f} %" for s in shares)])
                if shares[0] < GRAM_GOAL:
                    missed.append(name)
        header = ["n x d", "median", "max", "peak", f"median / peak, {isa}", f"max / peak, {isa}"]
        return [*table(header, rows), "", losses("The median reaches the goal", len(rows), missed)]

    return section("The product of the Gram form", text, "gram", body)


def streaming() -> str:
    text = """
One big class that streams past the points, all libraries from the same start: milliseconds of an iteration, reading and
packing not counted, in brackets the distortion, and the share of the machine's peak of multiply-adds. The iterations
are the 3rd to the 12th: ddoq's sums of the cells change by the samples that move, a fifth of all in each of those at
first and a twentieth at last (100,000 x 512, k 64); the other libraries add all samples every time, as ddoq does in the
first. `python benchmarks/streaming.py`."""

    def body(isa: str, part: Record) -> list[str]:
        return timed_table(isa, part["cells"], "iteration_milliseconds")

    return section("One big class: time of an iteration", text, "streaming", body)


def distortion() -> str:
    text = """
Mean over classes and seeds of the mean squared distance to the nearest point: of ddoq, and how much higher (+) or lower
(-) the others are, in percent, each ± its standard error. The others make one start, as their defaults do; ddoq's
default makes 1 to 8 by itself. "Best of 10" is what scikit-learn's n_init=10 may be expected to give, estimated without
bias from the single starts. Held out: ImageNette's 3,925 validation images against the points of their classes; there
the numbers show what was learnt of the population, and not of the sample.
`python benchmarks/distortion.py WORK HELD_OUT`."""

    def body(isa: str, part: Record) -> list[str]:
        lines: list[str] = []
        for prefix, what in (("", "of the samples"), ("held_out_", "of held-out samples")):
            cells = {cell: compared(row, prefix) for cell, row in part["cells"].items()}
            cells = {cell: row for cell, row in cells.items() if "ddoq" in row}
            if cells:
                lines += ["", *distortion_table(f"distortion {what}, {isa}", cells)]
        seeds = {
            f"{method} {row['seeds']} ({cell})"
            for cell, rows in part["cells"].items()
            for method, row in rows.items()
            if row["seeds"] != 20
        }
        return [*lines[1:], "", "20 seeds" + (f", but {', '.join(sorted(seeds))}." if seeds else ".")]

    return section("Classes: distortion", text, "distortion", body)


def compared(row: Record, prefix: str) -> dict[str, tuple[float, float]]:
    """Of each method, and of the best of 10: (mean, standard error)."""
    found = {}
    for method, values in row.items():
        for name, label in ((f"{prefix}mean", method), (f"{prefix}best_of_10", method + BEST)):
            if name in values:
                mean, error = values[name]
                found[label] = (mean, math.nan if error is None else error)
    return found


def distortion_table(title: str, cells: dict[str, dict[str, tuple[float, float]]]) -> list[str]:
    methods, rows = columns_of(cells), []
    for cell, row in cells.items():
        own, own_error = row["ddoq"]
        texts = dict.fromkeys(methods, "")
        for method, (mean, error) in row.items():
            relative = 100 * math.hypot(error, own_error) / own
            bounds = "" if math.isnan(relative) else f" ± {relative:.2f}"
            texts[method] = f"{100 * (mean / own - 1):+.2f} %{bounds}"
        texts["ddoq"] = f"{own:,.2f} ± {own_error:,.2f}"
        rows.append([cell, *best_in_bold(texts, {method: mean for method, (mean, _) in row.items()})])
    return [*table([title, *methods], rows), "", against_peers(cells)]


def against_peers(cells: dict[str, dict[str, tuple[float, float]]]) -> str:
    """In which rows a peer's mean of single starts is below that of ddoq's default, and in which a best of 10 is.

    >>> row = {"ddoq": (2.0, 0.1), "scikit-learn": (2.5, 0.1), "scikit-learn, best of 10": (1.0, 0.1)}
    >>> print(against_peers({"a": row, "b": {"ddoq": (2.0, 0.1)}}))
    A peer's mean of single starts is below that of ddoq's default in none of 1 rows.
    The best of 10 starts of scikit-learn is below it in 1 of 1 rows: a.
    Without peers: b.
    """
    peers = [method for method in columns_of(cells) if not method.startswith("ddoq")]
    single = [method for method in peers if not method.endswith(BEST)]
    kinds = {"A peer's mean of single starts is below that of ddoq's default": single}
    for method in peers:
        if method.endswith(BEST):
            kinds[f"The best of 10 starts of {method.removesuffix(BEST)} is below it"] = [method]
    sentences = []
    for what, methods in kinds.items():
        means = {cell: [row[m][0] for m in methods if m in row] for cell, row in cells.items()}
        below = [cell for cell, found in means.items() if found and min(found) < cells[cell]["ddoq"][0]]
        rows = sum(map(bool, means.values()))
        if rows:
            sentences.append(f"{what} in {len(below) or 'none'} of {rows} rows{': ' * bool(below)}{'; '.join(below)}.")
    alone = [cell for cell, row in cells.items() if not set(single) & row.keys()]
    return "\n".join([*sentences, *([f"Without peers: {'; '.join(alone)}."] if alone else [])])


def flat(row: Record, prefix: str = "") -> dict[str, Any]:
    """A row of a table of records: nested names joined; least times and peaks left out."""
    cells: dict[str, Any] = {}
    for name, value in row.items():
        label = f"{prefix} {name}".strip().replace("_", " ")
        if name.startswith(("min", "peak")):
            continue
        if isinstance(value, dict):
            cells |= flat(value, label)
        else:
            cells[label] = " x ".join(map(number, value)) if isinstance(value, list) else value
    return cells


def records(rows: list[Record], isa: str) -> list[str]:
    """A table of records; of the medians in a row the least is bold, and ratios name the instruction set."""
    flattened = [flat(row) for row in rows]
    columns = columns_of({str(i): row for i, row in enumerate(flattened)})
    ratios = [name for name in columns if name.startswith(("ratio", "speedup", "efficiency"))]
    medians = [name for name in columns if "median" in name and name not in ratios]
    lines = []
    for row in flattened:
        texts = {name: number(row[name]) if name in row else "" for name in columns}
        lines.append(best_in_bold(texts, {name: row[name] for name in medians if name in row}))
    return table([f"{name}, {isa}" if name in ratios else name for name in columns], lines)


def competitive_learning() -> str:
    text = """
Algorithm 1 in blocks against the plain loop over samples in C, which can use one thread alone: microseconds a sample,
and whether the winners and points are the same. Then clocks and powers of the step on normal distributions: W2 to the
distribution, and the error of the online weights in total variation. `python benchmarks/clvq.py`."""

    shown: list[list[Record]] = []  # clocks and powers have the same bits on every instruction set

    def body(isa: str, part: Record) -> list[str]:
        lists = [value for value in part.values() if isinstance(value, list) and value not in shown]
        shown.extend(lists)
        return [line for rows in lists for line in (*records(rows, isa), "")][:-1]

    return section("Streams: competitive learning", text, "clvq", body)


def loss() -> str:
    text = """
The weighted loss, forward and gradient, in eager torch on the CPU: median microseconds of a step, and the gradient's
error in norm against float64. Plain torch is the composition that ddoq has for other devices, and the one that the goal
is about: 3 times faster at 256 rows, 1.5 times at 8,192. The fastest is that of several compositions, fused functions
among them. The ratio of minima is that of the fastest step of each: the median of torch's small steps is up to three
times its minimum, and changes from run to run. A time with ~ was taken while the machine's peak was more than 5 % below
its best. `python benchmarks/loss.py`."""

    def body(isa: str, part: Record) -> list[str]:
        rows, missed, missed_by_minima, lost = [], [], [], []
        for cell, row in part["cells"].items():
            own, peer, name = row["ddoq"], row[row["fastest_torch"]], row["fastest_torch"]
            rows.append(
                {
                    "data": cell + ("" if row["even"] else " ~"),
                    "ddoq": own["median_us"],
                    "plain torch": row["plain"]["median_us"],
                    f"plain / ddoq, {isa}": row["plain_ratio_of_medians"],
                    "of minima": row["plain_ratio_of_mins"],
                    "fastest torch": peer["median_us"],
                    "which": name,
                    f"fastest / ddoq, {isa}": row["ratio_of_medians"],
                    "gradient error": own["gradient_error"],
                    "torch's": peer["gradient_error"],
                }
            )
            goal = LOSS_GOALS.get(cell.split(" ")[2], 0)
            if row["plain_ratio_of_medians"] < goal:
                missed.append(cell)
            if row["plain_ratio_of_mins"] < goal:
                missed_by_minima.append(cell)
            if row["ratio_of_medians"] < 1:
                lost.append(cell)
        goals = [cell for cell in part["cells"] if cell.split(" ")[2] in LOSS_GOALS]
        reached = losses("The goal against plain torch is reached", len(goals), missed)
        reached += " " + losses("By minima it is reached", len(goals), missed_by_minima)
        return [*records(rows, isa), "", f"{reached} {losses('ddoq is faster than the fastest', len(rows), lost)}"]

    return section("The loss", text, "loss", body)


def threads() -> str:
    text = """
Two threads on 10 classes (`n_threads=2`) against two independent processes with half of the classes and one thread
each: median milliseconds, and the processes' time over the threads'. `python benchmarks/threads.py WORK`."""

    def body(isa: str, part: Record) -> list[str]:
        names = ("milliseconds_threads", "milliseconds_processes", "efficiency")
        return records([{"classes": cell, **{n: row[n] for n in names}} for cell, row in part["cells"].items()], isa)

    return section("Two threads against two processes", text, "threads", body)


def curve(cells: Record, name: str, method: str) -> tuple[list[int], list[float]]:
    """Numbers of points and milliseconds."""
    rows = {int(cell.rsplit(" ", 1)[1]): row for cell, row in cells.items() if cell.rsplit(", k ", 1)[0] == name}
    numbers = sorted(k for k, row in rows.items() if method in row)
    return numbers, [rows[k][method]["milliseconds_median"] for k in numbers]


def figure(path: Path) -> None:
    """Time against k of each method: a row for each machine, a column for each data set."""
    from matplotlib.figure import Figure

    found = dict(machines("classes"))
    if not found:
        return
    names = list(dict.fromkeys(cell.rsplit(", k ", 1)[0] for part in found.values() for cell in part["cells"]))
    picture = Figure(figsize=(3.4 * len(names), 3.2 * len(found) + 0.6), layout="constrained")
    axes = picture.subplots(len(found), len(names), squeeze=False, sharey="row")
    for line, (machine, part) in zip(axes, found.items(), strict=True):
        methods = columns_of(part["cells"])
        for ax, name in zip(line, names, strict=True):
            for i, method in enumerate(methods):
                points = curve(part["cells"], name, method)
                width = 2.5 if method.startswith("ddoq") else 1.2
                ax.plot(*points, marker="o", markersize=4, color=f"C{i}", label=method, linewidth=width)
            ax.set(xscale="log", yscale="log", title=f"{name}\n{machine}", xlabel="points per class, k")
            ax.title.set_fontsize("small")
            ax.set_xticks([10, 50, 200], ["10", "50", "200"])
            ax.yaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
            ax.grid(alpha=0.3)
        line[0].set_ylabel("milliseconds, all classes")
    handles, labels = axes[0][0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    picture.savefig(path, dpi=110, metadata={"Software": None})
