"""The package as a user gets it: what an import loads, the version, docstrings, wheel and sdist, the README's code."""

from __future__ import annotations

import ast
import inspect
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import ddoq
from ddoq.cli.main import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def python(code: str, cwd: Path, **environment: str) -> str:
    """Standard output of a fresh interpreter."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"


def loaded(code: str) -> set[str]:
    return set(python(f"{code}; {LOADED}", ROOT).splitlines()[-1].split())


def test_import_loads_none_of_the_heavy_libraries() -> None:
    heavy = {
        "torch",
        "sklearn",
        "scipy",
        "diffusers",
        "timm",
        "PIL",
        "matplotlib",
        "ot",
        "tyro",
        "datasets",
        "safetensors",
    }
    assert not loaded("import ddoq") & heavy
    assert "ddoq" in loaded("import ddoq")


def test_quantising_loads_numpy_alone() -> None:
    modules = loaded("import ddoq; ddoq.quantize([[0.0], [1.0], [5.0]], 2, random_state=0)")
    assert "numpy" in modules
    assert not modules & {"torch", "sklearn", "diffusers", "matplotlib", "ot"}


def test_info_command_loads_neither_torch_nor_tyro() -> None:
    assert not loaded("from ddoq.cli.main import main; main(['info'])") & {"torch", "sklearn", "tyro"}


def test_version_is_the_same_everywhere() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", ddoq.__version__)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [ddoq.__version__]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)[0] == ddoq.__version__


@pytest.mark.parametrize("name", sorted(set(ddoq.__all__) - {"__version__"}))
def test_public_name_is_documented_with_an_example(name: str) -> None:
    thing = getattr(ddoq, name)
    text = inspect.getdoc(thing) or ""
    assert ">>> " in text.partition("\nExamples\n--------\n")[2], f"ddoq.{name} has no Examples section"
    if inspect.isfunction(thing) and inspect.signature(thing).parameters:
        assert "\nParameters\n----------\n" in text


def test_every_extra_named_in_an_error_installs_its_module() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    distribution = {"ot": "POT"}
    for module, extra in EXTRAS.items():
        names = {re.match(r"[\w-]+", requirement)[0] for requirement in extras[extra]}  # type: ignore[index]
        assert distribution.get(module, module) in names, f"{module} does not come with ddoq[{extra}]"


def test_extra_for_notebooks_brings_what_they_import() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    (own,) = (line for line in extras["notebooks"] if line.startswith("ddoq["))
    there = set(re.findall(r"\w+", own)) | {"torch"}
    modules = set()
    for path in (ROOT / "notebooks").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            modules |= {name.partition(".")[0] for name in names}
    assert {"ot", "matplotlib"} <= modules
    core = {"numpy", "scipy", "sklearn", "ddoq"}
    assert {EXTRAS[name] for name in modules - core - sys.stdlib_module_names} <= there
    assert any(line.startswith("jupyterlab") for line in extras["notebooks"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an sdist, a wheel from the tree (tree/) and a wheel from the sdist (sdist/)."""
    folder = tmp_path_factory.mktemp("built")
    tree = folder / "source"
    leave = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "*.so", "*.egg-info", "__pycache__", ".*_cache", "ddoq-demo"
    )
    shutil.copytree(ROOT, tree, ignore=leave)

    def run(*command: str) -> None:
        environment = os.environ | {"DDOQ_BUILD_CUDA": "0"}  # minutes, and the same for all that these tests look at
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    wheel = ("pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir")
    run("build", "--no-isolation", "--sdist", "--outdir", str(folder), str(tree))
    run(*wheel, str(folder / "sdist"), str(next(folder.glob("ddoq-*.tar.gz"))))
    run(*wheel, str(folder / "tree"), str(tree))
    return folder


def wheel_of(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_is_tagged_for_the_stable_abi(built: Path) -> None:
    assert wheel_of(built / "tree").name.startswith(f"ddoq-{ddoq.__version__}-cp311-abi3-")


def test_wheel_holds_every_module_the_stub_and_the_typing_mark(built: Path) -> None:
    names = set(zipfile.ZipFile(wheel_of(built / "tree")).namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "ddoq").rglob("*.py*") if path.suffix in (".py", ".pyi")}
    assert sources <= names
    assert {"ddoq/py.typed", "ddoq/_core.pyi", "ddoq/_core.abi3.so"} <= names
    assert {name.split("/")[0] for name in names} == {"ddoq", f"ddoq-{ddoq.__version__}.dist-info"}


def test_sdist_is_enough_to_build_the_same_wheel(built: Path) -> None:
    names = [set(zipfile.ZipFile(wheel_of(built / source)).namelist()) for source in ("tree", "sdist")]
    assert names[0] == names[1]
    with tarfile.open(next(built.glob("ddoq-*.tar.gz"))) as sdist:
        members = {name.partition("/")[2] for name in sdist.getnames()}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*")}
    assert sources | {"LICENSE", "README.md", "setup.py", "pyproject.toml"} <= members


def test_sdist_holds_what_its_tests_read(built: Path) -> None:
    with tarfile.open(next(built.glob("ddoq-*.tar.gz"))) as sdist:
        members = {name.partition("/")[2] for name in sdist.getnames()}
    folders = {"tests": ("*.py", "*.sh"), "notebooks": ("*.py", "*.ipynb"), "benchmarks": ("*.py",), "tools": ("*.py",)}
    paths = [path for name, kinds in folders.items() for kind in kinds for path in (ROOT / name).glob(kind)]
    files = {str(path.relative_to(ROOT)) for path in paths}
    assert {str(Path(name).parent) for name in files} == set(folders)
    own = {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile", "README.md", "constraints.txt"}
    assert files | own <= members


def test_wheel_works_where_the_sources_are_not(built: Path) -> None:
    site = built / "site"
    with zipfile.ZipFile(wheel_of(built / "sdist")) as wheel:
        wheel.extractall(site)
    code = "import ddoq; print(ddoq.__file__, *ddoq.quantize([[0.0], [1.0], [5.0]], 2, random_state=0).points.ravel())"
    file, *points = python(code, built, PYTHONPATH=str(site)).split()
    assert Path(file).is_relative_to(site)
    assert sorted(points) == ["0.5", "5.0"]


def test_a_function_that_names_the_package_can_be_sent_to_a_worker() -> None:
    """What joblib, dask and ray do with a lambda that uses ddoq."""
    cloudpickle = pytest.importorskip("joblib.externals.cloudpickle")
    assert pickle.loads(cloudpickle.dumps(lambda: ddoq.w2([[0.0], [2.0]], [[1.0]])))() == 1.0


def test_entry_point_is_the_command() -> None:
    assert PYPROJECT["project"]["scripts"] == {"ddoq": "ddoq.cli.main:main"}


def test_the_code_of_the_readme_runs(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert code, "no Python in README.md"
    assert len(code[0].splitlines()) <= 8
    assert all(readme.index(block) < readme.index("## ") for block in code[:1])
    output = python(code[0], tmp_path, OMP_NUM_THREADS="1")
    assert output.strip()


def test_the_cuda_module_is_an_attribute() -> None:
    code = "import sys, ddoq; assert 'ddoq.cuda' not in sys.modules; assert isinstance(ddoq.cuda.is_available(), bool)"
    subprocess.run([sys.executable, "-c", code], check=True)
