"""The floors of the package: a file imports from its own folder and from those that its folder is allowed, no others.

Imports inside functions and under TYPE_CHECKING count like all others, and no files import each other in a circle.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ddoq"
PUBLIC_FACE = "ddoq"  # the files of the package's own folder, which may import everything
GROUND = {"ddoq._core", "ddoq._cuda", "ddoq._version"}  # which everything may import
ALLOWED: dict[str, set[str]] = {
    "machine": set(),
    "storage": {"machine"},
    "quantization": {"machine"},
    "data": {"storage", "machine"},
    "models": {"data", "storage", "machine"},
    "training": {"data", "storage", "machine"},
    "stages": {"models", "data", "quantization", "storage", "machine"},
    "methods": {"stages", "training", "models", "data", "quantization", "storage", "machine"},
    "evaluation": {"training", "models", "data", "storage", "machine"},
    "reporting": {"evaluation", "methods", "stages", "data", "quantization", "storage", "machine"},
    "cli": {"ddoq", "reporting", "evaluation", "methods", "training", "storage", "machine"},
}


def read_package() -> dict[str, str]:
    """The source of every module by its dotted name."""
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["ddoq", *path.relative_to(PACKAGE).with_suffix("").parts]
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return modules


def imports(source: str, modules: Mapping[str, str]) -> Iterator[str]:
    """The modules of the package that a source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "ddoq")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ddoq":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules or name in GROUND else str(node.module) for name in names)


def folder_of(module: str, modules: Mapping[str, str]) -> str:
    """The folder of the package that a module lies in; the package itself for those beside its `__init__`."""
    parts = module.split(".")
    is_folder = any(name.startswith(f"{'.'.join(parts[:2])}.") for name in modules)
    return parts[1] if len(parts) > 1 and is_folder else PUBLIC_FACE


def violations(modules: Mapping[str, str]) -> list[str]:
    """A line for each import that the floors do not allow."""
    lines = []
    for module, source in modules.items():
        own = folder_of(module, modules)
        for target in imports(source, modules):
            floor = folder_of(target, modules)
            if own not in (PUBLIC_FACE, floor) and target not in GROUND and floor not in ALLOWED.get(own, set()):
                lines.append(f"{module} imports {target}: {own} may not import {floor}")
    return lines


def circle(modules: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a circle, or none."""
    graph = {name: set(imports(source, modules)) - {name, "ddoq"} for name, source in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_import_goes_down() -> None:
    assert violations(read_package()) == []


def test_no_files_import_each_other() -> None:
    assert circle(read_package()) == []


def test_every_folder_has_a_floor() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ALLOWED)
    # cuda.py is the public `ddoq.cuda`
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "_version.py", "cuda.py"}


def test_files_and_functions_stay_small() -> None:
    root = PACKAGE.parent
    for path in [*PACKAGE.rglob("*.py"), *(root / "tests").rglob("*.py"), *(root / "benchmarks").glob("*.py")]:
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= 400, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and path.is_relative_to(PACKAGE):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = int(body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                assert length <= 60, (path, node.name)


@pytest.mark.parametrize(
    "source",
    [
        "from ddoq.training.train import train",
        "import ddoq.training.train",
        "from ddoq.training import train",
        "def later():\n    from ddoq.training.train import train",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ddoq.training.train import train",
        "from ddoq import train",  # the public face
    ],
    ids=["from", "import", "module", "lazy", "types", "face"],
)
def test_an_import_that_goes_up_is_found(source: str) -> None:
    modules = {"ddoq": "", "ddoq.storage.files": source, "ddoq.training": "", "ddoq.training.train": ""}
    assert len(violations(modules)) == 1


def test_a_circle_is_found() -> None:
    modules = {"ddoq.data.a": "def f():\n    from ddoq.data.b import g", "ddoq.data.b": "import ddoq.data.a"}
    assert set(circle(modules)) == set(modules)


def test_what_is_allowed_passes() -> None:
    modules = {"ddoq": "from ddoq.data.a import b", "ddoq.storage.files": "", "ddoq.machine.backend": ""}
    modules["ddoq.data.a"] = "from ddoq.storage.files import c\nfrom ddoq import _core"
    modules["ddoq.machine.backend"] = "from ddoq._version import __version__\nfrom ddoq import _core"
    assert violations(modules) == []
    assert circle(modules) == []
