"""Build of the compiled parts; everything else about the package is in pyproject.toml.

DDOQ_SANITIZE=address,undefined builds the C core with those sanitisers, DDOQ_WERROR=1 turns warnings into errors.
DDOQ_BUILD_CUDA=auto (default) builds ddoq._cuda where nvcc is found (CUDACXX, CUDA_HOME, CUDA_PATH, PATH), 1 must, 0
does not; DDOQ_CUDA_ARCHS="80,90" names its GPUs by compute capability, the last in PTX too, for those to come.
tests/driver/build.py compiles csrc/cpu with the same flags.
"""

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from glob import glob
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# Flags of one source file: an instruction set is allowed only in the file that is called only where it runs.
X86_FLAGS = {
    "isa_avx2.c": ["-mavx2", "-mfma"],
    # gcc would otherwise halve the vectors
    "isa_avx512.c": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
FILE_FLAGS = X86_FLAGS if platform.machine() in {"x86_64", "AMD64"} else {}

# The limited API makes one wheel for every Python from 3.11 on; free-threaded builds do not have it.
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")

# gcc's -std=c11 would forbid contraction to fused multiply-adds, which the kernels live from.
COMPILE = ["-std=gnu11", "-O3", "-ffp-contract=fast", "-fvisibility=hidden", "-pthread"]
LINK = ["-pthread", "-ldl"]
NVCC = ["-std=c++17", "-O3", "--threads=2", "-Xfatbin=-compress-all", "-Xcompiler=-fPIC,-fvisibility=hidden"]
if os.environ.get("DDOQ_WERROR") == "1":
    COMPILE += ["-Wall", "-Wextra", "-Werror"]
    NVCC += ["-Werror=all-warnings", "-Xcompiler=-Wall,-Werror"]
if os.environ.get("DDOQ_SANITIZE"):
    SANITIZE = [
        f"-fsanitize={os.environ['DDOQ_SANITIZE']}",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
        "-g",
    ]
    COMPILE += SANITIZE
    LINK += SANITIZE

# Of one CUDA source: the fit's arithmetic is that of its model in NumPy, which has no fused multiply-add.
NVCC_FILE_FLAGS = {"fit.cu": ["-fmad=false"], "rows.cu": ["-fmad=false"]}
SHARED_BINDING = [f"csrc/python/{name}.c" for name in ("arguments", "arrays", "calls", "quantize_arguments")]
WITHOUT_CUDA = "DDOQ_BUILD_CUDA=0 builds ddoq without its CUDA part"
CUDA_ARCHS = "80,86,89,90,100,120"
CUDA_CACHE = Path("build", "cuda")  # compiled CUDA sources by the hash of all that goes into them


def find_nvcc():
    """The command of the CUDA compiler, or None."""
    if os.environ.get("CUDACXX"):
        return shlex.split(os.environ["CUDACXX"])
    for folder in filter(None, map(os.environ.get, ("CUDA_HOME", "CUDA_PATH"))):
        if shutil.which(os.path.join(folder, "bin", "nvcc")):
            return [os.path.join(folder, "bin", "nvcc")]
    found = shutil.which("nvcc")
    return [found] if found else None


def cuda_archs(nvcc):
    """Compute capabilities to compile for: those asked for, or of the default ones those that this nvcc knows."""
    if os.environ.get("DDOQ_CUDA_ARCHS"):
        return re.split(r"[\s,;]+", os.environ["DDOQ_CUDA_ARCHS"].strip())
    known = set(subprocess.run([*nvcc, "--list-gpu-code"], check=True, capture_output=True, text=True).stdout.split())
    archs = [arch for arch in CUDA_ARCHS.split(",") if f"sm_{arch}" in known]
    return archs or sys.exit(f"{nvcc[0]} knows none of sm_{CUDA_ARCHS}. {WITHOUT_CUDA}")


def cuda_folders(nvcc):
    """Folders of the toolkit's headers and of its libraries, from what nvcc would run."""
    plan = subprocess.run(
        [*nvcc, "--dryrun", "-c", "-x", "cu", "/dev/null"], check=True, capture_output=True, text=True
    )
    settings = dict(re.findall(r"^#\$ (INCLUDES|LIBRARIES)=(.*)$", plan.stderr, re.MULTILINE))
    options = shlex.split(f"{settings['INCLUDES']} {settings['LIBRARIES']}")
    return [option[2:] for option in options if option.startswith("-I")], [
        option[2:] for option in options if option.startswith("-L") and not option.endswith("stubs")
    ]


class BuildExt(build_ext):
    """Gives each source file its own flags, which setuptools cannot, and CUDA sources to nvcc."""

    def build_extensions(self):
        """Compile and link all extensions."""
        compile_file = self.compiler._compile
        self.compiler.src_extensions.append(".cu")

        def compile_with_flags(obj, src, ext, cc_args, extra_postargs, pp_opts):
            if ext == ".cu":
                self.compile_cuda(Path(src), Path(obj))
                return
            flags = [*extra_postargs, *FILE_FLAGS.get(os.path.basename(src), [])]
            compile_file(obj, src, ext, cc_args, flags, pp_opts)

        self.compiler._compile = compile_with_flags
        super().build_extensions()

    def build_extension(self, ext):
        """Build one; the CUDA part always, since nothing of it is compiled again without need."""
        force, self.force = self.force, self.force or ext.name == "ddoq._cuda"
        super().build_extension(ext)
        self.force = force

    def compile_cuda(self, source, target):
        """Compile for all architectures, unless the same was compiled before: that takes a minute."""
        nvcc = find_nvcc()
        archs = cuda_archs(nvcc)
        flags = [*NVCC, *NVCC_FILE_FLAGS.get(source.name, []), "-Icsrc"]
        flags += [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
        flags.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
        version = subprocess.run([*nvcc, "--version"], check=True, capture_output=True).stdout
        headers = sorted([*Path("csrc").glob("*.h"), *Path("csrc/cuda").glob("*.h"), *Path("csrc/cuda").glob("*.cuh")])
        parts = [version, shlex.join(flags).encode(), *(path.read_bytes() for path in (source, *headers))]
        digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
        made = CUDA_CACHE / f"{source.stem}-{digest[:16]}.o"
        if not made.exists():
            CUDA_CACHE.mkdir(parents=True, exist_ok=True)
            partial = made.with_suffix(f".{os.getpid()}")
            try:
                self.spawn([*nvcc, *flags, "-c", str(source), "-o", str(partial)])
            except Exception as error:
                raise CompileError(f"{error}. {WITHOUT_CUDA}") from error
            partial.replace(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, target)


def extension(name, sources, macros=(), **options):
    """An extension module in C over NumPy."""
    return Extension(
        name,
        sources=sources,
        depends=[*glob("csrc/**/*.h", recursive=True), *glob("csrc/**/*.cuh", recursive=True)],
        define_macros=[
            ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
            ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
            *([("Py_LIMITED_API", "0x030B0000")] if LIMITED else []),
            *macros,
        ],
        extra_compile_args=COMPILE,
        py_limited_api=LIMITED,
        **options,
    )


def extensions():
    """The C core, and the CUDA part where it is to be built."""
    cuda_binding = glob("csrc/python/cuda_*.c")
    binding = sorted(set(glob("csrc/python/*.c")) - set(cuda_binding))
    include = ["csrc", numpy.get_include()]
    sources = sorted(glob("csrc/cpu/**/*.c", recursive=True)) + binding
    found = [extension("ddoq._core", sources, include_dirs=include, libraries=["m"], extra_link_args=LINK)]
    wanted = os.environ.get("DDOQ_BUILD_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        sys.exit(f"DDOQ_BUILD_CUDA must be auto, 0 or 1, not {wanted}")
    nvcc = find_nvcc() if wanted != "0" else None
    if nvcc is None:
        if wanted == "1":
            sys.exit("DDOQ_BUILD_CUDA=1, but there is no nvcc: set CUDACXX, CUDA_HOME or PATH")
        return found
    headers, libraries = cuda_folders(nvcc)
    cuda = extension(
        "ddoq._cuda",
        sorted([*glob("csrc/cuda/*.c"), *glob("csrc/cuda/*.cu"), *cuda_binding, *SHARED_BINDING]),
        macros=[("DDOQ_CUDA_ARCHS", f'"{",".join(cuda_archs(nvcc))}"')],
        include_dirs=[*include, *headers],
        library_dirs=libraries,
        libraries=["cudart_static", "rt", "pthread", "dl", "stdc++", "m"],
        # stdc++ is what the static runtime needs, which stays this module's own, whatever others bring
        extra_link_args=[*LINK, "-Wl,--exclude-libs,ALL"],
    )
    return [*found, cuda]


if __name__ == "__main__":
    setup(
        ext_modules=extensions(),
        cmdclass={"build_ext": BuildExt},
        options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
    )
