"""Imports optional libraries, and names the extra that brings one where it is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

EXTRAS = {  # module -> the extra of pyproject.toml that installs it
    "tyro": "cli",
    "torch": "torch",
    "diffusers": "models",
    "accelerate": "models",
    "transformers": "text",
    "timm": "train",
    "torchvision": "train",
    "datasets": "data",
    "ot": "metrics",
    "matplotlib": "report",
    "jinja2": "report",
}
IMPORT_TORCHVISION = ("diffusers", "timm", "transformers")  # these import it, and a CPU build of torch needs help there


def need(module: str, what: str) -> ModuleType:
    """Import an optional library; `what` is the thing that needs it, which begins the error's sentence.

    Raises
    ------
    ModuleNotFoundError
        The library is not installed; the message says which extra brings it.

    Examples
    --------
    >>> need("numpy", "arithmetic").__name__
    'numpy'
    """
    if module.partition(".")[0] in IMPORT_TORCHVISION:
        from ddoq.machine.torchvision import ensure_importable  # which imports torch

        ensure_importable()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name != top or top not in EXTRAS:
            raise
        raise ModuleNotFoundError(f"{what} needs {top}: pip install 'ddoq[{EXTRAS[top]}]'", name=top) from error
