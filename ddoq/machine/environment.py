"""Records the versions and the machine that a result was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ddoq._version import __version__


def environment() -> dict[str, Any]:
    """Versions and machine, as far as results may depend on them."""
    versions = {"ddoq": __version__, "python": platform.python_version()}
    for name in ("numpy", "torch", "diffusers", "safetensors", "pillow"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    machine: dict[str, Any] = {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}
    if torch := sys.modules.get("torch"):
        machine["torch_threads"] = torch.get_num_threads()
        machine["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"versions": versions, "machine": machine}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def conditions(device: torch.device) -> dict[str, Any]:
    """What decides a training's bits beside its recipe and data: versions, device, threads."""
    versions = dict(environment()["versions"])
    with suppress(importlib.metadata.PackageNotFoundError):
        versions["timm"] = importlib.metadata.version("timm")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"versions": versions, "device": name, "torch_threads": torch.get_num_threads()}
