"""Two threads on 10 classes against two independent processes with 5 of them each: seconds of the whole job.

    python benchmarks/threads.py WORK [--cells imagenette] [--k 10]     # resumes row by row

Two processes are the best that one can hope for: they share nothing, and each works with one thread. They hold their
classes, of both about the same number of samples, and start together at a barrier: imports and loading are not timed.
Their job is done when the slower one is. Both ways do the same arithmetic (the same classes and seeds; that the
distortions are the same is checked), in turns, each first in every other repeat. The efficiency is the processes'
median time over the threads'. Data: benchmarks/peers.py, of the synthetic cells the first 10 classes. Results:
results/threads.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
from common import entry, facts, load_result, save_result
from peak import measured
from peers import CELLS, PACKAGES, THREADS, Classes, check_environment, data_sets

import ddoq

HALVES = (0, 3, 4, 7, 8), (1, 2, 5, 6, 9)  # of the classes from the biggest to the smallest: about the same sum


class Job:
    """Some of the classes as one array, to be quantised again and again."""

    def __init__(self, classes: Classes, which: list[int], threads: int) -> None:
        self.X = np.concatenate([classes[c] for c in which])
        self.y = np.repeat(which, [len(classes[c]) for c in which])
        self.seeds = [np.random.SeedSequence(c) for c in sorted(which)]
        self.threads = threads

    def run(self, k: int) -> tuple[float, float, dict[int, float]]:
        """Start and end by the clock that processes share, and each class's distortion."""
        start = time.clock_gettime(time.CLOCK_MONOTONIC)
        q = ddoq.quantize_classes(self.X, self.y, k, random_state=self.seeds, n_threads=self.threads)
        end = time.clock_gettime(time.CLOCK_MONOTONIC)
        return start, end, dict(zip(q.classes.tolist(), q.distortion.tolist(), strict=True))


def work(job: Job, pipe: Connection, barrier: Barrier) -> None:
    """Of a process: run the job for each k that comes, when the other process is ready too."""
    while (k := pipe.recv()) is not None:
        barrier.wait()
        pipe.send(job.run(k))


class Processes:
    """Two processes with half of the classes each."""

    def __init__(self, classes: Classes) -> None:
        context = multiprocessing.get_context("spawn")
        order = sorted(range(len(classes)), key=lambda c: -len(classes[c]))
        barrier, self.pipes, self.children = context.Barrier(2), [], []
        for half in HALVES:
            here, there = context.Pipe()
            job = Job(classes, sorted(order[i] for i in half), 1)
            self.children.append(context.Process(target=work, args=(job, there, barrier)))
            self.children[-1].start()
            self.pipes.append(here)

    def run(self, k: int) -> tuple[float, float, dict[int, float]]:
        for pipe in self.pipes:
            pipe.send(k)
        starts, ends, parts = zip(*[pipe.recv() for pipe in self.pipes], strict=True)
        return min(starts), max(ends), parts[0] | parts[1]

    def close(self) -> None:
        for pipe, child in zip(self.pipes, self.children, strict=True):
            pipe.send(None)
            child.join()


Ways = dict[str, Job | Processes]


def measure(ways: Ways, k: int, repeats: int) -> dict[str, Any]:
    """The row of one k."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(-1, repeats):  # the first warms up
        found = []
        for name in list(ways)[:: 1 if repeat % 2 else -1]:
            start, end, distortion = ways[name].run(k)
            found.append(distortion)
            if repeat >= 0:
                seconds[name].append(end - start)
        if found[0] != found[1]:
            raise SystemExit(f"threads and processes got other distortions: {found}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        **{f"milliseconds_{name}": round(1e3 * value, 2) for name, value in medians.items()},
        "efficiency": round(medians["processes"] / medians["threads"], 4),
        "repeats": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder with ImageNette's run")
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS))
    parser.add_argument("--k", type=int, nargs="*", default=[10, 50, 200])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    options = parser.parse_args()
    check_environment()
    here, result = facts(PACKAGES), load_result("threads")
    isa, machine = here["instruction_set"], entry(result, here)
    for cell, classes in data_sets(options.work, options.cells):
        processes = Processes(classes[:10])
        ways: Ways = {"threads": Job(classes[:10], list(range(10)), THREADS), "processes": processes}
        for k in options.k:
            name = f"{cell}, k {k}"
            if name not in machine["cells"] or options.again:
                run = partial(measure, ways, k, options.repeats)
                machine["cells"][name] = measured(run, machine, isa, THREADS)
                save_result("threads", result)
            print(isa, name, machine["cells"][name], flush=True)
        processes.close()


if __name__ == "__main__":
    main()
