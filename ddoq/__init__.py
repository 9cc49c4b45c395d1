"""ddoq distils image data sets by optimal quantisation.

`import ddoq` loads NumPy alone; every public name is loaded at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ddoq._version import __version__

if TYPE_CHECKING:
    from ddoq import cuda as cuda
    from ddoq.data.distilled import DistilledDataset as DistilledDataset, load as load
    from ddoq.data.image_data import open_data as open_data
    from ddoq.evaluation.evaluate import evaluate as evaluate
    from ddoq.machine.info import info as info
    from ddoq.methods.distill import distill as distill
    from ddoq.quantization.estimator import OptimalQuantizer as OptimalQuantizer
    from ddoq.quantization.online import OnlineQuantizer as OnlineQuantizer
    from ddoq.quantization.quantize import quantize as quantize, quantize_classes as quantize_classes
    from ddoq.quantization.rate_distortion import RateDistortion as RateDistortion, rate_distortion as rate_distortion
    from ddoq.quantization.result import ClassQuantization as ClassQuantization, Quantization as Quantization
    from ddoq.quantization.transport import w2 as w2
    from ddoq.reporting.report import report as report
    from ddoq.stages.fit import fit as fit
    from ddoq.stages.weigh import weigh as weigh
    from ddoq.storage.files import RunError as RunError
    from ddoq.training.label import label as label
    from ddoq.training.loss import WeightedLoss as WeightedLoss
    from ddoq.training.train import train as train
    from ddoq.training.train_teacher import train_teacher as train_teacher

_NAMES = {
    "data.distilled": ["DistilledDataset", "load"],
    "data.image_data": ["open_data"],
    "evaluation.evaluate": ["evaluate"],
    "machine.info": ["info"],
    "methods.distill": ["distill"],
    "quantization.estimator": ["OptimalQuantizer"],
    "quantization.online": ["OnlineQuantizer"],
    "quantization.quantize": ["quantize", "quantize_classes"],
    "quantization.rate_distortion": ["RateDistortion", "rate_distortion"],
    "quantization.result": ["ClassQuantization", "Quantization"],
    "quantization.transport": ["w2"],
    "reporting.report": ["report"],
    "stages.fit": ["fit"],
    "stages.weigh": ["weigh"],
    "storage.files": ["RunError"],
    "training.label": ["label"],
    "training.loss": ["WeightedLoss"],
    "training.train": ["train"],
    "training.train_teacher": ["train_teacher"],
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
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
