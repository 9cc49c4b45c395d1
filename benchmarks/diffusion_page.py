"""The section of docs/results.md on fitted models, from results/latent_diffusion.json."""

from __future__ import annotations

import statistics
from typing import Any

from common import load_result
from scipy.stats import t as student_t

NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10 (JPEG)"}
JUDGES = {
    "mnist": "a ConvNet-3 trained on all training images (2 epochs)",
    "cifar10": "ResNet-56 of akamaster/pytorch_resnet_cifar10",
}


def diffusion_section() -> list[str]:
    result = load_result("latent_diffusion")
    lines = []
    for name in NAMES:
        if name in result:
            lines += [f"## {NAMES[name]}: models of one's own", "", *_fit(result[name]), *_quality(name, result[name])]
            lines += [*_strength(result[name]), *_weights(result[name])]
    return lines


def _fit(own: dict[str, Any]) -> list[str]:
    found = own.get("fit", {})
    if not found:
        return []
    codec, diffusion = found["codec"], found["diffusion"]
    resumed = " of the last of several processes" if found["resumed"] else ""
    clock, processors = found["minutes"], found["processor_minutes"]
    used = f"{clock:.1f} minutes by the clock beside other work, {processors:.1f} of processors"
    return [
        f"`ddoq fit` on all training images, size tiny: codec {codec['parameters']:,} parameters, {codec['steps']:,}",
        f"steps, PSNR {codec['psnr']:.1f} dB; flow {diffusion['parameters']:,} parameters,",
        f"{diffusion['steps']:,} steps: {used}{resumed}. `benchmarks/latent_diffusion.py`.",
        "",
    ]


def _quality(name: str, own: dict[str, Any]) -> list[str]:
    rows = own.get("quality", {})
    if not rows:
        return []
    judge = rows.get("all test images, judge")
    lines = [
        f"Quality beside the test images; judge and features: {JUDGES[name]}"
        + (f",\nitself right on {100 * judge['agreement']:.1f} % of them." if judge else "."),
        "",
        "| images | agreement % | KID | precision | recall | density | coverage |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, row in rows.items():
        if label.startswith("ipc"):
            shares = " | ".join(f"{row[key]:.3f}" for key in ("precision", "recall", "density", "coverage"))
            kid = f"{row['kid']:.3g} ± {row['kid_std']:.2g}"
            lines.append(f"| {label} | {100 * row['agreement']:.1f} | {kid} | {shares} |")
    return [*lines, ""]


def _strength(own: dict[str, Any]) -> list[str]:
    rows = own.get("strength", {})
    if not rows:
        return []
    first = next(iter(rows.values()))
    lines = [
        f"Strength, IPC 10, density weights; accuracy: ConvNet-3, protocol `{first['protocol']}`,",
        f"n = {len(first['accuracies'])} students of one distillation. W2 of the diffused images to the data, in the",
        "latents' unit.",
        "",
        "| strength | keeps of the point | agreement % | accuracy % | W2, density | W2, re-encoded | W2, uniform |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, row in sorted(rows.items(), key=lambda item: float(item[0])):
        w2 = " | ".join(f"{row['w2'][f'diffuse, {key}']:.4g}" for key in ("density", "reencoded", "uniform"))
        keeps = "" if row["keeps"] is None else f"{row['keeps']:.2f}"
        agreement = f"{100 * row['agreement']:.1f}"
        lines.append(f"| {label} | {keeps} | {agreement} | {_mean(row['accuracies'])} | {w2} |")
    return [*lines, ""]


def _weights(own: dict[str, Any]) -> list[str]:
    rows = own.get("weights", {})
    runs = {label: row for label, row in rows.items() if "rows" in row}
    if not runs:
        return []
    first = next(iter(runs.values()))["rows"][0]
    lines = [
        f"Weights, IPC 10: ConvNet-3, protocol `{first['protocol']}`, mean over distillations of the mean over",
        f"{first['n']} students, ± deviation between distillations; the difference to uniform weights is paired",
        "within a distillation, with a 95 % interval (Student's t over the distillations).",
        "",
        "| points | weights | distillations | accuracy % | minus uniform | W2 |",
        "|---|---|---|---|---|---|",
    ]
    for method in ("lloyd", "minibatch"):
        own_runs = [row for label, row in runs.items() if label.startswith(method)]
        for weighting in ("uniform", "density", "reencoded"):
            means = [_row(run, weighting) for run in own_runs]
            base = [_row(run, "uniform") for run in own_runs]
            difference = "" if weighting == "uniform" else _interval([a - b for a, b in zip(means, base, strict=True)])
            w2 = statistics.fmean(run["w2"][f"diffuse, {weighting}"] for run in own_runs)
            lines.append(f"| {method} | {weighting} | {len(means)} | {_mean(means)} | {difference} | {w2:.4g} |")
    random = [statistics.fmean(row["accuracies"]) for row in rows.values() if "accuracies" in row]
    if random:
        lines.append(f"| random real images | uniform | {len(random)} | {_mean(random)} |  |  |")
    return [*lines, ""]


def _row(run: dict[str, Any], weighting: str) -> float:
    (mean,) = (row["mean"] for row in run["rows"] if row["weighting"] == weighting)
    return float(mean)


def _mean(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def _interval(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:+.1f}"
    half = float(student_t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):+.1f} ± {half:.1f}"
