"""The section of docs/cuda.md on fitting models, from results/cuda_fit.json, and its figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import load_result

MINUTES = 9  # goal: each command takes less
MODELS = {"codec": "codec", "diffusion model": "flow"}  # as the fit's log and the page call them
NOT_MEASURED = [
    "Not measured: no GPU has run it. `benchmarks/cuda_fit.py WORK` is ready: size small on CIFAR-10 by commands that",
    f"each stop in less than {MINUTES} minutes and go on, with the curves of the losses.",
]


def fit_section() -> list[str]:
    result = load_result("cuda_fit")
    lines = ["**Fitting models of one's own**", ""]
    if not result:
        return [*lines, *NOT_MEASURED]
    commands, curves = result["commands"], result["curves"]
    longest = max(command["minutes"] for command in commands)
    devices = ", ".join(dict.fromkeys(command["device"] for command in commands))
    whole = "whole" if result["models"] else "not whole yet"
    met = "met" if longest < MINUTES else "missed"
    lines += [
        f"Size {result['size']} on CIFAR-10 (JPEG), {devices}, {len(commands)} commands, each going on from the last:",
        f"{whole}; the longest took {longest:.1f} minutes; goal, less than {MINUTES}: {met}.",
        f"Command: `{result['facts']['command']}`",
        "",
        "| command | minutes | codec, steps | flow, steps |",
        "|---|---|---|---|",
    ]
    for number, command in enumerate(commands, 1):
        reached = " | ".join(f"{command['reached'].get(model, 0):,}" for model in MODELS)
        lines.append(f"| {number} | {command['minutes']:.1f} | {reached} |")
    lines += ["", "| model | steps | loss | images per second, median | peak memory |", "|---|---|---|---|---|"]
    for model, own in curves.items():
        speed, memory = f"{own['images_per_second']:,.0f}", f"{own['peak_memory_gib']:.2f} GiB"
        steps = f"{own['step'][-1]:,} of {own['steps']:,}"
        lines.append(f"| {MODELS[model]} | {steps} | {own['loss'][-1]:.4f} | {speed} | {memory} |")
    return [*lines, "", "![Losses of codec and flow against steps](cuda_fit.png)"]


def fit_figure(path: Path) -> None:
    """Loss against steps of each model; a dotted line where a command stopped and the next went on."""
    from matplotlib.figure import Figure

    result = load_result("cuda_fit")
    curves: dict[str, dict[str, Any]] = result.get("curves", {})
    if not curves:
        return
    picture = Figure(figsize=(4.5 * len(curves), 3.2), layout="constrained")
    (line,) = picture.subplots(1, len(curves), squeeze=False)
    for ax, (model, own) in zip(line, curves.items(), strict=True):
        ax.plot(own["step"], own["loss"])
        stops = {command["reached"].get(model, 0) for command in result["commands"]} - {0, own["steps"]}
        for stop in stops:
            ax.axvline(stop, color="grey", linestyle=":", linewidth=1)
        ax.set(yscale="log", title=MODELS[model], xlabel="steps", ylabel="loss")
        ax.grid(alpha=0.3)
    picture.savefig(path, dpi=110, metadata={"Software": None})
