"""Builds ddoq._cuda for the CPU, with the emulator in place of the CUDA runtime and cuBLAS: build.py FOLDER.

The binding and the host side are compiled as they are, and the kernels as C++, but for their launches, their dynamic
shared memory and their inline assembly, which are rewritten. Needs the headers of CUDA.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def parts(text: str) -> list[str]:
    """Split at the commas that are in no parentheses."""
    found, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [part.strip() for part in found]


def rewritten(source: str) -> str:
    """A CUDA source as C++ for the emulator."""

    def launch(match: re.Match[str]) -> str:
        blocks, threads, shared, _ = parts(match[2])
        call = f"emulator::launch({blocks}, {threads}, {shared}, [=] {{ {match[1]}({match[3]}); }})"
        return f"{{ if (!{call}) return cudaErrorInvalidConfiguration; }}"

    source = re.sub(r"(\w+(?:<\w+>)?)<<<(.+?)>>>\(([^;]*)\);", launch, source)
    shared = r"\1 *\2 = reinterpret_cast<\1 *>(emulator::dynamic_shared);"
    source = re.sub(r"extern __shared__ (\w+) (\w+)\[\];", shared, source)
    for instruction, function in (("ex2", "exp2f"), ("lg2", "log2f")):
        call = f"y = emulator::flushed({function}(emulator::flushed(x)));"
        source = re.sub(rf'asm\("{instruction}\.approx\.ftz[^;]*;".*?\);', call, source)
    few_parts = '#include "cuda/loss.h"\n#undef DDOQ_CUDA_LOSS_PARTS\n#define DDOQ_CUDA_LOSS_PARTS 16'  # for few rows
    source = source.replace('#include "cuda/loss.h"', few_parts)
    return re.sub(r'asm\("cvt\.f32\.f16 [^;]*;".*?\);', "wide = emulator::widen_float16(x.bits);", source)


def build(folder: Path) -> Path:
    """Build into the folder; returns the module's file. cuBLAS is put where NVIDIA's wheels have it."""
    os.chdir(ROOT)  # setup.py looks for its sources here
    setup = runpy.run_path("setup.py")
    headers = setup["cuda_folders"](setup["find_nvcc"]())[0]
    folders = (folder, ROOT / "csrc", HERE, *headers, numpy.get_include(), sysconfig.get_path("include"))
    include = [f"-I{path}" for path in folders]
    macros = ["-DNPY_TARGET_VERSION=NPY_2_0_API_VERSION", "-DNPY_NO_DEPRECATED_API=NPY_2_0_API_VERSION"]
    macros.append('-DDDOQ_CUDA_ARCHS="0"')  # what the emulator says that its devices are
    common = ["-O2", "-g", "-fPIC", "-ffp-contract=off", "-pthread", *os.environ.get("EMULATOR_FLAGS", "").split()]
    common.append("-U_FORTIFY_SOURCE")  # Ubuntu's default, under which no longjmp may go to another fiber's stack
    names = [*sorted((ROOT / "csrc/cuda").glob("*.c")), *sorted((ROOT / "csrc/python").glob("cuda_*.c"))]
    names += [ROOT / name for name in setup["SHARED_BINDING"]]
    (folder / "cuda").mkdir(parents=True, exist_ok=True)
    for header in (ROOT / "csrc/cuda").glob("*.cuh"):  # found before those of csrc
        (folder / "cuda" / header.name).write_text(rewritten(header.read_text()))

    def compile_one(source: Path) -> str:
        target = folder / f"{source.name}.o"
        command = ["gcc", "-std=gnu11", "-fvisibility=hidden", *macros]
        if source.suffix != ".c":
            command = ["g++", "-std=c++17", "-Wno-attributes"]
        if source.suffix == ".cu":
            text = rewritten(source.read_text())
            source = folder / f"{source.name}.cpp"
            source.write_text('#include "emulator.h"\n' + text)
        if source.name == "cublas.c":  # a real one that the process has loaded goes before one of the same name
            text = source.read_text().replace('"libcublas.so', '"libcublas-emulated.so')
            source = folder / "cublas.c"
            source.write_text(text)
        subprocess.run([*command, *common, *include, "-c", source, "-o", target], check=True)
        return str(target)

    names += [*sorted((ROOT / "csrc/cuda").glob("*.cu")), HERE / "fibers.cpp", HERE / "runtime.cpp"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, names))
    place = folder / "nvidia" / "cu13" / "lib"
    place.mkdir(parents=True, exist_ok=True)
    library = ["g++", "-shared", "-Wl,-soname,libcublas-emulated.so.13", compile_one(HERE / "cublas.cpp")]
    subprocess.run([*library, "-o", place / "libcublas.so.13"], check=True)
    module = folder / "_cuda.so"
    subprocess.run(["g++", "-shared", "-pthread", *objects, "-ldl", "-o", module], check=True)
    return module


if __name__ == "__main__":
    print(build(Path(sys.argv[1]).resolve()))
