"""Builds the driver of the C core without Python, with the flags of setup.py: build.py PROGRAM, or `build(program)`."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
# What faults.c puts itself in front of.
WRAPPED = ("malloc", "calloc", "aligned_alloc", "free", "pthread_create", "pthread_cond_timedwait", "clock_gettime")


def build(program: Path) -> None:
    """Compile csrc/cpu and the driver beside this file, and link them; CalledProcessError where that fails."""
    os.chdir(ROOT)  # setup.py looks for its sources here
    flags = runpy.run_path("setup.py")
    compiler = os.environ.get("CC", "gcc")
    sources = [*sorted((ROOT / "csrc/cpu").rglob("*.c")), *sorted((ROOT / "tests/driver").glob("*.c"))]
    with TemporaryDirectory() as folder:

        def compile_one(source: Path) -> str:
            target = str(Path(folder) / f"{source.stem}.o")
            own = [*flags["COMPILE"], *flags["FILE_FLAGS"].get(source.name, []), f"-I{ROOT / 'csrc'}"]
            subprocess.run([compiler, *own, "-c", str(source), "-o", target], check=True)
            return target

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, sources))
        wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
        subprocess.run([compiler, *objects, *flags["LINK"], *wraps, "-lm", "-o", str(program)], check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
