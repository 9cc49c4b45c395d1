"""Dataset distillation as optimal quantisation.

`import ddoq` loads NumPy alone; every public name is loaded at its first use.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from ddoq._version import __version__

if TYPE_CHECKING:
    from ddoq._backend import info
    from ddoq.clvq import OnlineQuantizer
    from ddoq.data import open_data
    from ddoq.distill import distill
    from ddoq.distilled import DistilledDataset, load
    from ddoq.estimators import OptimalQuantizer
    from ddoq.evaluate import evaluate
    from ddoq.fit import fit
    from ddoq.label import label
    from ddoq.loss import WeightedLoss
    from ddoq.quantize import ClassQuantization, Quantization, quantize, quantize_classes
    from ddoq.rate_distortion import RateDistortion, rate_distortion
    from ddoq.report import report
    from ddoq.train import train
    from ddoq.train_teacher import train_teacher
    from ddoq.transport import w2
    from ddoq.weigh import weigh

_HOME = {
    "ClassQuantization": "quantize",
    "DistilledDataset": "distilled",
    "OnlineQuantizer": "clvq",
    "OptimalQuantizer": "estimators",
    "Quantization": "quantize",
    "RateDistortion": "rate_distortion",
    "WeightedLoss": "loss",
    "distill": "distill",
    "evaluate": "evaluate",
    "fit": "fit",
    "info": "_backend",
    "label": "label",
    "load": "distilled",
    "open_data": "data",
    "quantize": "quantize",
    "quantize_classes": "quantize",
    "rate_distortion": "rate_distortion",
    "report": "report",
    "train": "train",
    "train_teacher": "train_teacher",
    "w2": "transport",
    "weigh": "weigh",
}

__all__ = [
    "ClassQuantization",
    "DistilledDataset",
    "OnlineQuantizer",
    "OptimalQuantizer",
    "Quantization",
    "RateDistortion",
    "WeightedLoss",
    "__version__",
    "distill",
    "evaluate",
    "fit",
    "info",
    "label",
    "load",
    "open_data",
    "quantize",
    "quantize_classes",
    "rate_distortion",
    "report",
    "train",
    "train_teacher",
    "w2",
    "weigh",
]


class _Package(ModuleType):
    """Keeps `ddoq.quantize` the function, although importing the submodule of that name would bind the module to it."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and name in _HOME:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name == "cuda":  # a module whose functions have names of their own, such as ddoq.cuda.why_not
        return importlib.import_module("ddoq.cuda")
    if name not in _HOME:
        raise AttributeError(f"module 'ddoq' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"ddoq.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
