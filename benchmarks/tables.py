"""Write docs/results.md, cuda.md, quantiser.md and figures from results/*.json: no number in them is typed by hand.

python benchmarks/tables.py
"""

from __future__ import annotations

import statistics
from typing import Any

from ablation_page import ablation_section
from common import ROOT, load_result
from cuda_fit_page import fit_figure
from cuda_page import cuda_page
from diffusion_page import diffusion_section
from factorial_page import factorial_section
from quantiser_page import figure, quantiser_page


def accuracy(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['mean']:.1f}" + (f" ± {row['std']:.1f}" if row["std"] is not None else "")


def machine(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version != "absent")
    return (
        f"{facts['cpu']}, {facts['cores']} cores, quantiser on {facts['instruction_set']}; "
        f"ddoq {facts['ddoq']}, {versions}. Command: `{facts['command']}`"
    )


def mnist() -> list[str]:
    result = load_result("mnist")
    if not result:
        return []
    lines = [
        "## MNIST: all 60,000 images, fitted codec and diffusion",
        "",
        "Accuracy in percent on the first 3,000 test images, last epoch, mean ± deviation over n student seeds of one",
        "distillation; the random subset is drawn anew for each seed. `benchmarks/mnist.py`.",
        "",
    ]
    for name, table in sorted(result["accuracy"].items(), key=lambda item: int(item[0].split()[1])):
        rows = table["rows"]
        weightings = list(dict.fromkeys(row["weighting"] for row in rows))
        found = {(row["set"], row["weighting"]): row for row in rows}
        protocol, n = rows[0]["protocol"], rows[0]["n"]
        lines += [
            f"**{name.upper()}**, ConvNet-3, protocol `{protocol}`, n = {n}",
            "",
            "| set | " + " | ".join("any (all weights 1)" if w == "any" else w for w in weightings) + " |",
            "|---" * (len(weightings) + 1) + "|",
        ]
        for chosen in dict.fromkeys(row["set"] for row in rows):
            cells = [accuracy(found.get((chosen, weighting))) for weighting in weightings]
            lines.append(f"| {chosen} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["| distil | seconds | of which | peak memory |", "|---|---|---|---|"]
    for name, cost in sorted(result["distill"].items(), key=lambda item: int(item[0].split()[1])):
        stages = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in cost["stage_seconds"].items())
        lines.append(f"| {name} | {cost['seconds']:.0f} | {stages} | {cost['peak_memory_gib']:.2f} GiB |")
    machines = dict.fromkeys(machine(cost["facts"]) for cost in result["distill"].values())
    for text in machines:
        names = [name for name, cost in result["distill"].items() if machine(cost["facts"]) == text]
        lines += ["", f"{', '.join(names)}: {text}."]
    return [*lines, ""]


def imagenette() -> list[str]:
    result = load_result("imagenette")
    if not result:
        return []
    cost = result["distill"]
    lines = [
        "## ImageNette at 112 px through TAEF2: W2 to the data",
        "",
        f"{cost['n']:,} images, d = 6,272, one run of each method; mean over the 10 classes of the distance between",
        "a class's latents and its points, with the Voronoi weights and with uniform ones (exact optimal transport).",
        "minibatch: scikit-learn's MiniBatchKMeans run as D4M does. `benchmarks/imagenette.py`.",
        "",
    ]
    for ipc in (10, 50):
        rows = [value for key, value in result["w2"].items() if key.endswith(f"ipc {ipc}")]
        lines += [f"| IPC {ipc} | weighted | uniform |", "|---|---|---|"]
        for name in rows[0]:
            means = [
                f"{statistics.fmean(row[name][kind] for row in rows):.2f}" if kind in rows[0][name] else ""
                for kind in ("weighted", "uniform")
            ]
            lines.append(f"| {name} | {' | '.join(means)} |")
        lines.append("")
    worst = max(row["inertia_relative_difference"] for row in result["scikit_learn"].values())
    differ = sum(row["labels_differ"] for row in result["scikit_learn"].values())
    stages = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in cost["stage_seconds"].items())
    return [
        *lines,
        f"Against scikit-learn's KMeans from the same starts (20 fits): {differ} labels differ, inertia equal to",
        f"{worst:.0e}. Distilling at IPC 10: {stages}; peak memory {cost['peak_memory_gib']:.2f} GiB.",
        "",
        f"{machine(result['facts'])}.",
        "",
    ]


def main() -> None:
    text = "\n".join(
        [
            "# Results",
            "",
            "Made by `python benchmarks/tables.py` from benchmarks/results.",
            "",
            *mnist(),
            *diffusion_section(machine),
            *imagenette(),
            *factorial_section(),
            *ablation_section(machine),
        ]
    )
    docs = ROOT.parent / "docs"
    (docs / "results.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    (docs / "cuda.md").write_text(cuda_page(), encoding="utf-8")
    (docs / "quantiser.md").write_text(quantiser_page(), encoding="utf-8")
    figure(docs / "quantiser.png")
    fit_figure(docs / "cuda_fit.png")


if __name__ == "__main__":
    main()
