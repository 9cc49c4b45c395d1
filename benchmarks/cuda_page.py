"""docs/cuda.md: what runs on a GPU, how it is proved without one, what the compiler says, and what clocks say."""

from __future__ import annotations

from typing import Any

from common import load_result
from cuda_fit_page import fit_section

TEXT = """\
# CUDA

Made by `python benchmarks/tables.py`; its numbers are from benchmarks/results.

**{status}**

## Use

    ddoq.quantize_classes(X, y, 50, device="cuda")     # or "cuda:1"; "auto": the GPU that X is on, if it is on one
    ddoq.WeightedLoss("logits", 4.0)(logits, teacher, weight)           # of tensors on the GPU: there
    ddoq.cuda.is_available(), ddoq.cuda.why_not()      # why there is none, in words; also in `ddoq info`

X is float16, bfloat16 or float32: NumPy's, which is copied in waves of classes while the GPU works, or a tensor on
the GPU (torch's, or anything with DLPack), which is neither copied nor moved if its classes lie side by side.
Points of torch's tensors on the GPU are a tensor there; weights, labels and all else are NumPy's. Random numbers,
start, refinement and results are those of the CPU's Gram form, but for ties within float32's rounding; there is no
sketch and no streaming form, and float64 stays on the CPU. The same bits every time, however many waves free memory
allows.

The loss takes float32, float16 and bfloat16 logits and soft targets in any pair, and all kinds of targets; it works
in CUDA graphs and under torch.compile, and never waits for the device. That is why it cannot raise: a row whose
weight, class index or probabilities break a rule has NaN as its loss and gradient. float64, and gradients by weights
or targets, are torch's own operations as on other devices.

## Build

`ddoq._cuda` is built where nvcc is found (CUDACXX, CUDA_HOME, CUDA_PATH, PATH); `DDOQ_BUILD_CUDA=0` leaves it
out, `=1` makes its lack an error. `DDOQ_CUDA_ARCHS="80,90"` names GPUs by compute capability; without it
{archs}, and PTX of the last for those to come. The CUDA runtime is in the module. cuBLAS is loaded at the
first use: from what the process has loaded (torch brings it), cuda-pathfinder, NVIDIA's wheels (`pip install
ddoq[cuda]`), or the system. Without a driver the module imports, and `why_not` says so; `DDOQ_DISABLE_CUDA=1`
turns it off.

## How it works

A class of n samples, d features and k points:

- **G = X X^T** by cuBLAS, one product a class, four side by side: float32 sums of exact products of halves, or of
  float32 samples less their mean. Where halves have |mean|^2 above 10 times their variance, the class goes once
  more, centred in float32.
- **The fit**, one block of 256 threads a class and one launch a wave: greedy k-means++ (all candidates of a step in
  one pass over the samples), Lloyd's iterations to the fixed point of the labels (the sums of a cell change by the
  samples that came and went, or are made afresh where that is less), single-point moves (a warp's worth of samples
  is weighed at once, and the first that would move does, so that the moves are those of one after the other), all
  restarts. No word from the host, no atomics on floating point.
- **Points**, weights and the distortion in one pass over the samples, in double.

**The weighted loss** is one launch: a row of up to 1,024 classes lies in the registers of a warp, one of up to 8,192
in those of a block, from the only reading of its logits and targets to the writing of its gradient; longer rows are
read three times. The rows' losses are added by the last block to be done, in an order that depends on the numbers of
rows and classes alone. The backward pass scales the gradient, which is a second launch; in a CUDA graph and under
torch.compile one more, before the first, clears a counter. The gradient of float16 logits is float32 until the
scaling: a gradient scaler's factor comes before float16 could lose it.

Of the fit G is float32 and everything else double: sums that are updated by differences do not drift, single-point
moves end, and double centring of G is needless. It costs twice the traffic of S (k n numbers); by the count in
`csrc/cuda/fit.cu` the fit waits for memory, not for arithmetic. A class takes 4 n^2 bytes for G, 8 k n for S and
about 50 n; what does not fit at once is done in waves, down to one class. A class has one block: where there are
fewer classes than the GPU has multiprocessors, the fit leaves the others idle.

## How it is proved without a GPU

`tests/cuda_model.py` is the fit in NumPy, with the kernels' blocks and the order of every addition, tested against
the textbook (`ddoq/quantization/reference.py`). `tests/emulator` compiles the kernels, their host side and the binding
for the CPU, threads as fibers that switch at barriers and warp operations: from the same G both give the same bits, in
any order of the threads, and all tests of `tests/quantization/test_cuda.py` run on it, and on the machine's GPU where
there is one. The same for the loss: `tests/cuda_loss_model.py` and `tests/training/test_cuda_loss.py`, with a
tolerance, since the hardware's exponentials have errors of their own. What all this cannot show is what only hardware
has: memory ordering beyond barriers, cuBLAS itself, and time.

On a machine with a GPU the same tests are its first check, and the sanitiser's. On an NVIDIA H200 (CUDA 13.0, torch
2.11) the 32 tests of the quantiser that run on the device passed, and those of the loss, torch.compile and CUDA graphs
among them. compute-sanitizer's memcheck ran all 32 of the quantiser and found no error. racecheck named no hazard in
them, but failed to track one launch, which it counts as an error, so that it proves less. Both ended in a crash of the
emulator in the same process, since mended for Ubuntu's compiler flags and not tried there again.
synccheck and initcheck have not been run.

    pytest tests/quantization/test_cuda.py tests/quantization/test_cuda_model.py tests/training/test_cuda_loss.py
    for tool in memcheck racecheck synccheck initcheck; do
        compute-sanitizer --tool $tool python -m pytest tests/quantization/test_cuda.py -k "device and not emulated"
        compute-sanitizer --tool $tool python -m pytest tests/training/test_cuda_loss.py -k "gpu"
    done
    python benchmarks/cuda_quantize.py
    python benchmarks/cuda_loss.py
    python benchmarks/cuda_fit.py WORK          # again and again, until it says that the fit is whole

## What the compiler says

nvcc {nvcc}. Most of each kernel's variants, on sm_{arch_list}; spills are bytes stored and loaded, of a thread.

{resources}

{timings}"""

NOT_MEASURED = "The CUDA part is compiled, modelled and emulated, but has not been measured yet: no GPU has run it."
RUN = "`benchmarks/cuda_quantize.py` is ready to run: whole jobs beside plain torch, faiss, cuML and flash-kmeans."
RUN_LOSS = "Of the loss: `benchmarks/cuda_loss.py`, beside torch, torch.compile and Liger."


def per_arch(rows: dict[str, dict[str, int]], what: str) -> str:
    """One number where all architectures agree, otherwise all."""
    values = [row[what] for row in rows.values()]
    return str(values[0]) if len(set(values)) == 1 else " ".join(map(str, values))


def resources(result: dict[str, Any]) -> list[str]:
    lines = ["| source | kernel | variants | registers | static shared bytes | spills |", "|---|---|---|---|---|---|"]
    for source, kernels in result["files"].items():
        for name, rows in sorted(kernels.items()):
            numbers = [per_arch(rows, what) for what in ("variants", "registers", "shared_bytes", "spill_bytes")]
            lines.append(f"| {source} | {name} | " + " | ".join(numbers) + " |")
    return lines


def timings(result: dict[str, Any]) -> list[str]:
    lines = ["## Time", ""]
    for machine, cells in result.items():
        lines += [f"{machine}. Command: `{cells['facts']['command']}`", ""]
        for cell, rows in cells.items():
            if cell == "facts":
                continue
            lines += [f"**{cell}**", "", "| method | ms, median | ms, least | distortion | share of roofline |"]
            lines.append("|---|---|---|---|---|")
            for name, row in rows.items():
                if name != "peaks":
                    numbers = (row["milliseconds_median"], row["milliseconds_min"], row["distortion"])
                    share = row.get("share_of_roofline", "")
                    lines.append(f"| {name} | " + " | ".join(map(str, numbers)) + f" | {share} |")
            lines.append("")
    return lines


def loss_timings(result: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for machine, here in result.items():
        lines += [f"**The loss**, microseconds of device time. {machine}. Command: `{here['facts']['command']}`", ""]
        lines += [
            "| cell | loss and gradient | kernel alone | its share of a copy's bandwidth | torch | compiled torch |"
        ]
        lines += ["|---|---|---|---|---|---|"]
        for cell, row in here["rows"].items():
            ours, alone = row["ddoq"]["replay"]["median_us"], row["kernel"]["median_us"]
            ratios = f"{row['ratio_eager_torch']} times | {row['ratio_compiled']} times"
            lines.append(f"| {cell} | {ours} | {alone} | {row['share']} | {ratios} |")
        lines.append("")
    return lines


def cuda_page() -> str:
    compiled, measured, loss = (load_result(f"cuda_{name}") for name in ("resources", "quantize", "loss"))
    archs = compiled["archs"]
    return (
        TEXT.format(
            status=f"Measured on {' and '.join(name.split(' (')[0] for name in measured)}: see the end."
            if measured
            else NOT_MEASURED,
            archs=", ".join(f"sm_{arch}" for arch in archs),
            nvcc=compiled["nvcc"],
            arch_list=", ".join(archs),
            resources="\n".join(resources(compiled)),
            timings="\n".join(
                (timings(measured) if measured else ["## Time", "", f"Not measured yet. {RUN}", ""])
                + (loss_timings(loss) if loss else [f"Not measured yet. {RUN_LOSS}", ""])
                + fit_section()
            ),
        ).rstrip()
        + "\n"
    )
