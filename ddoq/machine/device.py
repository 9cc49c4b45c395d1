"""Finds the torch device that a name means, and makes work on it repeatable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

Precision = Literal["auto", "float32", "bfloat16", "float16"]  # of a model that is used
TrainingPrecision = Literal["float32", "bfloat16"]  # of a model that is trained: its products, never its weights


def torch_device(device: str) -> torch.device:
    """The torch device of a name: "auto" (a CUDA GPU if there is one), "cpu", "cuda", or "cuda:1" for the second GPU.

    Raises
    ------
    ValueError
        Another name; a GPU that torch does not see.

    Examples
    --------
    >>> torch_device("cpu")
    device(type='cpu')
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if gpus else "cpu")
    name = re.fullmatch(r"cpu|cuda(?::([0-9]+))?", str(device), re.ASCII)
    if name is None:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or a GPU by number such as 'cuda:1', got {device!r}")
    if name[0] != "cpu" and int(name[1] or 0) >= gpus:
        seen = f"torch sees {gpus} CUDA GPUs" if gpus else "torch sees no CUDA GPU"
        raise ValueError(f"device {device!r} is not there, {seen}: use 'auto' or 'cpu', or check torch and its driver")
    return torch.device(name[0])


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Have a GPU add up in one order, so that a training repeated or resumed ends with the same bytes; a CPU does
    anyway.
    """
    # The fused kernels of attention add up the gradients in no fixed order. Without them the scores take memory, which
    # the models here can spare: 49 tokens a window in Swin, 64 to 256 an image in the others; `accumulate` makes do
    # with less.
    attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cuda" else nullcontext()
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True), attention:
        yield
