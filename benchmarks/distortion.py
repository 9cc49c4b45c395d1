"""Distortion over 20 seeds, of the classes themselves and of held-out images: ddoq, faiss, the two scikit-learns.

    python benchmarks/distortion.py WORK HELD_OUT [--cells synthetic] [--k 200] [--methods ddoq] [--seconds 150]

Data and starts: benchmarks/peers.py; HELD_OUT/run has the latents of ImageNette's 3,925 validation images
(`imagenette.py HELD_OUT --val`). Mean over classes and seeds of the mean squared distance to the nearest point, its
standard error, and the same of the held-out images of each class to the points of that class. ddoq with its defaults
and, at k 200 of ImageNette, with `refine="hartigan"`.

The best of 10 scikit-learn restarts (n_init=10) is estimated from the same single starts. n_init keeps the least of 10
independent ones, so its expected distortion is the expected least of 10 draws, of which the mean of the minima of all
10-subsets of the N single starts is an unbiased estimate. It needs no sampling: the i-th smallest of N (i from 0) is
the least of C(N - 1 - i, 9) of the C(N, 10) subsets. The held-out distortion of the kept start is estimated by the same
weights. 20 starts per class instead of 200 cost a tenth; the standard error (jackknife over seeds, classes independent)
says what that leaves uncertain. With `--seeds 10` it cannot be given, with fewer neither can the estimate.

Resumes seed by seed, from WORK/distortion.json; `--seconds` ends a piece early. Results: results/distortion.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from common import entry, facts, load_result, save_result
from peers import (
    CELLS,
    PACKAGES,
    Classes,
    Method,
    check_environment,
    data_sets,
    distortions,
    features,
    imagenette,
    with_ddoq,
    with_faiss,
    with_intelex,
    with_scikit_learn,
)

from ddoq.storage.run import Run

METHODS: dict[str, Method] = {
    "ddoq": with_ddoq("auto"),
    'ddoq, refine="hartigan"': with_ddoq("hartigan"),
    "scikit-learn": with_scikit_learn(side_by_side=True),
    "scikit-learn-intelex": with_intelex,
    "faiss": with_faiss(side_by_side=True),
    "faiss, k-means++": with_faiss(side_by_side=True, init=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS),
}
RESTARTS = {"scikit-learn": 10}  # the best of so many is given too
Sample = list[list[float]]  # of one seed: the classes' distortions, and their held-out ones where there are any


def wanted(cell: str, k: int, method: str) -> bool:
    return method != 'ddoq, refine="hartigan"' or (k == 200 and cell.startswith("imagenette"))


def best_of(m: int, chosen_by: np.ndarray, value: np.ndarray) -> float:
    """Mean, over all m-subsets of the N starts, of the value of the subset's start with the least `chosen_by`."""
    n = len(value)
    shares = np.array([math.comb(n - 1 - i, m - 1) for i in range(n)]) / math.comb(n, m)
    return float(shares @ value[np.argsort(chosen_by, kind="stable")])


def estimate(m: int, chosen_by: np.ndarray, value: np.ndarray) -> list[float | None]:
    """Mean over classes of the best of m, and its jackknife standard error; both arguments (seeds, classes)."""
    seeds, classes = value.shape
    pairs = list(zip(chosen_by.T, value.T, strict=True))
    mean = float(np.mean([best_of(m, a, b) for a, b in pairs]))
    if seeds <= m:
        return [round(mean, 3), None]
    variance = 0.0
    for a, b in pairs:
        without = [best_of(m, np.delete(a, i), np.delete(b, i)) for i in range(seeds)]
        variance += (seeds - 1) * float(np.var(without))
    return [round(mean, 3), round(math.sqrt(variance) / classes, 3)]


def summary(method: str, samples: list[Sample]) -> dict[str, Any]:
    """[estimate, standard error] of one start and, for scikit-learn, of the best of 10; held out where there is."""
    trained = np.array([sample[0] for sample in samples])
    kinds = {"": trained}
    if len(samples[0]) > 1:
        kinds["held_out_"] = np.array([sample[1] for sample in samples])
    row: dict[str, Any] = {"seeds": len(samples)}
    for prefix, value in kinds.items():
        row[f"{prefix}mean"] = estimate(1, trained, value)
        if len(samples) >= RESTARTS.get(method, math.inf):
            row[f"{prefix}best_of_{RESTARTS[method]}"] = estimate(RESTARTS[method], trained, value)
    return row


def held_out_latents(folder: Path, work: Path) -> Classes:
    (names, classes), own = imagenette(folder / "run"), Run.open(work / "run").manifest["class_names"]
    if names != own:
        raise SystemExit(f"{folder} has the classes {names}, {work} has {own}")
    return classes


class Samples:
    """What each row has so far, of all machines, in WORK/distortion.json: too much for the results."""

    def __init__(self, work: Path) -> None:
        self.path = work / "distortion.json"
        self.rows: dict[str, list[Sample]] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def save(self) -> None:
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.rows))
        partial.replace(self.path)


def fill(samples: Samples, key: str, run: Method, sets: list[Classes], k: int, seeds: int, deadline: float) -> bool:
    """Run the seeds that a row lacks; whether it is complete."""
    own = samples.rows.setdefault(key, [])
    while len(own) < seeds:
        if time.monotonic() > deadline:
            return False
        points, _ = run(sets[0], k, len(own))
        own.append([distortions(X, points) for X in sets])
        samples.save()
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder with ImageNette's run; unfinished rows are kept in it")
    parser.add_argument("held_out", type=Path, help="folder with the run of the validation images")
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS))
    parser.add_argument("--k", type=int, nargs="*", default=[10, 50, 200])
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=20, help="the table names the number")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no seed after so long; exit status 1")
    parser.add_argument("--forget", action="store_true", help="only remove the wanted rows, to be measured again")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    check_environment()
    here, result, samples = facts(PACKAGES), load_result("distortion"), Samples(options.work)
    machine = entry(result, here)
    cells = [] if options.forget else options.cells
    if options.forget:
        for cell, k, method in itertools.product(options.cells, options.k, options.methods):
            machine["cells"].get(f"{cell}, k {k}", {}).pop(method, None)
            samples.rows.pop(f"{here['cpu']}, {here['instruction_set']}: {cell}, k {k}, {method}", None)
        samples.save()
        save_result("distortion", result)
    for cell, classes in data_sets(options.work, cells):
        sets = [classes]
        if cell.startswith("imagenette"):
            sets.append(features(held_out_latents(options.held_out, options.work), cell))
        for k, method in itertools.product(options.k, options.methods):
            rows, key = machine["cells"].setdefault(f"{cell}, k {k}", {}), f"{cell}, k {k}, {method}"
            if not wanted(cell, k, method) or rows.get(method, {"seeds": 0})["seeds"] >= options.seeds:
                continue
            key = f"{here['cpu']}, {here['instruction_set']}: {key}"
            if not fill(samples, key, METHODS[method], sets, k, options.seeds, deadline):
                raise SystemExit(f"{key}: {len(samples.rows[key])} of {options.seeds} seeds; run again to go on")
            rows[method] = summary(method, samples.rows[key][: options.seeds])
            save_result("distortion", result)
            print(key, rows[method], flush=True)


if __name__ == "__main__":
    main()
