"""Instruction sets: what the build puts into each object, and that those with fused multiply-adds agree to the bit."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import ddoq
from ddoq.machine.backend import core

ROOT = Path(__file__).resolve().parents[2]
TOOLS = [tool for tool in ("cc", "objdump") if shutil.which(tool) is None]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="counts x86-64 instructions")
@pytest.mark.skipif(bool(TOOLS), reason=f"needs {' and '.join(TOOLS)}")
@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the sources")
def test_each_object_holds_the_instructions_it_should(tmp_path: Path) -> None:
    build = ["-q", "build_ext", "--build-temp", str(tmp_path), "--build-lib", str(tmp_path / "lib")]
    environment = os.environ | {"DDOQ_BUILD_CUDA": "0"}
    subprocess.run([sys.executable, "setup.py", *build], cwd=ROOT, env=environment, check=True, capture_output=True)

    def count(name: str, pattern: str, function: str = "") -> int:
        (object_file,) = tmp_path.rglob(f"{name}.o")
        which = f"--disassemble={function}" if function else "-d"
        code = subprocess.run(["objdump", which, object_file], check=True, capture_output=True, text=True).stdout
        return len(re.findall(pattern, code))

    fma = r"vfn?madd\w+"
    assert count("isa_baseline", fma) == count("isa_baseline", "%[yz]mm") == 0  # runs on any x86-64
    assert count("isa_avx2", "%zmm") == 0
    # the product's tiles alone: rows x 3 vectors, float32 and float64
    assert count("isa_avx2", rf"{fma} .*%ymm") >= 2 * 4 * 3
    assert count("isa_avx512", rf"{fma} .*%zmm") >= 2 * 8 * 3
    # no product of a sum is rounded by itself, as a compiler that vectorises the last elements of one may do
    for verb, real, isa in product(("dist2", "tile_in_place", "axpy", "transfer"), ("f32", "f64"), ("avx2", "avx512")):
        function = f"{verb}_{real}"
        assert count(f"isa_{isa}", fma, function) > 0 == count(f"isa_{isa}", r"vmul\w+", function), (isa, function)
    # what fetches ahead of its use is there: a compiler may take it for a function without effect
    assert count("assign", "prefetch", "ddoq_multiply_points") > 0


@pytest.mark.skipif(len(core.isas()) < 3, reason="this machine has one instruction set with FMA")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(7, 3), (100, 33), (333, 600)])
def test_same_bits_with_avx2_and_avx512(shape: tuple[int, int], dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=shape).astype(dtype)
    weight = rng.uniform(0.1, 3, size=len(X))
    results = []
    for isa in ("avx2", "avx512"):
        monkeypatch.setenv("DDOQ_ISA", isa)
        gram = np.empty((len(X), len(X)), dtype=dtype)
        core.gram(X, gram, isa)
        q = ddoq.quantize(X, 5, sample_weight=weight, refine="hartigan", random_state=0)
        results.append((gram, q.points, q.weights, q.labels, np.array(q.distortion)))
    for avx2, avx512 in zip(*results, strict=True):
        assert_array_equal(avx2, avx512)


@pytest.mark.skipif(len(core.isas()) < 3, reason="this machine has one instruction set with FMA")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_of_every_number_of_features(dtype: str) -> None:
    # a compiler may round the products of the last, odd features where another instruction set does not
    rng = np.random.default_rng(0)
    for d in range(1, 70):
        X, points = rng.normal(size=(90, d)).astype(dtype), rng.normal(size=(5, d)).astype(dtype)
        results = []
        for isa in ("avx2", "avx512"):
            labels, dist2 = np.empty(len(X), np.int64), np.empty(len(X))
            core.assign(X, points, labels, dist2, 1, isa)
            results.append(dist2.tobytes() + labels.tobytes())
        assert results[0] == results[1], d
