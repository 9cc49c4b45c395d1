"""The weighted loss, forward and gradient, against eager torch in the same run: microseconds, 2 threads, and error.

    python benchmarks/loss.py [--repeats 200] [--cells "float32 index"]     # resumes row by row

Two eager torches, without any check of values. "plain" is the composition that ddoq itself has for other devices:
log_softmax, softmax of the teacher, the divergence or entropy of each row, times the weights, mean. The other is the
fastest of several that one would write for each kind of target, fused functions among them; with bfloat16 logits both
in bfloat16 and in float32. Calls alternate, so that a busy machine slows all; a row is measured again when the machine
is not as free as it has been (peak.py), and one that stays uneven says so. Errors are those of the gradient, in norm,
relative to that of the same formula in float64 (of the same logits and targets). Results: results/loss.json, one entry
for each machine and instruction set.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import entry, facts, load_result, save_result
from peak import measured
from torch import Tensor
from torch.nn import functional

from ddoq.training.loss import WeightedLoss
from ddoq.training.loss_torch import composed

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
    soft, indices = ours._split(target)
    calls: dict[str, Loss] = {
        "ddoq": lambda s: ours(s, target, weight),
        "plain": lambda s: composed(s, soft, indices, weight, kind, tau, 0.0),
    }
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

    wide = logits.detach().double().requires_grad_()
    wide_soft = None if soft is None else soft.double()
    exact = gradient(lambda s: composed(s, wide_soft, indices, weight.double(), kind, tau, 0.0), wide)
    row: dict[str, Any] = {}
    for name, call in calls.items():
        row[name] = {
            "min_us": round(min(times[name]), 1),
            "median_us": round(statistics.median(times[name]), 1),
            "gradient_error": float(f"{(gradient(call, logits).double() - exact).norm() / exact.norm():.2g}"),
        }
    torches = [name for name in calls if name != "ddoq"]
    row["fastest_torch"] = min(torches, key=lambda name: row[name]["median_us"])
    for prefix, name in (("ratio", row["fastest_torch"]), ("plain_ratio", "plain")):
        for figure in ("min", "median"):
            row[f"{prefix}_of_{figure}s"] = round(row[name][f"{figure}_us"] / row["ddoq"][f"{figure}_us"], 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200, help="calls of each at the smallest shape")
    parser.add_argument("--cells", default="", help="only rows whose name begins so")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    result, here = load_result("loss"), facts()
    part = entry(result, here)
    print("instruction set", here["instruction_set"])
    for dtype in (torch.float32, torch.bfloat16):
        for kind in ("index", "probs", "logits", "topk"):
            for n, classes in SHAPES:
                cell = f"{str(dtype).removeprefix('torch.')} {kind} {n} x {classes}"
                if cell in part["cells"] or not cell.startswith(options.cells):
                    continue
                torch.manual_seed(0)
                repeats = max(10, options.repeats * SHAPES[0][0] // n)
                run = partial(measure, kind, n, classes, dtype, repeats)
                row = measured(run, part, here["instruction_set"], THREADS)
                part["cells"][cell] = row
                save_result("loss", result)
                report(cell, row)


def report(cell: str, row: dict[str, Any]) -> None:
    ours, theirs = row["ddoq"], row[row["fastest_torch"]]
    print(
        f"{cell:28s}{ours['median_us']:9.1f} us  plain {row['plain']['median_us']:9.1f} us, ratio "
        f"{row['plain_ratio_of_medians']:6.2f} ({row['plain_ratio_of_mins']:.2f} of minima)  fastest "
        f"{theirs['median_us']:9.1f} us, ratio {row['ratio_of_medians']:6.2f} ({row['ratio_of_mins']:.2f})"
        f"  error {ours['gradient_error']:.1e} {theirs['gradient_error']:.1e}  {row['fastest_torch']}"
        f"{'' if row['even'] else '  uneven'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
