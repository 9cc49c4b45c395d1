"""The weighted loss, forward and gradient, against eager torch in the same run: microseconds, 2 threads.

python benchmarks/loss.py [--repeats 200]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import facts, save_result

from ddoq.loss import WeightedLoss, _composed

SHAPES = ((256, 1000), (1024, 1000), (8192, 1000))
THREADS = 2


def step(loss: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> None:
    logits.grad = None
    loss(logits).backward()  # type: ignore[no-untyped-call]


def target_of(kind: str, n: int, classes: int, dtype: torch.dtype) -> Any:
    teacher = torch.randn(n, classes) * 3
    if kind == "index":
        return torch.randint(classes, (n,))
    if kind == "topk":
        values, indices = teacher.softmax(1).topk(10, dim=1)
        return values, indices
    return (teacher if kind == "logits" else teacher.softmax(1)).to(dtype)


def measure(kind: str, n: int, classes: int, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """Alternating calls of both, so that a busy machine slows both."""
    ours = WeightedLoss(kind, temperature=1.0 if kind == "index" else 2.0)  # type: ignore[arg-type]
    logits = (torch.randn(n, classes) * 3).to(dtype).requires_grad_()
    target, weight = target_of(kind, n, classes, dtype), torch.rand(n)
    soft, indices = ours._split(target)
    calls = {
        "ddoq": lambda s: ours(s, target, weight),
        "torch": lambda s: _composed(s, soft, indices, weight, kind, ours.temperature, 0.0),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 3):
        for name, call in calls.items():
            start = time.perf_counter()
            step(call, logits)
            if repeat >= 3:  # the first calls load, allocate and start threads
                times[name].append((time.perf_counter() - start) * 1e6)
    row: dict[str, Any] = {"target": kind, "shape": [n, classes], "dtype": str(dtype).removeprefix("torch.")}
    for name, values in times.items():
        row[name] = {"min_us": round(min(values), 1), "median_us": round(statistics.median(values), 1)}
    row["ratio_of_medians"] = round(row["torch"]["median_us"] / row["ddoq"]["median_us"], 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200, help="calls of each at the smallest shape")
    repeats = parser.parse_args().repeats
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    result: dict[str, Any] = {**facts(), "threads": THREADS, "repeats": repeats, "rows": []}
    print("instruction set", result["instruction_set"])
    for dtype in (torch.float32, torch.bfloat16):
        for kind in ("index", "probs", "logits", "topk"):
            for n, classes in SHAPES:
                row = measure(kind, n, classes, dtype, max(5, repeats * SHAPES[0][0] // n))
                result["rows"].append(row)
                print(row["dtype"], kind, (n, classes), row["ddoq"], row["torch"], row["ratio_of_medians"], flush=True)
    save_result("loss", result)


if __name__ == "__main__":
    main()
