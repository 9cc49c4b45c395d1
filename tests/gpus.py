"""What the tests of the CUDA part share: a GPU, or the emulator that runs the same kernels on the CPU."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from emulator.build import ROOT, build
from numpy.typing import NDArray

from ddoq.machine import backend, gpu as cuda
from ddoq.quantization.forms import GRAM


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """ddoq._cuda built for the CPU, with an emulated runtime and cuBLAS; skips where CUDA's headers are not."""
    built = backend.cuda_module()
    if isinstance(built, str):
        pytest.skip(built)
    if not (ROOT / "setup.py").exists() or runpy.run_path(str(ROOT / "setup.py"))["find_nvcc"]() is None:
        pytest.skip("the emulator needs the sources, and CUDA's headers beside nvcc")
    folder = tmp_path_factory.mktemp("emulator")
    spec = importlib.util.spec_from_file_location("_cuda", build(folder))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.folder = folder  # type: ignore[attr-defined]
    return module


@pytest.fixture
def emulated(emulator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The emulator in the place of the CUDA part."""
    monkeypatch.delenv("DDOQ_DISABLE_CUDA", raising=False)
    monkeypatch.setattr(backend, "cuda_module", lambda: emulator)
    monkeypatch.setattr(sys, "path", [str(emulator.folder), *sys.path])
    cuda.load_cublas()
    return emulator


@pytest.fixture(params=["device", "emulated"])
def gpu(request: pytest.FixtureRequest) -> str:
    """Every test with it runs on this machine's GPU, if it has one, and on the emulator."""
    if request.param == "emulated":
        request.getfixturevalue("emulated")
    elif cuda.why_not() is not None:
        pytest.skip(str(cuda.why_not()))
    return str(request.param)


def n_uniforms(k: int) -> int:
    return 1 + (k - 1) * (2 + int(np.log(k)))


class Job:
    """Arguments of _cuda.quantize_classes by name, outputs allocated; equal class sizes unless offsets are given."""

    def __init__(self, X: NDArray[Any], ks: list[int], **changes: Any) -> None:
        n, C, K = len(X), len(ks), sum(ks)
        n_init = changes.get("n_init", 1)
        self.arguments: dict[str, Any] = {
            "X": X,
            "sample_weight": np.ones(n),
            "rows": np.arange(n),
            "row_offsets": np.arange(C + 1) * n // max(C, 1),
            "point_offsets": np.concatenate([[0], np.cumsum(ks)]).astype(np.int64),
            "n_init": n_init,
            "n_starts": np.full(C, n_init),
            "uniforms": np.random.default_rng(0).random(n_init * sum(n_uniforms(k) for k in ks)),
            "start_rows": None,
            "start_points": None,
            "max_iter": 300,
            "forms": np.full(C, GRAM, dtype=np.uint8),
            "device": 0,
            "stream": 0,
            "memory": 0,
            "points": np.full((K, X.shape[1]), np.nan, dtype=np.float32),
            "weights": np.full(K, np.nan),
            "counts": np.full(K, -1),
            "labels": np.full(n, -1),
            "distortion": np.full(C, np.nan),
            "n_iter": np.full(C, -1),
            "problems": np.full(C, 255, dtype=np.uint8),
            "progress": None,
        }
        assert set(changes) <= set(self.arguments)
        if changes.get("start_rows") is not None or changes.get("start_points") is not None:
            self.arguments["uniforms"] = None
        self.arguments |= changes
        if "rows" in changes:
            self.arguments["labels"] = np.full(len(changes["rows"]), -1)

    def __getattr__(self, name: str) -> Any:
        return self.arguments[name]

    def run(self) -> Job:
        module = backend.cuda_module()
        assert not isinstance(module, str)
        cuda.load_cublas()
        module.quantize_classes(*self.arguments.values())
        return self

    def outputs(self) -> list[NDArray[Any]]:
        names = ("points", "weights", "counts", "labels", "distortion", "n_iter", "problems")
        return [self.arguments[name] for name in names]


def small_integers(n: int, d: int, seed: int = 0) -> NDArray[np.float16]:
    """Samples whose products are exact in float32, however they are summed."""
    rng = np.random.default_rng([n, d, seed])
    corners = rng.integers(-6, 7, size=(7, d))
    return (corners[rng.integers(7, size=n)] + rng.integers(-3, 4, size=(n, d))).astype(np.float16)
