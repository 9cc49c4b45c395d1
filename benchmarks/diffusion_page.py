"""The section of docs/results.md on fitted models, from results/latent_diffusion.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

from common import load_result

from ddoq.evaluation.table import ANY
from ddoq.evaluation.variation import Difference, paired_difference

NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10 (JPEG)"}
JUDGES = {
    "mnist": "a ConvNet-3 trained on all training images (2 epochs)",
    "cifar10": "ResNet-56 of akamaster/pytorch_resnet_cifar10",
}
MINUTES = {"mnist": 30, "cifar10": 60}  # goals: of a fit, at most, on 2 cores
AGREEMENT = {"mnist": 0.95}  # of the diffused images with the judge, at least
METHODS, WEIGHTINGS = ("lloyd", "minibatch"), ("uniform", "density", "reencoded")


def diffusion_section(machine: Callable[[dict[str, Any]], str]) -> list[str]:
    lines = []
    result = load_result("latent_diffusion")
    for name, own in ((name, result[name]) for name in NAMES if name in result):
        lines += [f"## {NAMES[name]}: models of one's own", "", *_found(name, own), *_fit(own), *_quality(name, own)]
        lines += [*_picture(name, own), *_strength(own), *_weights(own), *_machines(own["facts"], machine)]
    return [*lines, "Size small on CIFAR-10, on a GPU: see [CUDA](cuda.md).", ""] if lines else []


def _found(name: str, own: dict[str, Any]) -> list[str]:
    """What the tables say, in words."""
    said = [*_fit_goal(name, own), *_agreement(name, own), *_least_w2(own), *_differences(own)]
    return ["What was found:", "", *(f"- {line}" for line in said), ""]


def _fit_goal(name: str, own: dict[str, Any]) -> list[str]:
    found, goal = own.get("fit"), MINUTES[name]
    if not found:
        return []
    times = f"{found['minutes']:.1f} minutes by the clock, {found['processor_minutes']:.1f} of processor time"
    wanted = f"goal, at most {goal} by the clock on 2 cores"
    if found["resumed"]:
        return [f"the fit's last process took {times}, and others before it theirs; {wanted}: not known"]
    return [f"the fit took {times}; {wanted}: {_met(found['minutes'] <= goal)}"]


def _agreement(name: str, own: dict[str, Any]) -> list[str]:
    shares: dict[str, dict[str, float]] = {}  # by set, then by "ipc 10"
    for label, row in own.get("quality", {}).items():
        ipc, _, chosen = label.partition(", ")
        if ipc.startswith("ipc"):
            shares.setdefault(chosen, {})[ipc.upper()] = row["agreement"]
    if not shares:
        return []
    said = {
        chosen: " and ".join(f"{100 * share:.1f} % ({ipc})" for ipc, share in found.items())
        for chosen, found in shares.items()
    }
    text = f"the judge sees the class in {said.pop('diffuse')} of the diffused images"
    if name in AGREEMENT:
        met = _met(min(shares["diffuse"].values()) >= AGREEMENT[name])
        return [f"{text}; goal, at least {100 * AGREEMENT[name]:.0f} %: {met}"]
    return [f"{text}; beside them {', '.join(f'{chosen} {found}' for chosen, found in said.items())}"]


def _least_w2(own: dict[str, Any]) -> list[str]:
    rows = [*own.get("strength", {}).values(), *_runs(own).values()]
    found = [[row["w2"][f"diffuse, {weighting}"] for weighting in WEIGHTINGS] for row in rows]
    least = sum(reencoded <= min(others) for *others, reencoded in found)
    said = (
        f"W2 to the data is least with re-encoded weights in {least} of {len(rows)} rows of strengths and distillations"
    )
    return [said] if rows else []


def _differences(own: dict[str, Any]) -> list[str]:
    said = []
    for weighting, spelt in (("reencoded", "re-encoded"), ("density", "density")):
        found = {method: _difference(own, method, weighting) for method in METHODS}
        texts = [f"{method} {_text(one)}, {_verdict(one)}" for method, one in found.items() if one]
        if texts:
            said.append(f"accuracy with {spelt} weights minus uniform: {'; '.join(texts)}")
    return said


def _verdict(difference: Difference) -> str:
    if difference.interval is None:
        return "one distillation, no interval"
    low, high = difference.interval
    if low <= 0 <= high:
        return "which includes zero"
    return "better" if low > 0 else "worse"


def _met(met: bool) -> str:
    return "met" if met else "missed"


def _fit(own: dict[str, Any]) -> list[str]:
    found = own.get("fit", {})
    if not found:
        return []
    codec, diffusion = found["codec"], found["diffusion"]
    return [
        f"`ddoq fit` on all training images, size tiny: codec {codec['parameters']:,} parameters, {codec['steps']:,}",
        f"steps, PSNR {codec['psnr']:.1f} dB; flow {diffusion['parameters']:,} parameters,",
        f"{diffusion['steps']:,} steps; peak memory {found['peak_memory_gib']:.2f} GiB.",
        "",
    ]


def _quality(name: str, own: dict[str, Any]) -> list[str]:
    rows = own.get("quality", {})
    if not rows:
        return []
    judge = rows.get("all test images, judge")
    (real,) = {row["real"] for row in rows.values() if "real" in row}
    lines = [
        f"Quality beside {real:,} test images, on which the students are tested too; judge and features:",
        f"{JUDGES[name]}" + (f", itself right on {100 * judge['agreement']:.1f} % of them." if judge else "."),
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


def _picture(name: str, own: dict[str, Any]) -> list[str]:
    row = own.get("picture")
    if not row:
        return []
    return [
        f"The {row['images']} diffused images of IPC 10 with their {row['weighting']} weights, the heaviest of a class",
        f"first; points by {row['quantizer']}, seed {row['seed']}; strength {row['strength']:.2f},",
        f"which keeps {row['keep']:.2f} of the point, {row['steps']} steps, guidance {row['guidance']:g}:",
        "",
        f"![{NAMES[name]}: images and weights](weights_{name}.png)",
        "",
    ]


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
    rows, runs = own.get("weights", {}), _runs(own)
    if not runs:
        return []
    first = next(iter(runs.values()))["rows"][0]
    lines = [
        f"Weights, IPC 10: ConvNet-3, protocol `{first['protocol']}`, mean over distillations of the mean over",
        f"{first['n']} students, ± deviation between distillations; the difference to uniform weights is paired by",
        "distillation and student; in brackets its 95 % interval, Student's t over the distillations.",
        "",
        "| points | weights | distillations | accuracy % | minus uniform | W2 |",
        "|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        own_runs = [run for label, run in runs.items() if label.startswith(method)]
        for weighting in WEIGHTINGS if own_runs else ():
            means = [statistics.fmean(_accuracies(run, weighting)) for run in own_runs]
            difference = "" if weighting == "uniform" else _text(_difference(own, method, weighting))
            w2 = statistics.fmean(run["w2"][f"diffuse, {weighting}"] for run in own_runs)
            lines.append(f"| {method} | {weighting} | {len(means)} | {_mean(means)} | {difference} | {w2:.4g} |")
    random = [statistics.fmean(row["accuracies"]) for row in rows.values() if "accuracies" in row]
    if random:
        lines.append(f"| random real images | uniform | {len(random)} | {_mean(random)} |  |  |")
    return [*lines, ""]


def _machines(facts: dict[str, dict[str, Any]], machine: Callable[[dict[str, Any]], str]) -> list[str]:
    """Parts of one machine and its versions in one line, with the command that makes them all."""
    alike: dict[str, list[str]] = {}
    for part, own in facts.items():
        alike.setdefault(json.dumps({**own, "command": None}, sort_keys=True), []).append(part)
    lines = []
    for parts in alike.values():
        first = facts[parts[0]]
        command = " ".join([first["command"], *parts[1:]])
        lines += [f"{', '.join(parts)}: {machine({**first, 'command': command})}.", ""]
    return lines


def _runs(own: dict[str, Any]) -> dict[str, Any]:
    """The distillations whose weights were compared."""
    return {label: row for label, row in own.get("weights", {}).items() if "rows" in row}


def _accuracies(run: dict[str, Any], weighting: str) -> list[float]:
    """Of the students; where all weights are the same numbers, they were trained once."""
    (found,) = (row["accuracies"] for row in run["rows"] if row["weighting"] in (weighting, ANY))
    return list(found)


def _difference(own: dict[str, Any], method: str, weighting: str) -> Difference | None:
    runs = [run for label, run in _runs(own).items() if label.startswith(method)]
    if not runs:
        return None
    return paired_difference(*([_accuracies(run, name) for run in runs] for name in (weighting, "uniform")))


def _text(difference: Difference | None) -> str:
    if difference is None:
        return ""
    interval = "" if difference.interval is None else " [{:+z.2f}, {:+z.2f}]".format(*difference.interval)
    return f"{difference.mean:+z.2f}{interval}"


def _mean(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"
