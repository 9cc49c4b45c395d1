"""ddoq distils image data sets by optimal quantisation.

`import ddoq` loads NumPy alone; every public name is loaded at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ddoq._version import __version__

if TYPE_CHECKING:
    from ddoq import cuda as cuda
    from ddoq.data.distilled import DistilledDataset as DistilledDataset
    from ddoq.data.distilled import load as load
    from ddoq.data.image_data import open_data as open_data
    from ddoq.evaluation.evaluate import evaluate as evaluate
    from ddoq.machine.info import info as info
    from ddoq.methods.distill import distill as distill
    from ddoq.quantization.estimator import OptimalQuantizer as OptimalQuantizer
    from ddoq.quantization.online import OnlineQuantizer as OnlineQuantizer
    from ddoq.quantization.quantize import quantize as quantize
    from ddoq.quantization.quantize import quantize_classes as quantize_classes
    from ddoq.quantization.rate_distortion import RateDistortion as RateDistortion
    from ddoq.quantization.rate_distortion import rate_distortion as rate_distortion
    from ddoq.quantization.result import ClassQuantization as ClassQuantization
    from ddoq.quantization.result import Quantization as Quantization
    from ddoq.quantization.transport import w2 as w2
    from ddoq.reporting.report import report as report
    from ddoq.stages.fit import fit as fit
    from ddoq.stages.weigh import weigh as weigh
    from ddoq.storage.files import RunError as RunError
    from ddoq.training.label import label as label
    from ddoq.training.loss import WeightedLoss as WeightedLoss
    from ddoq.training.train import train as train
    from ddoq.training.train_teacher import train_teacher as train_teacher

_MODULES = {
    "ClassQuantization": "quantization.result",
    "DistilledDataset": "data.distilled",
    "OnlineQuantizer": "quantization.online",
    "OptimalQuantizer": "quantization.estimator",
    "Quantization": "quantization.result",
    "RateDistortion": "quantization.rate_distortion",
    "RunError": "storage.files",
    "WeightedLoss": "training.loss",
    "distill": "methods.distill",
    "evaluate": "evaluation.evaluate",
    "fit": "stages.fit",
    "info": "machine.info",
    "label": "training.label",
    "load": "data.distilled",
    "open_data": "data.image_data",
    "quantize": "quantization.quantize",
    "quantize_classes": "quantization.quantize",
    "rate_distortion": "quantization.rate_distortion",
    "report": "reporting.report",
    "train": "training.train",
    "train_teacher": "training.train_teacher",
    "w2": "quantization.transport",
    "weigh": "stages.weigh",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    if name == "cuda":  # a module whose functions have names of their own, such as ddoq.cuda.why_not
        return importlib.import_module("ddoq.cuda")
    if name not in _MODULES:
        raise AttributeError(f"module 'ddoq' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"ddoq.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
