"""The weighted loss, forward and gradient, against eager torch in the same run: microseconds, 2 threads, and error.

    python benchmarks/loss.py [--repeats 200]

Eager torch is the fastest of the compositions that one would write for each kind of target, without any check of
values; with bfloat16 logits that is both computing in bfloat16 and converting them to float32 first. Calls alternate,
so that a busy machine slows all. Errors are those of the gradient, in norm, relative to that of the same formula in
float64 (of the same logits and targets). Results: results/loss.json, one entry for each machine and instruction set.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import facts, load_result, save_result
from torch import Tensor
from torch.nn import functional

from ddoq.loss import WeightedLoss, _composed

SHAPES = ((256, 1000), (1024, 1000), (8192, 1000))
THREADS = 2
Loss = Callable[[Tensor], Tensor]


def peers(kind: str, target: Any, weight: Tensor, tau: float) -> dict[str, Loss]:
    """What one would write with torch.nn.functional, by name."""

    def weighted(per_row: Tensor) -> Tensor:
        return (per_row * weight).mean()

    def divergence(s: Tensor, t: Tensor, log_target: bool = False) -> Tensor:
        log_p = functional.log_softmax(s / tau, dim=1)
        return weighted(functional.kl_div(log_p, t.to(s.dtype), reduction="none", log_target=log_target).sum(dim=1))

    def topk(s: Tensor) -> Tensor:
        values, indices = target
        rest = (1 - values.sum(dim=1, keepdim=True)) / (s.shape[1] - values.shape[1])
        return divergence(s, rest.expand(s.shape).scatter(1, indices, values))

    found: dict[str, dict[str, Loss]] = {
        "index": {"cross_entropy": lambda s: weighted(functional.cross_entropy(s, target, reduction="none"))},
        "probs": {"kl_div": lambda s: divergence(s, target)},
        "logits": {
            "kl_div of softmax": lambda s: divergence(s, functional.softmax(target / tau, dim=1)),
            "kl_div of log_softmax": lambda s: divergence(s, functional.log_softmax(target / tau, dim=1), True),
        },
        "topk": {"scatter, kl_div": topk},
    }
    return found[kind]


def in_float32(loss: Loss) -> Loss:
    return lambda s: loss(s.float())


def target_of(kind: str, n: int, classes: int, dtype: torch.dtype) -> Any:
    teacher = torch.randn(n, classes) * 3
    if kind == "index":
        return torch.randint(classes, (n,))
    if kind == "topk":
        values, indices = teacher.softmax(1).topk(10, dim=1)
        return values, indices
    return (teacher if kind == "logits" else teacher.softmax(1)).to(dtype)


def gradient(loss: Loss, logits: Tensor) -> Tensor:
    logits.grad = None
    loss(logits).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return logits.grad


def measure(kind: str, n: int, classes: int, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    tau = 1.0 if kind == "index" else 2.0
    ours = WeightedLoss(kind, temperature=tau)  # type: ignore[arg-type]
    logits = (torch.randn(n, classes) * 3).to(dtype).requires_grad_()
    target, weight = target_of(kind, n, classes, dtype), torch.rand(n)
    calls: dict[str, Loss] = {"ddoq": lambda s: ours(s, target, weight)}
    for name, peer in peers(kind, target, weight, tau).items():
        calls[name] = peer
        if dtype == torch.bfloat16:
            calls[f"{name} in float32"] = in_float32(peer)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 3):
        for name, call in calls.items():
            start = time.perf_counter()
            gradient(call, logits)
            if repeat >= 3:  # the first calls load, allocate and start threads
                times[name].append((time.perf_counter() - start) * 1e6)

    soft, indices = ours._split(target)
    wide = logits.detach().double().requires_grad_()
    wide_soft = None if soft is None else soft.double()
    exact = gradient(lambda s: _composed(s, wide_soft, indices, weight.double(), kind, tau, 0.0), wide)
    row: dict[str, Any] = {"target": kind, "shape": [n, classes], "dtype": str(dtype).removeprefix("torch.")}
    for name, call in calls.items():
        row[name] = {
            "min_us": round(min(times[name]), 1),
            "median_us": round(statistics.median(times[name]), 1),
            "gradient_error": float(f"{(gradient(call, logits).double() - exact).norm() / exact.norm():.2g}"),
        }
    row["fastest_torch"] = min((name for name in calls if name != "ddoq"), key=lambda name: row[name]["median_us"])
    for figure in ("min", "median"):
        row[f"ratio_of_{figure}s"] = round(row[row["fastest_torch"]][f"{figure}_us"] / row["ddoq"][f"{figure}_us"], 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200, help="calls of each at the smallest shape")
    repeats = parser.parse_args().repeats
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    result, here = load_result("loss"), facts()
    rows: list[dict[str, Any]] = []
    result[f"{here['cpu']}, {here['instruction_set']}"] = {"facts": here, "threads": THREADS, "rows": rows}
    print("instruction set", here["instruction_set"])
    for dtype in (torch.float32, torch.bfloat16):
        for kind in ("index", "probs", "logits", "topk"):
            for n, classes in SHAPES:
                row = measure(kind, n, classes, dtype, max(10, repeats * SHAPES[0][0] // n))
                rows.append(row)
                ours, theirs = row["ddoq"], row[row["fastest_torch"]]
                print(
                    f"{row['dtype']:9s}{kind:7s}{n:5d} x {classes}  {ours['median_us']:9.1f} "
                    f"{theirs['median_us']:9.1f} us  ratio {row['ratio_of_medians']:6.2f}"
                    f" ({row['ratio_of_mins']:.2f} of minima)  error {ours['gradient_error']:.1e} "
                    f"{theirs['gradient_error']:.1e}  {row['fastest_torch']}",
                    flush=True,
                )
    save_result("loss", result)


if __name__ == "__main__":
    main()
