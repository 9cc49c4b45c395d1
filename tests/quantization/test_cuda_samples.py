"""Samples that lie on a GPU: they stay there, are checked, and give points beside them."""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from gpus import emulated, emulator, gpu
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from test_cuda import blobs, on_emulator

import ddoq
from ddoq.quantization import device_samples, gpu as _gpu

__all__ = ["emulated", "emulator", "gpu"]


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class OnTheDevice:
    """An array in the emulator's device memory, as another library than torch would have it."""

    def __init__(self, array: NDArray[Any], device: int = 0, **changes: Any) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        shape, strides = ((ctypes.c_int64 * array.ndim)(*sizes) for sizes in (array.shape, array.strides))
        for i in range(array.ndim):
            strides[i] //= array.itemsize
        self.held = shape, strides
        fields = {"data": array.ctypes.data, "device_type": 2, "device_id": device, "ndim": array.ndim, "code": 2}
        fields |= {"bits": 8 * array.itemsize, "lanes": 1, "shape": shape, "strides": strides} | changes
        self.tensor = Tensor(**fields)
        self.streams: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.device_type, self.tensor.device_id

    def __dlpack__(self, stream: int) -> object:  # of before version 1: without max_version
        self.streams.append(stream)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self.tensor), b"dltensor", None)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return self.array[index]


def as_device_array(X: NDArray[Any], kind: str) -> Any:
    if kind == "emulated":
        return OnTheDevice(X)
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return torch.as_tensor(X).cuda()


def to_host(array: Any) -> NDArray[Any]:
    return array if isinstance(array, np.ndarray) else np.asarray(array.cpu())


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("ordered", [False, True])
def test_samples_on_the_device_stay_there(gpu: str, dtype: str, ordered: bool) -> None:
    X, y = blobs(dtype=dtype)
    if ordered:  # classes that lie side by side are not copied
        order = np.argsort(y, kind="stable")
        X, y = np.ascontiguousarray(X[order]), y[order]
    w = np.ones(len(X))
    w[::9] = 0
    options: dict[str, Any] = {"random_state": 0, "sample_weight": w}
    expected = ddoq.quantize_classes(X, y, 4, device="cuda", **options)
    samples = as_device_array(X, gpu)
    for device in ("auto", "cuda", "cuda:0"):
        result = ddoq.quantize_classes(samples, y, 4, device=device, **options)
        assert_array_equal(result.labels, expected.labels)
        assert_array_equal(result.distortion, expected.distortion)
        assert_array_equal(to_host(result.points), expected.points)
    if isinstance(samples, OnTheDevice):
        assert set(samples.streams) == {1}


def test_bad_samples_on_the_device_are_named(gpu: str) -> None:
    X, y = blobs()
    X[17, 5] = np.nan
    with pytest.raises(ValueError, match=rf"X\[17, 5\] of class {y[17]} is nan: every value must be finite"):
        ddoq.quantize_classes(as_device_array(X, gpu), y, 3, device="auto")
    X[17, 5] = 1e30
    with pytest.raises(ValueError, match="whose squared distances overflow float32"):
        ddoq.quantize_classes(as_device_array(X, gpu), y, 3, device="auto")
    same = as_device_array(np.ones((20, 3), dtype=np.float32), gpu)
    with pytest.raises(ValueError, match="k = 2 is above the 1 distinct samples"):
        ddoq.quantize(same, 2, device="auto")


@on_emulator
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_points_of_tensors_are_a_tensor_beside_them(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    exported = []

    def capsule(array: Any, gpu: device_samples.Gpu) -> object:  # torch's memory is the emulator's
        assert gpu.stream == 7
        bits = array.view(torch.uint16) if array.dtype == torch.bfloat16 else array
        exported.append(OnTheDevice(bits.numpy(), code=4 if bits is not array else 2))
        return exported[-1].__dlpack__(7)

    X, y = blobs((60, 5, 40), d=1)
    X[y == 1] = [[0], [1], [2], [3], [30000]]  # on the CPU in the end: products do not tell them apart
    w = np.ones(len(X))
    w[np.flatnonzero(y == 0)[::5]] = 0
    samples = torch.as_tensor(X).to(getattr(torch, dtype))
    options: dict[str, Any] = {"random_state": 0, "sample_weight": w, "refine": "hartigan"}
    expected = ddoq.quantize_classes(samples, y, 5, device="cuda", **options)
    monkeypatch.setattr(device_samples, "_gpu_number_of", lambda X: 0 if isinstance(X, torch.Tensor) else None)
    monkeypatch.setattr(device_samples, "_stream_of", lambda X: 7)
    monkeypatch.setattr(device_samples, "dlpack_capsule", capsule)
    monkeypatch.setattr(_gpu, "dlpack_capsule", capsule)
    result = ddoq.quantize_classes(samples, y, 5, device="auto", **options)
    assert isinstance(result.points, torch.Tensor)
    assert_array_equal(result.points.numpy(), expected.points)
    assert_array_equal(result.labels, expected.labels)
    assert_array_equal(result[1].points.numpy(), expected[1].points)
    assert len(exported) == 2


@on_emulator
def test_another_device_gives_the_same_and_the_thread_keeps_its_own(emulated: ModuleType) -> None:
    X, y = blobs()
    current = ctypes.c_int(-1)
    first, second = (ddoq.quantize_classes(X, y, 4, random_state=0, device=f"cuda:{i}") for i in range(2))
    assert_array_equal(first.points, second.points)
    ctypes.CDLL(emulated.__file__).cudaGetDevice(ctypes.byref(current))
    assert current.value == 0


@on_emulator
def test_samples_on_the_device_that_cannot_be_taken() -> None:
    X = np.ones((6, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="X is on a GPU: use device='auto'"):
        ddoq.quantize(OnTheDevice(X), 2)
    with pytest.raises(ValueError, match="X is on GPU 1, not on 'cuda:0'"):
        ddoq.quantize(OnTheDevice(X, 1), 2, device="cuda:0")
    with pytest.raises(TypeError, match="float16, bfloat16 or float32, not float64"):
        ddoq.quantize(OnTheDevice(X.astype(np.float64)), 2, device="auto")
    with pytest.raises(ValueError, match="must have the shape"):
        ddoq.quantize(OnTheDevice(X[0]), 2, device="auto")
    with pytest.raises(ValueError, match="X is empty"):
        ddoq.quantize(OnTheDevice(X[:0]), 2, device="auto")
    with pytest.raises(ValueError, match="X must be C-contiguous"):
        ddoq.quantize(OnTheDevice(X[:, :2]), 2, device="auto")
    with pytest.raises(TypeError, match="X must have dtype float32, float16 or bfloat16"):
        ddoq.quantize(OnTheDevice(X, lanes=2), 2, device="auto")
    with pytest.raises(ValueError, match="a budget needs the samples in host memory"):
        ddoq.quantize_classes(OnTheDevice(X), np.arange(6) % 2, budget=3, device="auto")
