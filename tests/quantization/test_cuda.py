"""The quantiser on a GPU: the same results and errors as on the CPU, on this machine's GPU and on the emulator."""

from __future__ import annotations

import ctypes
import threading
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from gpus import Job, emulated, emulator, gpu
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import ddoq
from ddoq import ClassQuantization
from ddoq.machine import backend
from ddoq.quantization import device_samples
from ddoq.quantization import gpu as _gpu

__all__ = ["emulated", "emulator", "gpu"]

on_gpu = pytest.mark.usefixtures("gpu")
on_emulator = pytest.mark.usefixtures("emulated")


def blobs(sizes: tuple[int, ...] = (90, 33, 140), d: int = 24, dtype: str = "float32") -> tuple[Any, Any]:
    """Samples round some corners, far from ties, of classes in no order; (n, d) and labels (n,)."""
    rng = np.random.default_rng([*sizes, d])
    y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    corners = rng.normal(size=(len(sizes), 6, d)) * 4
    return (corners[y, rng.integers(6, size=len(y))] + rng.normal(size=(len(y), d))).astype(dtype), y


def assert_as_on_the_cpu(found: ClassQuantization, expected: ClassQuantization) -> None:
    assert_array_equal(found.labels, expected.labels)
    assert_array_equal(found.counts, expected.counts)
    assert_array_equal(found.n_iter, expected.n_iter)
    assert_allclose(found.distortion, expected.distortion, rtol=1e-5)
    assert_allclose(found.weights, expected.weights, rtol=1e-12)
    assert_allclose(found.points, expected.points, rtol=0, atol=2e-6 * np.abs(expected.points).max())


@on_gpu
@pytest.mark.parametrize("refine", ["auto", "hartigan", "none"])
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_results_are_those_of_the_cpu(init: str, refine: Any) -> None:
    X, y = blobs()
    w = np.random.default_rng(0).uniform(0.5, 3, size=len(X))
    options: dict[str, Any] = {"init": init, "refine": refine, "sample_weight": w, "random_state": 3}
    found = ddoq.quantize_classes(X, y, [20, 3, 6], device="cuda", **options)
    assert_as_on_the_cpu(found, ddoq.quantize_classes(X, y, [20, 3, 6], **options))


@on_gpu
@pytest.mark.parametrize("k", [1, 7, 60])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_dtype_and_number_of_points(dtype: str, k: int) -> None:
    torch = pytest.importorskip("torch")
    X, _ = blobs((150,), 11)
    samples = torch.as_tensor(X).to(getattr(torch, dtype))
    found = ddoq.quantize(samples, k, refine="hartigan", random_state=1, device="cuda:0")
    expected = ddoq.quantize(samples, k, refine="hartigan", random_state=1)
    assert found.points.dtype == np.float32
    assert_allclose(found.distortion, expected.distortion, rtol=1e-5)
    assert np.mean(found.labels != expected.labels) <= 0.02  # ties of samples rounded to halves
    assert_allclose(found.weights.sum(), 1, rtol=1e-14)


@on_gpu
def test_given_points_and_iterations_that_run_out() -> None:
    X, y = blobs()
    start = np.concatenate([X[y == c][:5] for c in range(3)])
    for max_iter in (1, 2, 300):
        options: dict[str, Any] = {"init": start, "refine": "none", "max_iter": max_iter, "form": "gram"}
        found = ddoq.quantize_classes(X, y, 5, device="cuda", **options)
        assert_as_on_the_cpu(found, ddoq.quantize_classes(X, y, 5, **options))


@on_gpu
def test_samples_of_weight_zero_are_labelled_at_the_end() -> None:
    X, y = blobs()
    w = np.ones(len(X))
    w[::7] = 0
    options: dict[str, Any] = {"sample_weight": w, "random_state": 0}
    assert_as_on_the_cpu(
        ddoq.quantize_classes(X, y, 4, device="cuda", **options), ddoq.quantize_classes(X, y, 4, **options)
    )


@on_gpu
@pytest.mark.parametrize("offset", [30, 1000])
def test_a_far_mean_costs_no_digits(offset: int) -> None:
    X, y = blobs(dtype="float16")
    samples = (np.round(X.astype(np.float32) * 2) / 2 + offset).astype(np.float16)
    options: dict[str, Any] = {"refine": "hartigan", "random_state": 0}
    assert_as_on_the_cpu(
        ddoq.quantize_classes(samples, y, 4, device="cuda", **options), ddoq.quantize_classes(samples, y, 4, **options)
    )


@on_gpu
def test_samples_that_products_cannot_tell_apart_go_to_the_cpu() -> None:
    X = np.array([[0.0], [1.0], [2.0], [3.0], [30000.0]], dtype=np.float32)
    found = ddoq.quantize(X, 5, random_state=0, device="cuda")
    assert sorted(found.points[:, 0].tolist()) == [0, 1, 2, 3, 30000]
    assert_array_equal(found.counts, np.ones(5))
    assert found.distortion == 0
    assert Job(X, [5]).run().problems[0] == 2
    found = ddoq.quantize(X, 5, init=X[::-1], device="cuda")
    assert_array_equal(np.sort(found.points, axis=0), X)


@on_gpu
def test_duplicates_and_numbers_of_points_as_on_the_cpu() -> None:
    X = np.repeat(np.eye(4, dtype=np.float16), 20, axis=0)
    found = ddoq.quantize(X, 4, random_state=0, device="cuda")
    assert_array_equal(found.counts, [20] * 4)
    with pytest.raises(ValueError, match="k = 5 is above the 4 distinct samples"):
        ddoq.quantize(X, 5, random_state=0, device="cuda")


@on_gpu
def test_a_budget_is_shared_as_on_the_cpu() -> None:
    X, y = blobs()
    options: dict[str, Any] = {"budget": 12, "random_state": 0, "refine": "none"}
    found = ddoq.quantize_classes(X, y, device="cuda", **options)
    expected = ddoq.quantize_classes(X, y, form="gram", **options)
    assert_array_equal(found.offsets, expected.offsets)
    assert_as_on_the_cpu(found, expected)


# Waves and memory


def waves_of(X: NDArray[Any], memory: int) -> list[NDArray[Any]]:
    rows = np.random.default_rng(0).permutation(len(X))
    return Job(X, [3, 5, 4, 6], rows=rows, memory=memory, forms=np.ones(4, dtype=np.uint8)).run().outputs()


@on_gpu
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_waves_change_no_bit(dtype: str) -> None:
    X, _ = blobs((240,), 40, dtype)
    whole = waves_of(X, 0)
    for memory in (75_000, 130_000, 200_000):
        for a, b in zip(whole, waves_of(X, memory), strict=True):
            assert_array_equal(a, b)


@on_gpu
def test_a_class_too_large_for_the_device_is_named() -> None:
    with pytest.raises(MemoryError, match=r"the 240 samples of class 0 takes .* GiB of the GPU .*: use fewer samples"):
        Job(blobs((240,), 40)[0], [5], memory=100_000).run()


def used(module: ModuleType) -> int:
    function = ctypes.CDLL(module.__file__).emulator_used
    function.restype = ctypes.c_size_t
    return int(function())


@on_emulator
def test_a_device_that_has_less_than_it_said(emulated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    X, _ = blobs((240,), 40)
    whole = waves_of(X, 0)
    monkeypatch.setenv("EMULATOR_REFUSE", str((128 << 20) + 300_000))
    for a, b in zip(whole, waves_of(X, 0), strict=True):
        assert_array_equal(a, b)
    monkeypatch.setenv("EMULATOR_REFUSE", str(64 << 20))
    with pytest.raises(MemoryError, match="of the GPU"):
        waves_of(X, 0)
    assert used(emulated) == 0


@on_emulator
def test_what_cublas_says_is_told(emulated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMULATOR_NO_PRODUCT", "1")
    with pytest.raises(RuntimeError, match=r"CUDA: emulated failure \(session.c:\d+: session->blas->gemm"):
        Job(blobs((40,))[0], [3]).run()
    assert used(emulated) == 0


# Progress, interruption, threads


@on_gpu
def test_progress_ends_with_the_number_of_classes() -> None:
    X, y = blobs()
    calls: list[int] = []
    ddoq.quantize_classes(X, y, 4, device="cuda", progress=calls.append)
    assert calls == sorted(calls)
    assert calls[-1] == 3


@on_emulator
def test_an_exception_from_progress_stops_the_work(emulated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(done: int) -> None:
        raise LookupError(f"enough after {done}")

    monkeypatch.setenv("EMULATOR_WAIT", "1000")
    with pytest.raises(LookupError, match=r"^enough after 0$"):
        Job(blobs((40,))[0], [3], progress=refuse).run()
    assert used(emulated) == 0


@on_emulator
def test_progress_hears_of_waves_that_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMULATOR_WAIT", "20")
    calls: list[int] = []
    Job(blobs((240,), 40)[0], [3] * 12, memory=40_000, progress=calls.append).run()
    assert calls == sorted(calls)
    assert any(0 < done < 12 for done in calls)
    assert calls[-1] == 12


@on_gpu
def test_several_threads_at_once() -> None:
    X, y = blobs()
    expected = ddoq.quantize_classes(X, y, 4, random_state=0, device="cuda")
    found: list[ClassQuantization] = []

    def work() -> None:
        for _ in range(3):
            found.append(ddoq.quantize_classes(X, y, 4, random_state=0, device="cuda"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    for other in found:
        for name in ("points", "weights", "counts", "labels", "distortion", "n_iter"):
            assert_array_equal(getattr(other, name), getattr(expected, name))


# Samples on the device


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
        self.kept = shape, strides
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
        found = ddoq.quantize_classes(samples, y, 4, device=device, **options)
        assert_array_equal(found.labels, expected.labels)
        assert_array_equal(found.distortion, expected.distortion)
        assert_array_equal(to_host(found.points), expected.points)
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
    kept = []

    def capsule(array: Any, gpu: device_samples.Gpu) -> object:  # torch's memory is the emulator's
        assert gpu.stream == 7
        bits = array.view(torch.uint16) if array.dtype == torch.bfloat16 else array
        kept.append(OnTheDevice(bits.numpy(), code=4 if bits is not array else 2))
        return kept[-1].__dlpack__(7)

    X, y = blobs((60, 5, 40), d=1)
    X[y == 1] = [[0], [1], [2], [3], [30000]]  # on the CPU in the end: products do not tell them apart
    w = np.ones(len(X))
    w[np.flatnonzero(y == 0)[::5]] = 0
    samples = torch.as_tensor(X).to(getattr(torch, dtype))
    options: dict[str, Any] = {"random_state": 0, "sample_weight": w, "refine": "hartigan"}
    expected = ddoq.quantize_classes(samples, y, 5, device="cuda", **options)
    monkeypatch.setattr(device_samples, "_device_of", lambda X: 0 if isinstance(X, torch.Tensor) else None)
    monkeypatch.setattr(device_samples, "_stream_of", lambda X: 7)
    monkeypatch.setattr(device_samples, "dlpack_capsule", capsule)
    monkeypatch.setattr(_gpu, "dlpack_capsule", capsule)
    found = ddoq.quantize_classes(samples, y, 5, device="auto", **options)
    assert isinstance(found.points, torch.Tensor)
    assert_array_equal(found.points.numpy(), expected.points)
    assert_array_equal(found.labels, expected.labels)
    assert_array_equal(found[1].points.numpy(), expected[1].points)
    assert len(kept) == 2


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


# Arguments


@on_gpu
def test_what_a_gpu_does_not_do() -> None:
    X, y = blobs()
    with pytest.raises(TypeError, match="not float64: use device='cpu', or convert it"):
        ddoq.quantize(X.astype(np.float64), 2, device="cuda")
    with pytest.raises(ValueError, match='a GPU has method="lloyd" in Gram form alone'):
        ddoq.quantize(X, 2, method="clvq", device="cuda")
    with pytest.raises(ValueError, match='a GPU has method="lloyd" in Gram form alone'):
        ddoq.quantize(X, 2, form="streaming", device="cuda")
    with pytest.raises(ValueError, match="device 'cuda:77' is not there: there are"):
        ddoq.quantize_classes(X, y, 2, device="cuda:77")


@pytest.mark.parametrize("device", ["gpu", "", "cuda:", "cuda:-1", "mps", None])
def test_unknown_devices(device: Any) -> None:
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu', 'cuda'"):
        ddoq.quantize([[0.0], [1.0]], 1, device=device)


def test_auto_is_the_cpu_for_samples_of_the_host() -> None:
    X, _ = blobs()
    assert_array_equal(
        ddoq.quantize(X, 3, random_state=0, device="auto").points, ddoq.quantize(X, 3, random_state=0).points
    )


@pytest.mark.skipif(ddoq.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error_only_by_name() -> None:
    with pytest.raises(RuntimeError, match="CUDA cannot be used: "):
        ddoq.quantize(np.ones((3, 2), dtype=np.float32), 1, device="cuda")


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"X": np.ones((8, 2))}, TypeError, "X must not have dtype float64"),
    ({"X": object()}, TypeError, "X must be a NumPy array"),
    ({"rows": np.arange(8) + 1}, ValueError, r"rows\[7\] = 8 is not in"),
    ({"row_offsets": np.array([0, 0, 8])}, ValueError, "class 0 is empty"),
    ({"sample_weight": np.zeros(8)}, ValueError, "must be finite and > 0"),
    ({"uniforms": np.ones(4)}, ValueError, "uniforms"),
    ({"start_rows": np.array([0, 1, 0, 9])}, ValueError, "start_rows"),
    ({"points": np.ones((4, 2))}, TypeError, "points must have dtype float32"),
    ({"points": np.ones((4, 3), dtype=np.float32)}, ValueError, "points must have size 2"),
    ({"problems": np.zeros(3, dtype=np.uint8)}, ValueError, "problems must have size 2"),
    ({"max_iter": 0}, ValueError, "max_iter must be from 1"),
    ({"device": -1}, TypeError, "device must be an int of at least 0"),
    ({"device": 1 << 40}, ValueError, "device is out of range"),
    ({"stream": None}, TypeError, "stream must be an int"),
    ({"progress": 3}, TypeError, "progress must be None or a callable"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_arguments_of_the_binding(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    module = backend.cuda_module()
    if isinstance(module, str):
        pytest.skip(module)
    X = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    arguments = Job(X, [2, 2]).arguments
    if "start_rows" in changes:
        arguments["uniforms"] = None
    with pytest.raises(error, match=message):
        module.quantize_classes(*(arguments | changes).values())
    with pytest.raises(TypeError, match="takes 23 positional arguments, 1 given"):
        module.quantize_classes(X)
