"""Build of the compiled core; everything else about the package is in pyproject.toml.

DDOQ_SANITIZE=address,undefined builds with those sanitisers, DDOQ_WERROR=1 turns warnings into errors.
tests/driver/build.py compiles csrc/cpu with the same flags.
"""

import os
import platform
import sysconfig
from glob import glob

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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
LINK = ["-pthread"]
if os.environ.get("DDOQ_WERROR") == "1":
    COMPILE += ["-Wall", "-Wextra", "-Werror"]
if os.environ.get("DDOQ_SANITIZE"):
    SANITIZE = [
        f"-fsanitize={os.environ['DDOQ_SANITIZE']}",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
        "-g",
    ]
    COMPILE += SANITIZE
    LINK += SANITIZE


class BuildExt(build_ext):
    """Gives each source file its own flags, which setuptools cannot."""

    def build_extensions(self):
        compile_file = self.compiler._compile

        def compile_with_flags(obj, src, ext, cc_args, extra_postargs, pp_opts):
            flags = [*extra_postargs, *FILE_FLAGS.get(os.path.basename(src), [])]
            compile_file(obj, src, ext, cc_args, flags, pp_opts)

        self.compiler._compile = compile_with_flags
        super().build_extensions()


core = Extension(
    "ddoq._core",
    sources=sorted(glob("csrc/cpu/*.c") + glob("csrc/python/*.c")),
    depends=glob("csrc/**/*.h", recursive=True),
    include_dirs=["csrc", numpy.get_include()],
    libraries=["m"],
    define_macros=[
        ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        *([("Py_LIMITED_API", "0x030B0000")] if LIMITED else []),
    ],
    extra_compile_args=COMPILE,
    extra_link_args=LINK,
    py_limited_api=LIMITED,
)

if __name__ == "__main__":
    setup(
        ext_modules=[core],
        cmdclass={"build_ext": BuildExt},
        options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
    )
