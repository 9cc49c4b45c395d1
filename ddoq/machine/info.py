"""Tells what this build is and runs on: version, instruction sets, threads, GPUs."""

from __future__ import annotations

from ddoq._version import __version__
from ddoq.machine.backend import core, isa, n_threads
from ddoq.machine.gpu import usable, version_text, why_not


def info() -> dict[str, object]:
    """Tell what this build is and runs on: version, instruction sets, threads, and its GPUs, or why there is none.

    Examples
    --------
    >>> sorted(info())
    ['cuda', 'isa', 'isas', 'threads', 'version']
    """
    return {
        "version": __version__,
        "isa": isa(),
        "isas": core.isas(),
        "threads": n_threads(),
        "cuda": describe(),
    }


def describe() -> str:
    """The GPUs in a line, or why there is none, for `ddoq.info`."""
    problem = why_not()
    if problem is not None:
        return f"no: {problem}"
    _, driver, runtime, devices, _ = usable().look()
    names = [f"{name} (sm_{major}{minor}, {memory / 2**30:.0f} GiB)" for name, major, minor, memory in devices]
    return f"{', '.join(names)}; CUDA {version_text(runtime)}, driver for {version_text(driver)}"
