"""Hashes of every artefact of small runs, against those of an earlier commit: a change of form must not change a bit.

    python benchmarks/golden.py             # names every difference; exit status 1 where there is one
    python benchmarks/golden.py --write     # the hashes of this commit are those to come

Only the public names of ddoq are called, so that the script outlives any arrangement of its modules. Artefacts are
the quantiser's results in every form and type with every instruction set of the machine (golden_quantizer.py), and
files, manifests, weights and tables of distillations and trainings of scikit-learn's digits (golden_runs.py). Torch
and BLAS have one thread, the quantiser two. Torch's and BLAS's bits are of one processor and one version: on another
processor only what the quantiser's C core makes alone is compared, instruction set by instruction set. Numbers are
hashed by their bits, and no hash covers times, memory or the machine. A minute on 2 cores. Results:
results/golden.json.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, facts, load_result, save_result

import ddoq

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "diffusers", "safetensors", "pillow", "POT", "timm")
PORTABLE = "quantizer"  # the part that the C core makes alone
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
DIGITS = 16  # of a hash, in hexadecimal


def content(value: Any) -> Iterator[bytes]:
    """What a hash is taken of: types, shapes and bits."""
    if hasattr(value, "detach"):  # a tensor of torch, of any dtype
        import torch

        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.dtype.str} {value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, np.ndarray | list | tuple):
        yield f"{len(value)} parts".encode()
        for part in value:
            yield from content(part)
    elif isinstance(value, Mapping):
        yield from content(list(value.items()))
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, float):
        yield value.hex().encode()
    elif value is None or isinstance(value, str | int):
        yield f"{type(value).__name__} {value}".encode()
    else:
        raise TypeError(f"no hash of a {type(value).__name__}")


def flat(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Dotted keys and hashes; fields of dataclasses and entries of dictionaries each have their own."""
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from flat(f"{key}.{name}", part)
        return
    total = hashlib.sha256()
    for part in content(value):
        total.update(len(part).to_bytes(8, "little") + part)
    yield key, total.hexdigest()[:DIGITS]


def made(part: str) -> dict[str, str]:
    """The hashes of a part, with a line for each of its cases."""
    import golden_quantizer
    import golden_runs
    import torch

    torch.set_num_threads(1)
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as work:
        cases = golden_runs.runs(Path(work)) if part == "runs" else getattr(golden_quantizer, part)()
        start = time.monotonic()
        for name, value in cases:
            key = name if part == "runs" else f"{part}.{ddoq.info()['isa']}.{name}"
            hashes = dict(flat(key, value))
            if twice := hashes.keys() & found.keys():
                raise SystemExit(f"two artefacts are called {min(twice)}")
            found |= hashes
            print(f"{time.monotonic() - start:6.1f} s  {key}: {len(hashes)}", flush=True)
            start = time.monotonic()
    return found


def made_with(isa: str, *parts: str) -> dict[str, str]:
    """The hashes of some parts, made by a process of its own: libraries read the environment when they are loaded."""
    os.environ.update(ONE_THREAD, DDOQ_ISA=isa)
    found: dict[str, str] = {}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for part in parts:
            found |= pool.submit(made, part).result()
    return found


def all_hashes(portable: bool) -> dict[str, str]:
    """The hashes of everything, or of what is of no machine."""
    found: dict[str, str] = {}
    for isa in instruction_sets():
        found |= made_with(isa, PORTABLE, *(() if portable else ("loss", "libraries")))
    return found if portable else found | made_with(instruction_sets()[-1], "runs")


def instruction_sets() -> list[str]:
    """Those that this machine runs, worst to best."""
    isas: Any = ddoq.info()["isas"]
    return list(isas)


def machine() -> dict[str, Any]:
    """What stands beside the hashes; cpu tells apart processors of one name."""
    here = facts(PACKAGES)
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = (line.partition(":") for line in text.splitlines())
    numbers = {name.strip(): value.strip() for name, _, value in lines}
    model = [f"{name} {numbers[name]}" for name in ("cpu family", "model", "stepping") if name in numbers]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    here["cpu"] = ", ".join([here["cpu"], *model])
    return {**here, "instruction_sets": instruction_sets(), "commit": commit.stdout.strip()}


def same_processor(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether all artefacts compare; a sentence says why not, and what may come from other versions."""
    for name in ("cpu", "instruction_sets"):
        if there[name] != here[name]:
            print(
                f"torch's bits are of a machine, and these hashes of another ({name}: {there[name]}; here {here[name]})"
                ": only what the quantiser's C core makes alone is compared."
            )
            return False
    versions = {**there["versions"], "python": there["python"]}, {**here["versions"], "python": here["python"]}
    changed = [
        f"{name} {versions[0][name]}, here {now}" for name, now in versions[1].items() if versions[0][name] != now
    ]
    if changed:
        told = "; ".join(changed)
        print(f"torch's bits are of a machine and its libraries, and other versions may change them: {told}.")
    return True


def compared(before: Mapping[str, str], now: Mapping[str, str]) -> int:
    """Print every difference; their number."""
    different = 0
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key, "absent"), now.get(key, "absent")
        if old != new:
            different += 1
            print(f"{key}: {old}, now {new}")
    print(f"{different} of {len(before)} artefacts differ" if different else f"{len(before)} artefacts, all the same")
    return different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write results/golden.json instead of comparing with it")
    options = parser.parse_args()
    here, start = machine(), time.monotonic()
    print(f"ddoq of {Path(ddoq.__file__).parent}", flush=True)
    if options.write:
        hashes = all_hashes(portable=False)
        save_result("golden", {"facts": here, "hashes": hashes})
        print(f"{len(hashes)} artefacts written in {time.monotonic() - start:.0f} s")
        return
    result = load_result("golden")
    if not result:
        raise SystemExit("there is no results/golden.json: make it with --write on the commit to compare with")
    before: dict[str, str] = result["hashes"]
    portable = not same_processor(result["facts"], here)
    if portable:
        common = set(here["instruction_sets"])
        before = {k: h for k, h in before.items() if k.split(".")[0] == PORTABLE and k.split(".")[1] in common}
    now = all_hashes(portable)
    if portable:
        now = {k: h for k, h in now.items() if k.split(".")[1] in result["facts"]["instruction_sets"]}
    different = compared(before, now)
    print(f"commit {result['facts']['commit'][:7]} against {here['commit'][:7]}, {time.monotonic() - start:.0f} s")
    raise SystemExit(1 if different else 0)


if __name__ == "__main__":
    main()
