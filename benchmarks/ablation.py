"""scikit-learn's digits: {D4M's minibatch, Lloyd, Lloyd + Hartigan} points x {uniform, density, sqrt} weights, IPC 10.

    python benchmarks/ablation.py WORK              # some minutes on 2 cores; resumes training by training

The points are quantised in pixels and decoded as they are, so that the quantiser and the weights alone differ. 3
distillations, 2 students each, protocol "dc" with the demo's 30 epochs of batches of 10, 360 test images. Beside the
accuracies: the weights' coefficient of variation, W2 under each weighting, gradient errors, random images.
Results: results/ablation.json, which notebooks/03_weights reads.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import facts, save_result

import ddoq
from ddoq.cli.demo import BATCH_SIZE, EPOCHS, digits
from ddoq.evaluation.gradients import gradient_agreement
from ddoq.reporting.findings import spreads

METHODS: dict[str, dict[str, Any]] = {
    "minibatch": {"quantizer": "minibatch"},
    "lloyd": {"refine": "none"},
    "lloyd + hartigan": {"refine": "hartigan"},
}
WEIGHTINGS = ("uniform", "density", "sqrt")
DISTILLATIONS, STUDENTS = 3, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for the runs")
    options = parser.parse_args()
    train, test = digits()
    runs = {name: [options.work / f"{name}, seed {seed}" for seed in range(DISTILLATIONS)] for name in METHODS}
    points: dict[str, list[dict[str, Any]]] = {}
    for name, own in METHODS.items():
        for seed, run in enumerate(runs[name]):
            small = ddoq.distill(train, run, ipc=10, codec="identity", synthesis="decode", seed=seed, **own)
            distances = {row.weighting: row.mean for row in ddoq.weigh(run).rows if row.set == "points"}
            errors = gradient_agreement(run, train, weightings=WEIGHTINGS, epochs=EPOCHS, batch_size=BATCH_SIZE)
            points.setdefault(name, []).append(
                {
                    "variation": [spread.variation for spread in spreads(small)],
                    "w2": distances,
                    "epochs": errors.epochs,
                    "gradient_errors": errors.errors,
                }
            )
    table = ddoq.evaluate(
        {name: list(paths) for name, paths in runs.items()},
        test,
        data=train,
        weightings=WEIGHTINGS,
        seeds=STUDENTS,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
    )
    one = [ddoq.w2(pixels, pixels.mean(axis=0, keepdims=True)) for pixels in _classes(*train)]
    save_result("ablation", {"facts": facts(), "points": points, "one_point_w2": np.mean(one), **table.to_json()})
    print(table)


def _classes(images: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    return [images[labels == label].reshape(-1, 64) / 255 for label in np.unique(labels)]


if __name__ == "__main__":
    main()
