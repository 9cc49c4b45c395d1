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

__all__ = ["emulated", "emulator", "gpu"]

on_gpu = pytest.mark.usefixtures("gpu")
on_emulator = pytest.mark.usefixtures("emulated")


def blobs(sizes: tuple[int, ...] = (90, 33, 140), d: int = 24, dtype: str = "float32") -> tuple[Any, Any]:
    """Samples round some corners, far from ties, of classes in no order; (n, d) and labels (n,)."""
    rng = np.random.default_rng([*sizes, d])
    y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    corners = rng.normal(size=(len(sizes), 6, d)) * 4
    return (corners[y, rng.integers(6, size=len(y))] + rng.normal(size=(len(y), d))).astype(dtype), y


def assert_as_on_the_cpu(result: ClassQuantization, expected: ClassQuantization) -> None:
    assert_array_equal(result.labels, expected.labels)
    assert_array_equal(result.counts, expected.counts)
    assert_array_equal(result.n_iter, expected.n_iter)
    assert_allclose(result.distortion, expected.distortion, rtol=1e-5)
    assert_allclose(result.weights, expected.weights, rtol=1e-12)
    assert_allclose(result.points, expected.points, rtol=0, atol=2e-6 * np.abs(expected.points).max())


@on_gpu
@pytest.mark.parametrize("refine", ["auto", "hartigan", "none"])
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_results_are_those_of_the_cpu(init: str, refine: Any) -> None:
    X, y = blobs()
    w = np.random.default_rng(0).uniform(0.5, 3, size=len(X))
    options: dict[str, Any] = {"init": init, "refine": refine, "sample_weight": w, "random_state": 3}
    result = ddoq.quantize_classes(X, y, [20, 3, 6], device="cuda", **options)
    assert_as_on_the_cpu(result, ddoq.quantize_classes(X, y, [20, 3, 6], **options))


@on_gpu
@pytest.mark.parametrize("k", [1, 7, 60])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_dtype_and_number_of_points(dtype: str, k: int) -> None:
    torch = pytest.importorskip("torch")
    X, _ = blobs((150,), 11)
    samples = torch.as_tensor(X).to(getattr(torch, dtype))
    result = ddoq.quantize(samples, k, refine="hartigan", random_state=1, device="cuda:0")
    expected = ddoq.quantize(samples, k, refine="hartigan", random_state=1)
    assert result.points.dtype == np.float32
    assert_allclose(result.distortion, expected.distortion, rtol=1e-5)
    assert np.mean(result.labels != expected.labels) <= 0.02  # ties of samples rounded to halves
    assert_allclose(result.weights.sum(), 1, rtol=1e-14)


@on_gpu
def test_given_points_and_iterations_that_run_out() -> None:
    X, y = blobs()
    start = np.concatenate([X[y == c][:5] for c in range(3)])
    for max_iter in (1, 2, 300):
        options: dict[str, Any] = {"init": start, "refine": "none", "max_iter": max_iter, "form": "gram"}
        result = ddoq.quantize_classes(X, y, 5, device="cuda", **options)
        assert_as_on_the_cpu(result, ddoq.quantize_classes(X, y, 5, **options))


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
    result = ddoq.quantize(X, 5, random_state=0, device="cuda")
    assert sorted(result.points[:, 0].tolist()) == [0, 1, 2, 3, 30000]
    assert_array_equal(result.counts, np.ones(5))
    assert result.distortion == 0
    assert Job(X, [5]).run().problems[0] == 2
    result = ddoq.quantize(X, 5, init=X[::-1], device="cuda")
    assert_array_equal(np.sort(result.points, axis=0), X)


@on_gpu
def test_duplicates_and_numbers_of_points_as_on_the_cpu() -> None:
    X = np.repeat(np.eye(4, dtype=np.float16), 20, axis=0)
    result = ddoq.quantize(X, 4, random_state=0, device="cuda")
    assert_array_equal(result.counts, [20] * 4)
    with pytest.raises(ValueError, match="k = 5 is above the 4 distinct samples"):
        ddoq.quantize(X, 5, random_state=0, device="cuda")


@on_gpu
def test_a_budget_is_shared_as_on_the_cpu() -> None:
    X, y = blobs()
    options: dict[str, Any] = {"budget": 12, "random_state": 0, "refine": "none"}
    result = ddoq.quantize_classes(X, y, device="cuda", **options)
    expected = ddoq.quantize_classes(X, y, form="gram", **options)
    assert_array_equal(result.offsets, expected.offsets)
    assert_as_on_the_cpu(result, expected)


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
    quantizations: list[ClassQuantization] = []

    def work() -> None:
        for _ in range(3):
            quantizations.append(ddoq.quantize_classes(X, y, 4, random_state=0, device="cuda"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(quantizations) == 12
    for other in quantizations:
        for name in ("points", "weights", "counts", "labels", "distortion", "n_iter"):
            assert_array_equal(getattr(other, name), getattr(expected, name))


# Samples on the device


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
