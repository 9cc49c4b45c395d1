"""Models of size "small" fitted to CIFAR-10 (JPEG) on a GPU, by commands of under 9 minutes that go on.

    python benchmarks/cuda_fit.py WORK                     # again and again, until it says that the fit is whole
    python benchmarks/cuda_fit.py WORK --steps 5000 20000  # of codec and flow, where the GPU's time is short
    python benchmarks/cuda_fit.py WORK --device cpu --size tiny --steps 20 20 --minutes 1   # a trial, not kept

After `--minutes` an alarm interrupts `ddoq.fit`, as Ctrl-C does; the next command goes on from the last checkpoint, at
most a minute of training back. WORK keeps the data, the models and commands.json: of each command the GPU, the minutes
by the clock (all but the imports) and the steps that it logged last. Results: results/cuda_fit.json, written whole
after each command, with the losses, images per second and memory of the fit's log.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from common import facts, save_result, unpack

import ddoq
from ddoq.stages.fit import Fitted

AGAIN = 5.0  # seconds to the next alarm: one that comes in a callback is printed and forgotten


def fit_until(end: float, data: Any, out: Path, **options: Any) -> Fitted | None:
    """`ddoq.fit` until `end` of the monotonic clock, in seconds; None if the alarm came first."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(end - time.monotonic(), 1e-3), AGAIN)
        return ddoq.fit(data, out, **options)
    except KeyboardInterrupt:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def curves(log: Path) -> dict[str, dict[str, Any]]:
    """Of each model the fit's log: a line for every hundredth of the steps, however often it was stopped."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for text in log.read_text().splitlines() if log.exists() else []:
        line = json.loads(text)
        lines.setdefault(line["model"], []).append(line)
    return {
        model: {
            "steps": own[-1]["steps"],
            "step": [line["step"] for line in own],
            "loss": [round(line["loss"], 5) for line in own],
            "images_per_second": statistics.median(line["images_per_second"] for line in own),
            "peak_memory_gib": round(max(line["memory"] for line in own) / 2**30, 2),
        }
        for model, own in lines.items()
    }


def command(work: Path, data: Any, minutes: float, start: float, **options: Any) -> dict[str, Any]:
    """Fit until so many minutes after `start`, and give all that is known by then of the fit and its commands."""
    done = work / "commands.json"
    commands = json.loads(done.read_text()) if done.exists() else []
    fitted = fit_until(start + 60 * minutes, data, work / "model", **options)
    found = curves(work / "model" / "log.jsonl")
    reached = {model: own["step"][-1] for model, own in found.items()}
    if fitted is None or not commands or commands[-1]["reached"] != reached:  # otherwise it was whole before
        device = "cpu" if options["device"] == "cpu" else torch.cuda.get_device_name(options["device"])
        minutes = round((time.monotonic() - start) / 60, 2)
        commands.append({"device": device, "minutes": minutes, "reached": reached})
    done.write_text(json.dumps(commands, indent=1) + "\n")
    return {
        "facts": facts(("numpy", "torch", "diffusers")),
        "size": options["size"],
        "commands": commands,
        "curves": found,
        "models": None if fitted is None else {"codec": dict(fitted.codec), "diffusion": dict(fitted.diffusion)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for data and models")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which the command stops")
    parser.add_argument("--size", default="small")
    parser.add_argument(
        "--steps", type=int, nargs=2, default=[None, None], help="of codec and flow; default: the size's"
    )
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    start = time.monotonic()
    if options.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(f"no GPU: torch {torch.__version__} sees none; --device cpu is for a trial, which is not kept")
    folder = unpack(options.work / "cifar10", "cifar10/cifar10_jpeg")
    codec_steps, diffusion_steps = options.steps
    sizes = {"size": options.size, "codec_steps": codec_steps, "diffusion_steps": diffusion_steps}
    result = command(options.work, folder / "train", options.minutes, start, **sizes, device=options.device)
    if options.device != "cpu":
        save_result("cuda_fit", result)
    last = result["commands"][-1]
    print(f"{last['minutes']} minutes, {last['reached']}:", "whole" if result["models"] else "run it again to go on")


if __name__ == "__main__":
    main()
