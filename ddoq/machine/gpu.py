"""Tells whether an NVIDIA GPU can be used, and if not, why; loads cuBLAS."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from ddoq.machine import backend

__all__ = ["is_available", "why_not"]


def is_available() -> bool:
    """Whether this build can compute on a GPU of this machine. `import ddoq` never asks; nothing is printed.

    Examples
    --------
    >>> is_available() == (why_not() is None)
    True
    """
    return why_not() is None


def why_not() -> str | None:
    """Why no GPU can be used, in words, or None where one can.

    DDOQ_DISABLE_CUDA is set; ddoq is built without CUDA; there is no driver, an old one, or no device.

    Examples
    --------
    >>> import os
    >>> os.environ["DDOQ_DISABLE_CUDA"] = "1"
    >>> why_not()
    'DDOQ_DISABLE_CUDA is set'
    >>> del os.environ["DDOQ_DISABLE_CUDA"]
    """
    module = _module()
    return module if isinstance(module, str) else _problem(module)


def usable() -> ModuleType:
    """The compiled part, if it can be used; RuntimeError that says why not."""
    module = _module()
    problem = module if isinstance(module, str) else _problem(module)
    if isinstance(module, str) or problem is not None:
        raise RuntimeError(f"CUDA cannot be used: {problem}")
    return module


def load_cublas() -> None:
    """Load cuBLAS, unless that is done; ImportError that says where it was looked for."""
    _load_cublas(usable())


@cache
def _load_cublas(module: ModuleType) -> None:
    try:
        module.load_cublas(*_cublas_paths())
    except ImportError as error:
        raise ImportError(f"{error}. Install it: pip install nvidia-cublas") from error


def _module() -> ModuleType | str:
    return "DDOQ_DISABLE_CUDA is set" if os.environ.get("DDOQ_DISABLE_CUDA") else backend.cuda_module()


def _problem(module: ModuleType) -> str | None:
    """Why the runtime has no device."""
    problem, driver, runtime, devices, archs = module.look()
    if driver == 0:
        return "this machine has no NVIDIA driver"
    if driver < runtime // 1000 * 1000:  # within a major version any driver will do
        return (
            f"the NVIDIA driver is for CUDA {version_text(driver)} and this build for {version_text(runtime)}: "
            "update the driver, or build ddoq with an older CUDA"
        )
    if not devices:
        masked = os.environ.get("CUDA_VISIBLE_DEVICES")
        hint = "" if masked is None else f" (CUDA_VISIBLE_DEVICES is {masked!r})"
        return f"the NVIDIA driver shows no device{hint}: {problem or 'there is none'}"
    problems = [no_code_for(device, archs) for device in devices]
    return problems[0] if all(problems) else None


def no_code_for(device: tuple[str, int, int, int], archs: str) -> str | None:
    """Why a device cannot run a build for these compute capabilities, which has the last one's PTX too."""
    name, major, minor, _ = device
    numbers = [int(arch.rstrip("af")) for arch in archs.split(",")]
    if 10 * major + minor >= numbers[-1] or any(n // 10 == major and n % 10 <= minor for n in numbers):
        return None
    return f"{name} is sm_{major}{minor} and ddoq built for sm_{archs}: build it with DDOQ_CUDA_ARCHS={major}{minor}"


def version_text(number: int) -> str:
    """A version as CUDA counts it, such as 12040, as people write it: 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _cublas_paths() -> list[str]:
    """Where NVIDIA's wheels have put it, as cuda-pathfinder tells if it is installed, and where they do."""
    lib_folders = [str(Path(entry, "nvidia", folder, "lib")) for entry in sys.path for folder in ("cu13", "cublas")]
    libraries = [
        str(path)
        for lib_folder in lib_folders
        for path in sorted(Path(lib_folder).glob("libcublas.so.1[23]"), reverse=True)
    ]
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return [str(load_nvidia_dynamic_lib("cublas").abs_path), *libraries][:32]
    except Exception:  # not installed, or it has not found it, for which each version has its own exception
        return libraries[:32]
