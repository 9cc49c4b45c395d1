"""All classes quantised, whole job: ddoq against faiss, scikit-learn and scikit-learn-intelex, time and distortion.

    python benchmarks/classes.py WORK [--cells synthetic] [--k 10] [--methods faiss]     # resumes row by row
    DDOQ_ISA=avx2 python benchmarks/classes.py WORK                                      # each set has rows of its own

Data, starts and threads: benchmarks/peers.py. Every library has the same 2 threads, one at a time in one process; faiss
both with its own threads and with two classes side by side. Our own rows: the default, and `refine="none"` (Lloyd
alone, what the others do). Time: repeated runs, each with the next seed, for 5 runs or 20 s; ratios are of medians,
since the least of several seeds is the one with the fewest iterations. A row is measured again when the machine's peak
of multiply-adds, taken before and after it, changes by more than 5 %; a row that stays uneven says so. Distortion: mean
over runs and classes of the mean squared distance to the nearest point, computed for all in the same way. Results:
results/classes.json.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from common import entry, facts, load_result, save_result
from peak import peak_gflops
from peers import (
    CELLS,
    PACKAGES,
    THREADS,
    Classes,
    Method,
    check_environment,
    data_sets,
    distortions,
    with_ddoq,
    with_faiss,
    with_intelex,
    with_scikit_learn,
)

METHODS: dict[str, Method] = {
    "ddoq": with_ddoq("auto"),
    'ddoq, refine="none"': with_ddoq("none"),
    "faiss": with_faiss(side_by_side=False),
    "faiss, two classes side by side": with_faiss(side_by_side=True),
    "scikit-learn": with_scikit_learn(side_by_side=False),
    "scikit-learn-intelex": with_intelex,
}


def measure(method: Method, classes: Classes, k: int, isa: str) -> dict[str, object]:
    """Time and distortion of one row, measured again while the machine is uneven."""
    method([X[:256, :64].copy() for X in classes[:2]], 2, 0)  # loads, starts threads
    for _ in range(3):
        seconds: list[float] = []
        found: list[float] = []
        before = peak_gflops(isa, THREADS)
        while len(seconds) < 5 and sum(seconds) < 20:
            points, elapsed = method(classes, k, len(seconds))
            seconds.append(elapsed)
            found.append(statistics.fmean(distortions(classes, points)))
        after = peak_gflops(isa, THREADS)
        even = abs(after - before) <= 0.05 * max(before, after)
        if even:
            break
    return {
        "milliseconds_min": round(1e3 * min(seconds), 1),
        "milliseconds_median": round(1e3 * statistics.median(seconds), 1),
        "runs": len(seconds),
        "distortion": round(statistics.fmean(found), 3),
        "peak_gflops": round(before, 1),
        "even": even,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder with ImageNette's run")
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS))
    parser.add_argument("--k", type=int, nargs="*", default=[10, 50, 200])
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    options = parser.parse_args()
    blas, here, result = check_environment(), facts(PACKAGES), load_result("classes")
    isa = here["instruction_set"]
    machine = entry(result, here)
    machine["blas"] = blas
    for name, classes in data_sets(options.work, options.cells):
        for k in options.k:
            rows = machine["cells"].setdefault(f"{name}, k {k}", {})
            for method in options.methods:
                if method not in rows or options.again:
                    rows[method] = measure(METHODS[method], classes, k, isa)
                    save_result("classes", result)
                row = rows[method]
                note = "" if row["even"] else "  (the machine was uneven)"
                print(
                    f"{isa}  {name}, k {k:3d}  {method:32s}{row['milliseconds_median']:9.1f} ms "
                    f"{row['distortion']:10.2f}{note}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
