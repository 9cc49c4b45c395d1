"""The weighted loss, forward and gradient, on a GPU beside torch, torch.compile and Liger: microseconds of device time.

    python benchmarks/cuda_loss.py                                              # resumes row by row
    python benchmarks/cuda_loss.py --device cpu --shapes 64x100 --kinds index   # a trial of the script; nothing is kept

Each call is a training step's part of it: loss, and the gradient by the logits through autograd. Three times: "replay",
of STEPS steps in one CUDA graph, by events round its replays, which is the device alone; "eager", by events round
eager steps, where the host may be what is waited for; "kernel", of ddoq's operator alone, replayed: its launch, and the
clearing of a counter that a graph needs. Of each, the least and the median of RUNS.

Peers: what one would write with torch.nn.functional (benchmarks/loss.py), in the logits' type and in float32, each
also through torch.compile; Liger's divergence where it can be imported, which has neither weights nor a temperature,
and no replay, since it compares with a number on the host, which a graph cannot.
"floor" is what the passes over memory take, logits and dense targets read, gradient written, at the bandwidth of a
copy of 2 GiB measured beside each row; "share" is floor over ddoq's kernel. Up to some (8192, 1000) all lies in the L2
cache, as in training after the product that makes the logits, and the share may be above 1. Errors are those of the
gradient, in norm, relative to float64's. Results: results/cuda_loss.json, an entry for each GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import facts, load_result, save_result
from loss import Loss, gradient, in_float32, peers, target_of
from torch import Tensor
from torch.nn import functional

import ddoq
from ddoq.training.loss import WeightedLoss
from ddoq.training.loss_torch import composed

STEPS, RUNS, WARM_UP = 20, 25, 3
SHAPES = ("1024x1000", "256x1000", "4096x1000", "16384x1000", "65536x1000")
Call = Callable[[], object]


def microseconds(call: Call, steps: int, device: str) -> dict[str, float]:
    """Of one of the call's steps, by events; by the host's clock on the CPU."""
    times = []
    for run in range(RUNS + WARM_UP):
        if device == "cpu":
            start = time.perf_counter()
            call()
            took = time.perf_counter() - start
        else:
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            call()
            after.record()
            torch.cuda.synchronize()
            took = before.elapsed_time(after) / 1e3
        if run >= WARM_UP:
            times.append(1e6 * took / steps)
    return {"min_us": round(min(times), 2), "median_us": round(statistics.median(times), 2)}


def repeated(call: Call) -> Call:
    def steps() -> None:
        for _ in range(STEPS):
            call()

    return steps


def replayed(call: Call, device: str) -> dict[str, float]:
    """STEPS calls in one CUDA graph."""
    if device == "cpu":
        return microseconds(repeated(call), STEPS, device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        repeated(call)()
    return microseconds(graph.replay, STEPS, device)


def step(loss: Loss, logits: Tensor) -> Call:
    return lambda: torch.autograd.grad(loss(logits), logits)


def with_liger(kind: str, target: Any, tau: float) -> dict[str, Loss]:
    if importlib.util.find_spec("liger_kernel") is None or kind not in ("probs", "logits"):
        return {}
    from liger_kernel.transformers import LigerKLDIVLoss

    divergence = LigerKLDIVLoss(reduction="batchmean")
    soft = target if kind == "probs" else functional.softmax(target / tau, dim=1)
    return {"liger, no weights": lambda s: divergence(functional.log_softmax(s / tau, dim=1), soft.to(s.dtype))}


def calls_of(kind: str, target: Any, weight: Tensor, tau: float, dtype: torch.dtype, device: str) -> dict[str, Loss]:
    ours = WeightedLoss(kind, temperature=tau)  # type: ignore[arg-type]
    found: dict[str, Loss] = {"ddoq": lambda s: ours(s, target, weight)}
    for name, peer in peers(kind, target, weight, tau).items():
        found[name] = peer
        if dtype != torch.float32:
            found[f"{name} in float32"] = in_float32(peer)
    if device != "cpu":
        torch.compiler.reset()  # what it has seen of other shapes
        compiled = {
            f"{name}, compiled": torch.compile(peer, dynamic=False) for name, peer in found.items() if name != "ddoq"
        }
        found |= compiled | with_liger(kind, target, tau)
    return found


def copy_bandwidth(device: str) -> float:
    """Bytes read and written a second by the copy of 2 GiB: the best run."""
    x = torch.zeros(1 << (31 if device != "cpu" else 24), dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    return 2 * x.numel() / (microseconds(lambda: y.copy_(x), 1, device)["min_us"] / 1e6)


def floor_us(kind: str, logits: Tensor, bandwidth: float) -> float:
    """Logits, and targets as large, read; the gradient written, in float32 where the kernel does so for float16."""
    written = 4 if logits.dtype == torch.float16 else logits.element_size()
    read = logits.element_size() * (2 if kind in ("probs", "logits") else 1)
    return 1e6 * logits.numel() * (read + written) / bandwidth


def measure(kind: str, n: int, classes: int, dtype: torch.dtype, device: str) -> dict[str, Any]:
    tau = 1.0 if kind == "index" else 2.0
    with torch.device(device):
        logits = (torch.randn(n, classes) * 3).to(dtype).requires_grad_()
        target, weight = target_of(kind, n, classes, dtype), torch.rand(n)
    soft, indices = WeightedLoss(kind)._split(target)  # type: ignore[arg-type]
    wide, wide_soft = logits.detach().double().requires_grad_(), None if soft is None else soft.double()
    exact = gradient(lambda s: composed(s, wide_soft, indices, weight.double(), kind, tau, 0.0), wide)
    row: dict[str, Any] = {}
    for name, call in calls_of(kind, target, weight, tau, dtype, device).items():
        error = (gradient(call, logits).double() - exact).norm() / exact.norm()
        row[name] = {
            "replay": None if name.startswith("liger") else replayed(step(call, logits), device),
            "eager": microseconds(repeated(step(call, logits)), STEPS, device),
            "gradient_error": None if name.startswith("liger") else float(f"{error:.2g}"),
        }
    operands, bandwidth = (logits.detach(), soft, indices, weight, kind, tau, 0.0), copy_bandwidth(device)
    row["kernel"] = replayed(lambda: torch.ops.ddoq.weighted_loss(*operands), device)
    row["floor_us"] = round(floor_us(kind, logits, bandwidth), 2)
    row["copy_gb_per_s"] = round(bandwidth / 1e9, 1)
    row["share"] = round(row["floor_us"] / row["kernel"]["median_us"], 3)
    return row | ratio("eager_torch", row, compiled=False) | ratio("compiled", row, compiled=True)


def ratio(figure: str, row: dict[str, Any], compiled: bool) -> dict[str, Any]:
    """How many times ddoq's time the fastest torch takes, replayed."""
    times = {
        name: figures["replay"]["median_us"]
        for name, figures in row.items()
        if isinstance(figures, dict) and figures.get("replay") and name.endswith(", compiled") == compiled
    }
    names = [name for name in times if name != "ddoq"]
    if not names:
        return {}
    fastest = min(names, key=lambda name: times[name])
    ours = row["ddoq"]["replay"]["median_us"]
    return {f"ratio_{figure}": round(times[fastest] / ours, 2), f"fastest_{figure}": fastest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=SHAPES, help="rows x classes")
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16", "float32", "float16"])
    parser.add_argument("--kinds", nargs="*", default=["logits", "index", "probs", "topk"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    options = parser.parse_args()
    if options.device != "cpu" and not ddoq.cuda.is_available():
        raise SystemExit(f"no GPU: {ddoq.cuda.why_not()}")
    result = load_result("cuda_loss") if options.device != "cpu" else {}
    here = result.setdefault(str(ddoq.info()["cuda"]), {"facts": facts(("numpy", "torch", "triton", "liger-kernel"))})
    rows = here.setdefault("rows", {})
    for shape in options.shapes:
        n, classes = map(int, shape.split("x"))
        for dtype in options.dtypes:
            for kind in options.kinds:
                cell = f"{kind} {dtype} {n} x {classes}"
                if (cell in rows and not options.again) or (options.device == "cpu" and dtype == "float16"):
                    continue
                torch.manual_seed(0)
                row = rows[cell] = measure(kind, n, classes, getattr(torch, dtype), options.device)
                ours = row["ddoq"]
                print(
                    f"{cell:30s} {ours['replay']['median_us']:9.2f} us, kernel {row['kernel']['median_us']:9.2f}, "
                    f"share {row['share']:5.2f}, torch {row.get('ratio_eager_torch')} times, compiled "
                    f"{row.get('ratio_compiled')} times, error {ours['gradient_error']:.1e}",
                    flush=True,
                )
                if options.device != "cpu":
                    save_result("cuda_loss", result)


if __name__ == "__main__":
    main()
