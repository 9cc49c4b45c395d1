"""Make torchvision importable beside a CPU build of torch.

The package index carries torchvision's CUDA build; beside a CPU torch its import dies because its operators are not
registered. timm imports torchvision unconditionally and diffusers does in places, though neither needs those operators
here. Defining the two that the import looks for is enough. Called only by the modules that are about to import timm or
diffusers.
"""

from __future__ import annotations

import importlib
import sys

import torch

_library: torch.library.Library | None = None  # the definitions live as long as this reference


def ensure_importable() -> None:
    """Define torchvision's missing operators if, and only if, torch is a CPU build and torchvision does not import."""
    global _library
    if _library is not None or "torchvision" in sys.modules or torch.version.cuda is not None:
        return
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _library = library
