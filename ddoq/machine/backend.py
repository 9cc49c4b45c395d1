"""Imports the compiled parts, which no other file does, and says which instruction set and how many threads to use."""

from __future__ import annotations

import importlib
import os
from functools import cache
from types import ModuleType

from ddoq.machine.arguments import positive
from ddoq.machine.limits import cpu_quota

try:
    from ddoq import _core as core
except ImportError as error:
    raise ImportError(
        f"{error}. If this is a checkout that is not built, run `pip install -e .` in it, or start Python elsewhere "
        "to get the installed ddoq"
    ) from error

__all__ = ["core", "cuda_module", "isa", "n_threads"]


def isa() -> str:
    """The instruction set the kernels use: the environment's DDOQ_ISA, or else the best this machine runs.

    Raises
    ------
    ValueError
        DDOQ_ISA names an instruction set that this build or machine does not have.

    Examples
    --------
    >>> isa() in core.isas()
    True
    """
    possible = core.isas()
    forced = os.environ.get("DDOQ_ISA")
    if not forced:
        return possible[-1]
    if forced not in possible:
        raise ValueError(f"DDOQ_ISA={forced!r} cannot run here: choose one of {', '.join(possible)}, or unset it")
    return forced


def n_threads(requested: int | None = None) -> int:
    """How many threads to use: the requested number, or else the processors this process may use.

    Without a request that is the number of processors in its affinity mask, at most its cgroup's quota, at most
    OMP_NUM_THREADS (which joblib sets in its workers, so that nested parallelism does not multiply).

    Raises
    ------
    TypeError, ValueError
        `requested` is not an int, or below 1.

    Examples
    --------
    >>> n_threads(3)
    3
    >>> n_threads() >= 1
    True
    """
    if requested is not None:
        return positive("n_threads", requested)
    limits = [len(os.sched_getaffinity(0)), cpu_quota(), _omp_threads()]
    return max(1, min(limit for limit in limits if limit is not None))


@cache
def cuda_module() -> ModuleType | str:
    """The CUDA part, or why it is not there; loaded at its first use alone."""
    try:
        return importlib.import_module("ddoq._cuda")
    except ModuleNotFoundError:
        return (
            "this ddoq is built without CUDA: install it again where nvcc is found (on PATH, or CUDACXX or CUDA_HOME)"
        )
    except ImportError as error:
        return f"the CUDA part of ddoq cannot be loaded: {error}"


def _omp_threads() -> int | None:
    """OMP_NUM_THREADS, or its first level where it is a list; None if unset or not a positive number."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None
