"""All classes quantised, whole job: ddoq against faiss, scikit-learn and scikit-learn-intelex, time and distortion.

    python benchmarks/classes.py WORK [--cells synthetic] [--k 10] [--methods faiss]     # resumes row by row
    DDOQ_ISA=avx2 python benchmarks/classes.py WORK                                      # each set has rows of its own

Data, starts and threads: benchmarks/peers.py. Every library has the same 2 threads, one library at a time; faiss both
with its own threads and with two classes side by side. Each row has a process of its own, with the setting of OpenMP
in which its library is fastest: idle threads spin for faiss, as is libgomp's default, and sleep for scikit-learn,
which would lose to its own BLAS's threads; neither ddoq nor scikit-learn-intelex uses OpenMP. Our own rows: the
default, and `refine="none"` (Lloyd alone, what the others do). Time: repeated runs, each with the next seed, for 5
runs or 20 s; ratios are of medians, since the least of several seeds is the one with the fewest iterations. A row is
measured again when the machine's peak of multiply-adds before or after it is more than 5 % below the best one; a row
that stays uneven says so. Distortion: mean over runs and classes of the mean squared distance to the nearest point,
computed for all in the same way. Results: results/classes.json.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from common import entry, facts, load_result, save_result
from peak import measured
from peers import (
    CELLS,
    PACKAGES,
    THREADS,
    Classes,
    Method,
    blas_kernels,
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

SPINS = "300000"  # libgomp's default where nothing is set


def measure(method: Method, classes: Classes, k: int) -> dict[str, Any]:
    """Time and distortion of one row."""
    method([X[:256, :64].copy() for X in classes[:2]], 2, 0)  # loads, starts threads
    seconds: list[float] = []
    found: list[float] = []
    while len(seconds) < 5 and sum(seconds) < 20:
        points, elapsed = method(classes, k, len(seconds))
        seconds.append(elapsed)
        found.append(statistics.fmean(distortions(classes, points)))
    return {
        "milliseconds_min": round(1e3 * min(seconds), 1),
        "milliseconds_median": round(1e3 * statistics.median(seconds), 1),
        "runs": len(seconds),
        "distortion": round(statistics.fmean(found), 3),
    }


def print_row(isa: str, cell: str, method: str, row: dict[str, Any]) -> None:
    note = "" if row["even"] else "  (the machine was uneven)"
    time = f"{row['milliseconds_median']:9.1f} ms"
    print(f"{isa}  {cell:32s}  {method:32s}{time} {row['distortion']:10.2f}{note}", flush=True)


def measure_here(work: Path, name: str, k: int, method: str) -> None:
    """The one row of this process, into the results."""
    result, here = load_result("classes"), facts(PACKAGES)
    machine = entry(result, here)
    machine["blas"] = blas_kernels()
    ((_, classes),) = data_sets(work, [name])
    run = partial(measure, METHODS[method], classes, k)
    row = measured(run, machine, here["instruction_set"], THREADS)
    machine["cells"].setdefault(f"{name}, k {k}", {})[method] = row
    save_result("classes", result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder with ImageNette's run")
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS))
    parser.add_argument("--k", type=int, nargs="*", default=[10, 50, 200])
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    options = parser.parse_args()
    check_environment()
    here, result = facts(PACKAGES), load_result("classes")
    machine = entry(result, here)
    save_result("classes", result)
    for name, k, method in itertools.product(options.cells, options.k, options.methods):
        cell = f"{name}, k {k}"
        if options.again or method not in machine["cells"].get(cell, {}):
            spawn = multiprocessing.get_context("spawn")
            os.environ["GOMP_SPINCOUNT"] = SPINS if method.startswith("faiss") else "0"
            child = spawn.Process(target=measure_here, args=(options.work, name, k, method))
            child.start()
            child.join()
            if child.exitcode:
                raise SystemExit(f"{cell}, {method}: exit status {child.exitcode}")
            machine = entry(load_result("classes"), here)
        print_row(here["instruction_set"], cell, method, machine["cells"][cell][method])


if __name__ == "__main__":
    main()
