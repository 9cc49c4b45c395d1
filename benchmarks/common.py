"""What every benchmark shares: where data and results are, and the facts that stand beside every figure."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import resource
import shlex
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import ddoq

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results"


def data_dir() -> Path:
    """Folder of the development data: $DDOQ_DATA, or `shared/data` beside the repository."""
    folder = Path(os.environ.get("DDOQ_DATA", ROOT.parents[1] / "shared" / "data"))
    if not folder.is_dir():
        raise SystemExit(f"no data at {folder}: set DDOQ_DATA to the folder that holds mnist/, imagenette/ and taef2/")
    return folder


def unpack(folder: Path, *archives: str) -> Path:
    """Archives of the development data, such as "imagenette/val", unpacked once into one folder, which comes back."""
    done = folder / "done"
    with waiting(folder):
        if not done.exists():
            for archive in archives:
                with tarfile.open(data_dir() / f"{archive}.tar.xz") as file:
                    file.extractall(folder, filter="data")
            done.touch()
    return folder


@contextmanager
def waiting(folder: Path) -> Iterator[None]:
    """One process at a time in the block, of those that name the same folder, which is made; the others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def mnist() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """((60,000 train images, labels), (the first 3,000 test images, labels)), uint8 (n, 28, 28)."""
    with np.load(data_dir() / "mnist" / "mnist.npz") as file:
        return (file["x_train"], file["y_train"]), (file["x_test"], file["y_test"])


def facts(packages: Sequence[str] = ("numpy", "scikit-learn", "torch", "diffusers", "POT", "timm")) -> dict[str, Any]:
    """Machine, versions and command, in which WORK stands for the folders of one machine."""
    cpu = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            cpu = line.split(":")[1].strip()
    arguments = ["WORK" if os.path.isabs(argument) else argument for argument in sys.argv[1:]]
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "instruction_set": ddoq.info()["isa"],
        "python": platform.python_version(),
        "ddoq": ddoq.__version__,
        "versions": versions,
        "command": "python " + shlex.join([os.path.relpath(sys.argv[0], ROOT.parent), *arguments]),
    }


def refuse_others(found: dict[str, Any], here: dict[str, Any]) -> None:
    """SystemExit, with the difference, if rows with the facts `found` are of another machine or of other versions.

    Rows of two versions in one table would be compared with each other.
    """
    for name in ("cpu", "cores", "instruction_set", "python", "ddoq", "versions"):
        if found[name] != here[name]:
            raise SystemExit(f"the rows so far are of {name} {found[name]}, not {here[name]}: remove them")


def entry(result: dict[str, Any], here: dict[str, Any]) -> dict[str, Any]:
    """The part of a result of this machine and instruction set, whose rows other pieces of the same job have begun."""
    found: dict[str, Any] = result.setdefault(f"{here['cpu']}, {here['instruction_set']}", {"facts": here, "cells": {}})
    refuse_others(found["facts"], here)
    return found


def peak_memory_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def load_result(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def save_result(name: str, result: dict[str, Any]) -> None:
    """Write results/<name>.json whole or not at all, so that a script killed half-way resumes from it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(path)
