"""The CUDA part where there is no GPU: build, import, why not in words, and the table of cuBLAS's symbols."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from setuptools import Distribution

import ddoq
import ddoq.cuda
import ddoq.machine.gpu
from ddoq.machine import backend
from ddoq.machine.info import describe

ROOT = Path(__file__).resolve().parents[2]
BUILT = backend.cuda_module()
needs_build = pytest.mark.skipif(isinstance(BUILT, str), reason=str(BUILT))


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def machine(
    monkeypatch: pytest.MonkeyPatch, problem: str | None, driver: int, *devices: tuple[str, int, int, int]
) -> None:
    """Pretend that the CUDA part, built for CUDA 13.0, finds this."""
    monkeypatch.delenv("DDOQ_DISABLE_CUDA", raising=False)
    module = SimpleNamespace(look=lambda: (problem, driver, 13000, devices, "80,89"))
    monkeypatch.setattr(backend, "cuda_module", lambda: module)
    monkeypatch.setattr(ddoq.machine.gpu, "ModuleType", SimpleNamespace)


def test_why_not_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "insufficient", 0)
    assert ddoq.cuda.why_not() == "this machine has no NVIDIA driver"
    machine(monkeypatch, "insufficient", 12040)
    assert "the NVIDIA driver is for CUDA 12.4 and this build for 13.0: update" in str(ddoq.cuda.why_not())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine(monkeypatch, "no CUDA-capable device is detected", 13000)
    assert "no device (CUDA_VISIBLE_DEVICES is ''): no CUDA-capable" in str(ddoq.cuda.why_not())
    assert not ddoq.cuda.is_available()
    assert describe().startswith("no: ")
    with pytest.raises(RuntimeError, match="CUDA cannot be used: the NVIDIA driver shows no device"):
        ddoq.machine.gpu.usable()


def test_a_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, None, 13010, ("Some GPU", 9, 0, 80 << 30))
    assert ddoq.cuda.why_not() is None
    assert ddoq.cuda.is_available()
    assert describe() == "Some GPU (sm_90, 80 GiB); CUDA 13.0, driver for 13.1"


def test_a_gpu_that_the_build_is_not_for(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = ("Old", 7, 5, 1 << 30), ("New", 8, 6, 1 << 30)
    machine(monkeypatch, None, 13000, old)
    assert ddoq.cuda.why_not() == "Old is sm_75 and ddoq built for sm_80,89: build it with DDOQ_CUDA_ARCHS=75"
    machine(monkeypatch, None, 13000, old, new)
    assert ddoq.cuda.is_available()
    with pytest.raises(RuntimeError, match="Old is sm_75"):
        ddoq.quantize([[0.0], [1.0]], 1, device="cuda:0")
    for capability, runs in (((8, 0), True), ((8, 7), True), ((8, 9), True), ((9, 0), True), ((12, 1), True)):
        assert (ddoq.machine.gpu.no_code_for(("", *capability, 0), "80,89") is None) == runs
    assert ddoq.machine.gpu.no_code_for(("", 8, 0, 0), "86,90") is not None


def test_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, None, 13010, ("Some GPU", 9, 0, 80 << 30))
    monkeypatch.setenv("DDOQ_DISABLE_CUDA", "1")
    assert ddoq.info()["cuda"] == "no: DDOQ_DISABLE_CUDA is set"


def test_a_build_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDOQ_DISABLE_CUDA", raising=False)
    monkeypatch.setitem(sys.modules, "ddoq._cuda", None)
    monkeypatch.delattr(ddoq, "_cuda", raising=False)
    backend.cuda_module.cache_clear()
    try:
        assert "built without CUDA: install it again where nvcc is found" in str(ddoq.cuda.why_not())
    finally:
        backend.cuda_module.cache_clear()


@needs_build
def test_import_is_silent_and_asks_no_driver() -> None:
    done = python("import ddoq, ddoq.cuda, sys; assert 'ddoq._cuda' not in sys.modules; from ddoq import _cuda")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_build
def test_what_the_machine_has() -> None:
    assert isinstance(BUILT, ModuleType)
    problem, driver, runtime, devices, archs = BUILT.look()
    assert archs.replace(",", "").isdigit()
    assert runtime >= 12000
    assert driver >= 0
    assert (problem is None) == (len(devices) > 0)


def fake_library(folder: Path, *functions: str) -> str:
    """A shared library with functions of these names."""
    source, path = folder / "fake.c", folder / "libfake.so"
    source.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in functions))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, source], check=True)
    return str(path)


SYMBOLS = (
    "cublasCreate_v2",
    "cublasDestroy_v2",
    "cublasGetVersion_v2",
    "cublasSetStream_v2",
    "cublasSetWorkspace_v2",
    "cublasGemmEx",
    "cublasGetStatusString",
)
LOAD = "import sys; from ddoq import _cuda; _cuda.load_cublas(*sys.argv[1:])"


def load(*paths: str) -> str:
    """The last line of stderr of a process of its own: what is loaded stays."""
    done = subprocess.run([sys.executable, "-c", LOAD, *paths], capture_output=True, text=True, check=False)
    return (done.stderr.splitlines() or [""])[-1]


@needs_build
def test_cublas_is_what_has_all_symbols(tmp_path: Path) -> None:
    missing = load("/no/such/libcublas.so.13")
    assert (
        missing.startswith("ImportError: cuBLAS cannot be loaded: /no/such/libcublas.so.13: cannot open") or not missing
    )
    assert load(fake_library(tmp_path, *SYMBOLS)) == ""


@needs_build
@pytest.mark.skipif(load() == "" if not isinstance(BUILT, str) else False, reason="this machine has a cuBLAS")
def test_a_library_that_lacks_a_symbol_is_named(tmp_path: Path) -> None:
    path = fake_library(tmp_path, *SYMBOLS[:5])
    assert f"{path} has no cublasGemmEx; libcublas.so.13: cannot open shared object file" in load(path)
    (tmp_path / "other").mkdir()
    assert load(path, fake_library(tmp_path / "other", *SYMBOLS)) == ""


@needs_build
def test_bad_arguments_of_the_loader() -> None:
    module: Any = BUILT
    with pytest.raises(TypeError, match="a path must be a str"):
        module.load_cublas(3)
    with pytest.raises(TypeError, match="at most 32 paths"):
        module.load_cublas(*["x"] * 33)


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the sources")
def test_a_build_that_must_have_cuda_says_that_there_is_no_nvcc() -> None:
    environment = {"DDOQ_BUILD_CUDA": "1", "CUDACXX": "", "CUDA_HOME": "", "CUDA_PATH": "", "PATH": "/nowhere"}
    command = [sys.executable, "setup.py", "--name"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DDOQ_BUILD_CUDA=1, but there is no nvcc" in done.stderr


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the sources")
def test_a_source_is_compiled_again_only_where_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    shutil.copy(ROOT / "setup.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDACXX", "echo")  # whose version is its argument
    monkeypatch.setenv("DDOQ_CUDA_ARCHS", "90")
    build = runpy.run_path("setup.py")["BuildExt"](Distribution())
    commands: list[list[str]] = []

    def compile_one(command: list[str]) -> None:
        commands.append(command)
        Path(command[-1]).write_text("object")

    monkeypatch.setattr(build, "spawn", compile_one)
    source, header = Path("csrc/cuda/fit.cu"), Path("csrc/cuda/block.cuh")

    def times_compiled() -> int:
        before = len(commands)
        build.compile_cuda(source, tmp_path / "out" / "fit.o")
        assert (tmp_path / "out" / "fit.o").read_text() == "object"
        return len(commands) - before

    assert times_compiled() == 1
    assert "-gencode=arch=compute_90,code=sm_90" in commands[0]
    assert "-gencode=arch=compute_90,code=compute_90" in commands[0]
    assert times_compiled() == 0
    header.write_text(header.read_text() + "\n")
    assert times_compiled() == 1
    monkeypatch.setenv("DDOQ_CUDA_ARCHS", "80, 90")
    assert times_compiled() == 1
    monkeypatch.setenv("DDOQ_CUDA_ARCHS", "90")
    assert times_compiled() == 0


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the sources")
def test_a_compiler_that_fails_says_how_to_do_without(tmp_path: Path) -> None:
    compiler = tmp_path / "nvcc"
    compiler.write_text("#!/bin/sh\necho '#$ INCLUDES=\n#$ LIBRARIES=' >&2\ncase $1 in --*) exit 0;; esac\nexit 1\n")
    compiler.chmod(0o755)
    environment = {"DDOQ_BUILD_CUDA": "1", "CUDACXX": str(compiler), "DDOQ_CUDA_ARCHS": "90"}
    build = ["build_ext", "--build-temp", str(tmp_path / "temp"), "--build-lib", str(tmp_path / "lib")]
    script = "import setuptools, runpy, sys; setup = runpy.run_path('setup.py'); sys.argv[0] = 'setup.py'\n"
    script += "modules = setup['extensions']()[1:]; modules[0].sources = ['csrc/cuda/fit.cu']\n"
    script += "setuptools.setup(ext_modules=modules, cmdclass={'build_ext': setup['BuildExt']})"
    done = subprocess.run(
        [sys.executable, "-c", script, *build],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "DDOQ_BUILD_CUDA=0 builds ddoq without its CUDA part" in done.stderr


@needs_build
@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_no_cuda_library_is_needed_to_import() -> None:
    assert isinstance(BUILT, ModuleType)
    assert BUILT.__file__ is not None
    headers = subprocess.run(["objdump", "-p", BUILT.__file__], check=True, capture_output=True, text=True).stdout
    needed = [line.split()[1] for line in headers.splitlines() if line.split()[:1] == ["NEEDED"]]
    assert "libc.so.6" in needed
    assert not [name for name in needed if name.startswith(("libcuda", "libcublas", "libnv"))]
