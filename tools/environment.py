"""Make a virtual environment for `make`: check the machine, say how much will be downloaded, install.

Called by the Makefile: python tools/environment.py VENV EXTRA. Only the standard library, and only syntax and imports
that older interpreters know, so that they get a message and not a traceback. TORCH_INDEX may name an index of PyTorch
builds (for example https://download.pytorch.org/whl/cpu) to use beside the package index.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)


def missing():
    """Return one line for each thing that this machine lacks."""
    version = "%d.%d" % sys.version_info[:2]  # noqa: UP031 (read by old interpreters)
    lacks = []
    if sys.version_info < OLDEST:
        newer = [name for name in ("python3.14", "python3.13", "python3.12", "python3.11") if shutil.which(name)]
        remedy = "run make PYTHON=" + newer[0] if newer else "install a newer Python and run make PYTHON=path/to/it"
        return ["Python 3.11 or newer: " + sys.executable + " is " + version + "; " + remedy]
    try:
        import ensurepip
        import venv

        del ensurepip, venv
    except ImportError:
        lacks.append("the venv module: on Debian or Ubuntu, apt-get install python" + version + "-venv")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        lacks.append("Python's C headers (Python.h): on Debian or Ubuntu, apt-get install python" + version + "-dev")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        lacks.append("a C compiler (" + compiler + "): on Debian or Ubuntu, apt-get install build-essential; or set CC")
    return lacks


def requirements(extra):
    """Return what building ddoq and ddoq[extra] require, with ddoq's references to its own extras written out."""
    import tomllib

    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    found = []
    waiting = [*pyproject["build-system"]["requires"], *pyproject["project"]["dependencies"], *extras[extra]]
    while waiting:
        requirement = waiting.pop(0)
        own = re.fullmatch(r"ddoq\[(.+)\]", requirement)
        if own:
            waiting += [part for name in own[1].split(",") for part in extras[name.strip()]]
        elif requirement not in found:
            found.append(requirement)
    return found


def size(url):
    """Return the bytes of a distribution and whether they are on this machine already; None bytes where nobody says."""
    if url.startswith("file:"):
        return Path(urllib.request.url2pathname(url[len("file://") :].split("#")[0])).stat().st_size, True
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20) as answer:
            length = answer.headers.get("Content-Length")
            return (int(length) if length else None), False
    except OSError:
        return None, False


def announce(pip, wanted):
    """Print how much pip is going to download."""
    print("Asking the package index what is needed", flush=True)
    plan = subprocess.run([*pip, "--dry-run", "--quiet", "--report", "-", *wanted], capture_output=True, text=True)
    if plan.returncode:
        sys.exit("pip found no set of packages to install:\n" + plan.stderr.strip())
    urls = [item["download_info"]["url"] for item in json.loads(plan.stdout)["install"]]
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(size, urls))
    remote = [length for length, local in sizes if not local]
    unknown = remote.count(None)
    line = f"{len(urls)} packages to install: about {sum(filter(None, remote)) / 1e6:.0f} MB to download"
    if unknown:
        line += f", and {unknown} packages whose size the index does not tell"
    local_bytes = sum(length for length, local in sizes if local)
    if local_bytes:
        line += f" (and {local_bytes / 1e6:.0f} MB from files on this machine)"
    print(line if urls else "Nothing to download.", flush=True)


def cuda_note():
    """Return what will be done about the CUDA part, which takes longer than all else to build."""
    if os.environ.get("DDOQ_BUILD_CUDA") == "0":
        return " without its CUDA part (DDOQ_BUILD_CUDA is 0)"
    homes = [os.path.join(os.environ[name], "bin") for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    path = os.pathsep.join([*homes, os.environ.get("PATH", "")])
    if os.environ.get("CUDACXX") or shutil.which("nvcc", path=path):
        return " with its CUDA part for GPUs, about a minute (DDOQ_BUILD_CUDA=0 leaves it out)"
    return " without its CUDA part for GPUs, since there is no nvcc"


def main():
    """Check, make the environment where there is none, and install."""
    lacks = missing()
    if lacks:
        sys.exit("This machine lacks\n" + "\n".join("  - " + line for line in lacks))
    folder, extra = Path(sys.argv[1]), sys.argv[2]
    if not (folder / "bin" / "pip").exists():
        print(f"Making the environment {folder} with Python {sys.version.split()[0]}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    index = os.environ.get("TORCH_INDEX")
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    pip = [*command, "-c", str(ROOT / "constraints.txt"), *(["--extra-index-url", index] if index else [])]
    wanted = requirements(extra)
    announce(pip, wanted)
    subprocess.run([*pip, "--quiet", *wanted], check=True)
    print("Building ddoq" + cuda_note(), flush=True)
    subprocess.run([*command, "--quiet", "--no-build-isolation", "--no-deps", "-e", str(ROOT)], check=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{shlex.join(error.cmd)} failed with status {error.returncode}")
