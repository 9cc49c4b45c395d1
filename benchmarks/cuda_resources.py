"""What the compiler says of every kernel: registers, shared memory, spills, on each architecture. Needs nvcc, no GPU.

    python benchmarks/cuda_resources.py            # the architectures of setup.py, or DDOQ_CUDA_ARCHS

Compiles each csrc/cuda/*.cu with the flags of setup.py. Variants of one kernel are one row: the most of each number.
Results: results/cuda_resources.json, which docs/cuda.md shows.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, save_result

ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\w+)'")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers.*")
SHARED = re.compile(r"(\d+) bytes smem")


def report(nvcc: list[str], flags: list[str], source: Path, archs: list[str]) -> str:
    """The compiler's words for one source and all architectures, names demangled."""
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    with tempfile.TemporaryDirectory() as folder:
        command = [*nvcc, *flags, *targets, "-Icsrc", "-Xptxas=-v", "-c", str(source), "-o", f"{folder}/out.o"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def base_name(mangled: str) -> str:
    """A kernel's name without its types."""
    full = subprocess.run(["c++filt", mangled], check=True, capture_output=True, text=True).stdout.strip()
    full = full.replace("(anonymous namespace)::", "").removeprefix("void ")
    return re.split(r"[<(]", full)[0]


def kernels(text: str) -> dict[str, dict[str, dict[str, int]]]:
    """By kernel and architecture: variants, registers, static shared bytes, spilled bytes."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    names: dict[str, str] = {}
    for part in re.split(r"(?=ptxas info\s+: Compiling entry)", text):
        entry = ENTRY.search(part)
        if not entry:
            continue
        name = names.setdefault(entry[1], base_name(entry[1]))
        spills, used, shared = SPILLS.search(part), USED.search(part), SHARED.search(part)
        assert spills is not None
        assert used is not None
        row = found.setdefault(name, {}).setdefault(
            entry[2], {"variants": 0, "registers": 0, "shared_bytes": 0, "spill_bytes": 0}
        )
        row["variants"] += 1
        row["registers"] = max(row["registers"], int(used[1]))
        row["shared_bytes"] = max(row["shared_bytes"], int(shared[1]) if shared else 0)
        row["spill_bytes"] = max(row["spill_bytes"], int(spills[1]) + int(spills[2]))
    return {name: {arch: rows[arch] for arch in sorted(rows, key=int)} for name, rows in found.items()}


def main() -> None:
    os.chdir(ROOT.parent)
    setup = runpy.run_path("setup.py")
    nvcc = setup["find_nvcc"]()
    if nvcc is None:
        raise SystemExit("there is no nvcc: set CUDACXX, CUDA_HOME or PATH")
    archs = setup["cuda_archs"](nvcc)
    version = subprocess.run([*nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    release = re.search(r"V([\d.]+)", version)
    result: dict[str, Any] = {"nvcc": release[1] if release else version, "archs": archs, "files": {}}
    for source in sorted(Path("csrc/cuda").glob("*.cu")):
        flags = [*setup["NVCC"], *setup["NVCC_FILE_FLAGS"].get(source.name, [])]
        result["files"][source.name] = kernels(report(nvcc, flags, source, archs))
        for name, rows in result["files"][source.name].items():
            print(f"{source.name}  {name:10s}", {arch: row["registers"] for arch, row in rows.items()}, flush=True)
    save_result("cuda_resources", result)


if __name__ == "__main__":
    main()
