"""Takes samples that lie on a GPU, and finds the GPU that a quantisation is to run on."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq.machine import gpu as gpus
from ddoq.quantization.samples import as_samples

KDL_CUDA = 2  # DLDeviceType
LEGACY_STREAM = 1  # DLPack's name of the default stream


@dataclass(frozen=True)
class Gpu:
    """A GPU by its number, and the stream by which the samples on it are ordered."""

    number: int
    stream: int = 0


class DeviceSamples:
    """Samples (n, d) on a GPU; `dtype` is NumPy's, with uint16 for bfloat16 as the core has it."""

    def __init__(self, X: Any, gpu: Gpu) -> None:
        self.array = X
        self.shape = tuple(int(size) for size in X.shape)
        name = str(X.dtype).removeprefix("torch.")
        if name not in ("float16", "bfloat16", "float32"):
            raise TypeError(f"on a GPU X must be float16, bfloat16 or float32, not {name}: convert it")
        self.dtype = np.dtype("uint16" if name == "bfloat16" else name)
        if len(self.shape) != 2:
            raise ValueError(f"X must have the shape (samples, features), but its shape is {self.shape}: reshape it")
        if 0 in self.shape:
            raise ValueError(f"X is empty: its shape is {self.shape}")
        self.gpu = gpu

    def __len__(self) -> int:
        """Give the number of samples."""
        return self.shape[0]

    def capsule(self) -> Any:
        """The samples as a DLPack capsule, in the order of the GPU's stream."""
        return dlpack_capsule(self.array, self.gpu)

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """Give some rows, copied to the host, as `as_samples` does."""
        if is_torch_tensor(self.array):
            torch = sys.modules["torch"]
            return as_samples(self.array[torch.as_tensor(index, device=self.array.device)].cpu(), halves=True)
        rows = self.array[index]
        return as_samples(rows.get() if hasattr(rows, "get") else np.asarray(rows), halves=True)


def samples_and_gpu(X: ArrayLike, device: str) -> tuple[NDArray[Any] | DeviceSamples, Gpu | None]:
    """The samples, and the GPU that they are to be quantised on, or None for the CPU.

    Raises
    ------
    ValueError
        A device by no such name or number; samples on another device than the one asked for.
    RuntimeError
        A GPU is asked for by name, and there is none: with the reason.
    """
    name = re.fullmatch(r"auto|cpu|cuda(?::([0-9]+))?", str(device), re.ASCII)
    if name is None:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or a GPU by number such as 'cuda:1', got {device!r}")
    number = _gpu_number_of(X)
    if number is None:
        if name[0] in ("auto", "cpu"):
            return as_samples(X, halves=True), None
        gpu, samples = Gpu(int(name[1] or 0)), as_samples(X, halves=True)
        _check_gpu(gpu)
        if samples.dtype == np.float64:
            remedy = "use device='cpu', or convert it"
            raise TypeError(f"on a GPU X must be float16, bfloat16 or float32, not float64: {remedy}")
        return samples, gpu
    if name[0] == "cpu":
        raise ValueError("X is on a GPU: use device='auto', or give X.cpu()")
    if name[1] is not None and int(name[1]) != number:
        raise ValueError(f"X is on GPU {number}, not on {device!r}: leave the number out")
    gpu = Gpu(number, _stream_of(X))
    _check_gpu(gpu)
    return DeviceSamples(X, gpu), gpu


def _gpu_number_of(X: Any) -> int | None:
    """Number of the GPU that an array is on, or None."""
    if not hasattr(X, "__dlpack_device__"):
        return None
    kind, number = X.__dlpack_device__()
    return int(number) if int(kind) == KDL_CUDA else None


def is_torch_tensor(X: Any) -> bool:
    """Whether X is a tensor of torch, which may not be installed."""
    torch = sys.modules.get("torch")  # no tensor without it, and never imported for this
    return torch is not None and isinstance(X, torch.Tensor)


def _stream_of(X: Any) -> int:
    """The stream that torch works on now; the default one for all other libraries, which DLPack makes wait."""
    return int(sys.modules["torch"].cuda.current_stream(X.device).cuda_stream) if is_torch_tensor(X) else 0


def _check_gpu(gpu: Gpu) -> None:
    """Refuse a GPU that is not there, or that this build has no code for."""
    *_, devices, archs = gpus.usable().look()
    if gpu.number >= len(devices):
        raise ValueError(f"device 'cuda:{gpu.number}' is not there: there are {len(devices)} GPUs")
    problem = gpus.no_code_for(devices[gpu.number], archs)
    if problem is not None:
        raise RuntimeError(problem)


def dlpack_capsule(array: Any, gpu: Gpu) -> Any:
    """An array on a GPU as a DLPack capsule, in the order of the GPU's stream."""
    if is_torch_tensor(array):
        array = array.detach().contiguous()
        with sys.modules["torch"].cuda.device(array.device):  # torch exports tensors of the current device alone
            return _exported(array, gpu)
    return _exported(array, gpu)


def _exported(array: Any, gpu: Gpu) -> Any:
    stream = gpu.stream or LEGACY_STREAM
    try:
        return array.__dlpack__(stream=stream, max_version=(1, 1))
    except TypeError:  # of before version 1
        return array.__dlpack__(stream=stream)
