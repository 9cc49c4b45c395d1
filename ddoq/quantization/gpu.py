"""Quantisation on a GPU: where the samples lie, and what the CUDA part needs and leaves.

The arithmetic is that of the C core in Gram form (`csrc/gpu`), from the same random numbers. What the GPU cannot tell
from its products alone - samples too alike for float32, values that are not finite - goes to the CPU's checks and core,
class by class.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq.machine import backend, gpu
from ddoq.quantization.checks import (
    GRAM,
    GRAM_MOVES,
    as_samples,
    check_finite,
    check_number_of_points,
    of_class,
    widened,
)
from ddoq.quantization.one_pass import label_left_out
from ddoq.quantization.starts import Init, starts

if TYPE_CHECKING:
    from ddoq.quantization.quantize import ClassQuantization, Progress

KDL_CUDA = 2  # DLDeviceType
LEGACY_STREAM = 1  # DLPack's name of the default stream
NOT_FINITE = 3  # enum ddoq_cuda_problem


@dataclass(frozen=True)
class Place:
    """A GPU by its number, and the stream by which the samples on it are ordered."""

    device: int
    stream: int = 0


class DeviceSamples:
    """Samples (n, d) on a GPU; `dtype` is NumPy's, with uint16 for bfloat16 as the core has it."""

    def __init__(self, X: Any, place: Place) -> None:
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
        self.place = place

    def __len__(self) -> int:
        """Give the number of samples."""
        return self.shape[0]

    def capsule(self) -> Any:
        """The samples as a DLPack capsule, in the order of the place's stream."""
        return _capsule(self.array, self.place)

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """Give some rows, copied to the host, as `as_samples` does."""
        if _torch_tensor(self.array):
            torch = sys.modules["torch"]
            return as_samples(self.array[torch.as_tensor(index, device=self.array.device)].cpu(), halves=True)
        rows = self.array[index]
        return as_samples(rows.get() if hasattr(rows, "get") else np.asarray(rows), halves=True)


def placed(X: ArrayLike, device: str) -> tuple[NDArray[Any] | DeviceSamples, Place | None]:
    """The samples, and the GPU that they are to be quantised on, or None for the CPU.

    Raises
    ------
    ValueError
        A device by no such name or number; samples on another device than the one asked for.
    RuntimeError
        A GPU is asked for by name, and there is none: with the reason.
    """
    name = re.fullmatch(r"auto|cpu|gpu(?::([0-9]+))?", str(device), re.ASCII)
    if name is None:
        raise ValueError(f"device must be 'auto', 'cpu', 'gpu' or a GPU by number such as 'gpu:1', got {device!r}")
    own = _device_of(X)
    if own is None:
        if name[0] in ("auto", "cpu"):
            return as_samples(X, halves=True), None
        place = _checked(Place(int(name[1] or 0)))
        return _for_gpu(as_samples(X, halves=True)), place
    if name[0] == "cpu":
        raise ValueError("X is on a GPU: use device='auto', or give X.cpu()")
    if name[1] is not None and int(name[1]) != own:
        raise ValueError(f"X is on GPU {own}, not on {device!r}: leave the number out")
    return DeviceSamples(X, _checked(Place(own, _stream_of(X)))), Place(own, _stream_of(X))


def _device_of(X: Any) -> int | None:
    """Number of the GPU that an array is on, or None."""
    if not hasattr(X, "__dlpack_device__"):
        return None
    kind, number = X.__dlpack_device__()
    return int(number) if int(kind) == KDL_CUDA else None


def _torch_tensor(X: Any) -> bool:
    torch = sys.modules.get("torch")  # no tensor without it, and never imported for this
    return torch is not None and isinstance(X, torch.Tensor)


def _stream_of(X: Any) -> int:
    """The stream that torch works on now; the default one for all other libraries, which DLPack makes wait."""
    return int(sys.modules["torch"].cuda.current_stream(X.device).cuda_stream) if _torch_tensor(X) else 0


def _checked(place: Place) -> Place:
    *_, devices, archs = gpu.usable().look()
    if place.device >= len(devices):
        raise ValueError(f"device 'gpu:{place.device}' is not there: there are {len(devices)} GPUs")
    problem = gpu.no_code_for(devices[place.device], archs)
    if problem is not None:
        raise RuntimeError(problem)
    return place


def _for_gpu(X: NDArray[Any]) -> NDArray[Any]:
    if X.dtype == np.float64:
        raise TypeError("on a GPU X must be float16, bfloat16 or float32, not float64: use device='cpu', or convert it")
    return X


def _capsule(array: Any, place: Place) -> Any:
    if _torch_tensor(array):
        array = array.detach().contiguous()
        with sys.modules["torch"].cuda.device(array.device):  # torch exports tensors of the current device alone
            return _exported(array, place)
    return _exported(array, place)


def _exported(array: Any, place: Place) -> Any:
    stream = place.stream or LEGACY_STREAM
    try:
        return array.__dlpack__(stream=stream, max_version=(1, 1))
    except TypeError:  # of before version 1
        return array.__dlpack__(stream=stream)


def quantize_on_gpu(
    place: Place,
    X: NDArray[Any] | DeviceSamples,
    result: ClassQuantization,
    forms: NDArray[np.uint8],
    k: NDArray[np.int64],
    seeds: list[np.random.SeedSequence],
    w: NDArray[np.float64],
    rows: NDArray[np.int64],
    row_offsets: NDArray[np.int64],
    *,
    init: Init,
    n_starts: NDArray[np.int64],
    max_iter: int,
    progress: Progress | None,
    n_threads: int,
    label_all: bool,
) -> ClassQuantization:
    """Fill the result of the classes, whose rows of positive weight are `rows`.

    Points of torch's tensors become one. label_all: those of weight zero get labels too.
    """
    module = gpu.usable()
    gpu.load_cublas()
    forms = np.where(forms == GRAM, GRAM, GRAM_MOVES).astype(np.uint8)  # the product is cheap here: no sketch
    n_init = int(n_starts.max())
    start = starts(init, n_init, seeds, w, rows, row_offsets, k, result.points)
    labels, problems = np.empty(len(rows), dtype=np.int64), np.empty(len(k), dtype=np.uint8)
    points: Any = result.points
    if isinstance(X, DeviceSamples) and _torch_tensor(X.array):
        torch = sys.modules["torch"]
        points = torch.empty(result.points.shape, dtype=torch.float32, device=X.array.device)
    on_device = points is not result.points
    module.quantize_classes(
        X.capsule() if isinstance(X, DeviceSamples) else X,
        w,
        rows,
        row_offsets,
        result.offsets,
        n_init,
        n_starts,
        *start,
        max_iter,
        forms,
        place.device,
        place.stream,
        0,
        _capsule(points, place) if on_device else points,
        result.weights,
        result.counts,
        labels,
        result.distortion,
        result.n_iter,
        problems,
        progress,
    )
    result.labels[rows] = labels
    options = {"max_iter": max_iter, "n_threads": n_threads}
    for c in map(int, np.flatnonzero(problems)):
        own, part = rows[row_offsets[c] : row_offsets[c + 1]], slice(result.offsets[c], result.offsets[c + 1])
        if problems[c] == NOT_FINITE:
            _refuse(X[own], own, result, c, n_threads)
        again = init if isinstance(init, str) else np.asarray(init)[part]
        refine = "none" if forms[c] == GRAM else "hartigan"
        start_of = {"init": again, "n_init": int(n_starts[c]), "random_state": [seeds[c]]}
        _on_cpu(X[own], own, result, c, w[own], refine=refine, **start_of, **options)
        if on_device:
            points[part] = sys.modules["torch"].as_tensor(result.points[part])
    if label_all:
        _label_left_out(result, points, X, w, n_threads)
    if not on_device:
        return result
    fields = {name: getattr(result, name) for name in result.__dataclass_fields__}
    return type(result)(**{**fields, "points": points})


def _label_left_out(
    result: ClassQuantization, points: Any, X: NDArray[Any] | DeviceSamples, w: NDArray[np.float64], n_threads: int
) -> None:
    """Label the samples of weight zero, mostly none or few, on the CPU; those on the GPU are not checked yet."""
    for c in map(int, np.unique(result.class_index[w == 0]) if isinstance(X, DeviceSamples) else ()):
        left_out = np.flatnonzero((result.class_index == c) & (w == 0))
        _refuse(X[left_out], left_out, result, c, n_threads)
        if points is not result.points:
            part = slice(result.offsets[c], result.offsets[c + 1])
            result.points[part] = points[part].cpu().numpy()
    label_left_out(result, X, w, n_threads, backend.isa())


def _refuse(samples: NDArray[Any], own: NDArray[np.int64], result: ClassQuantization, c: int, n_threads: int) -> None:
    """ValueError for values that are not finite, or whose products overflow."""
    bad = np.argwhere(~np.isfinite(widened(samples)))
    if len(bad):
        row, column = int(bad[0, 0]), int(bad[0, 1])
        value = widened(samples)[row, column]
        where = of_class(result.classes, c)
        raise ValueError(f"X[{own[row]}, {column}]{where} is {value}: every value must be finite")
    check_finite(samples, np.full(len(samples), c), result.classes, n_threads)


def _on_cpu(
    samples: NDArray[Any],
    own: NDArray[np.int64],
    result: ClassQuantization,
    c: int,
    w: NDArray[np.float64],
    **options: Any,
) -> None:
    """One class by the C core, from the same start, if it has enough distinct samples."""
    from ddoq.quantization.quantize import quantize_classes

    part = slice(result.offsets[c], result.offsets[c + 1])
    k = np.array([part.stop - part.start])
    check_number_of_points(samples, np.arange(len(own)), np.array([0, len(own)]), k, result.classes[c : c + 1])
    samples = widened(samples) if samples.dtype == np.uint16 else samples  # whose bits are torch's alone
    y = np.zeros(len(own), dtype=np.int64)
    one = quantize_classes(samples, y, int(k[0]), sample_weight=w, form="gram", **options)
    for name in ("points", "weights", "counts"):
        getattr(result, name)[part] = getattr(one, name)
    result.labels[own] = one.labels
    result.distortion[c], result.n_iter[c] = one.distortion[0], one.n_iter[0]
