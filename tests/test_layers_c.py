"""The floors of csrc/: a file includes from its own room and from those that its room is allowed, no others.

A header and the source of its name are one file here. What a header declares its own source defines, so that an arrow
is an include and nothing else; the public ddoq.h, which declares the entry points, is alone in declaring for others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

SOURCES = Path(__file__).resolve().parents[1] / "csrc"
BOTTOM = {"face", "cpu/kernels"}  # of csrc/cpu
ALLOWED: dict[str, set[str]] = {
    "face": set(),  # csrc/ddoq.h and csrc/classes.h
    "cpu/kernels": {"face"},
    "cpu": BOTTOM,  # what all forms share
    "cpu/gram": {"cpu", *BOTTOM},
    "cpu/stream": {"cpu", *BOTTOM},
    "cpu/clvq": {"cpu", *BOTTOM},
    "cpu/quantize": {"cpu/gram", "cpu/stream", "cpu", *BOTTOM},  # one file: the classes of a call
    "cuda": {"face"},
    "python": {"cuda", "face"},
}
pytestmark = pytest.mark.skipif(not SOURCES.is_dir(), reason="needs the sources")


def read_sources() -> dict[str, str]:
    """The text of every source and header by its path in csrc/."""
    kinds = {".c", ".h", ".cu", ".cuh"}
    paths = sorted(path for path in SOURCES.rglob("*") if path.suffix in kinds)
    return {path.relative_to(SOURCES).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def stem(path: str) -> str:
    """A path without its ending, which a header and its source share."""
    return str(PurePosixPath(path).with_suffix(""))


def room_of(path: str) -> str:
    """The room of a file: its folder, but for csrc/cpu/quantize.c, which stands above its own."""
    folder = str(PurePosixPath(path).parent)
    return "face" if folder == "." else "cpu/quantize" if stem(path) == "cpu/quantize" else folder


def includes(text: str) -> list[str]:
    """What a text includes of this project."""
    return re.findall(r'^#\s*include "([^"]+)"', text, re.MULTILINE)


def violations(sources: Mapping[str, str]) -> list[str]:
    """A line for each include that the floors do not allow."""
    return [
        f"{path} includes {target}: {room_of(path)} may not include {room_of(target)}"
        for path, text in sources.items()
        for target in includes(text)
        if room_of(target) not in {room_of(path), *ALLOWED.get(room_of(path), set())}
    ]


def circle(sources: Mapping[str, str]) -> list[str]:
    """Files that include each other in a circle, or none."""
    graph: dict[str, set[str]] = {}
    for path, text in sources.items():
        graph.setdefault(stem(path), set()).update({stem(target) for target in includes(text)} - {stem(path)})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def declared_for_others(sources: Mapping[str, str]) -> list[str]:
    """A line for each function that a header declares and its own source does not define."""
    lines = []
    for path, text in sources.items():
        if PurePosixPath(path).suffix != ".h" or path == "ddoq.h":
            continue
        own = "".join(sources.get(stem(path) + kind, "") for kind in (".c", ".cu"))
        for name in re.findall(r"^\w[\w *]*\b(ddoq_\w+)\([^;{]*\);", text, re.MULTILINE):
            if not re.search(rf"\b{name}\([^;{{]*\)\s*\{{", own):
                lines.append(f"{path} declares {name}, which {stem(path)} does not define")
    return lines


def test_every_include_goes_down() -> None:
    assert violations(read_sources()) == []


def test_no_files_include_each_other() -> None:
    assert circle(read_sources()) == []


def test_every_header_declares_what_its_own_source_defines() -> None:
    assert declared_for_others(read_sources()) == []


def test_every_folder_has_a_room_and_every_include_a_file() -> None:
    sources = read_sources()
    assert {room_of(path) for path in sources} == set(ALLOWED)
    assert {target for text in sources.values() for target in includes(text)} <= set(sources)


def test_stems_of_sources_are_unique() -> None:
    # the driver of the tests names objects by them
    for folder in ("cpu", "cuda"):
        stems = [PurePosixPath(path).stem for path in read_sources() if re.match(rf"{folder}/.*\.cu?$", path)]
        assert len(stems) == len(set(stems))


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("cpu/kernels/table.h", "cpu/memory.h"),
        ("cpu/memory.h", "cpu/gram/fit.h"),
        ("cpu/gram/fit.h", "cpu/stream/stream.h"),
        ("cpu/gram/fit.h", "cpu/quantize.h"),
        ("cuda/rows.cu", "cpu/memory.h"),
        ("ddoq.h", "cpu/kernels/table.h"),
    ],
)
def test_an_include_that_goes_up_is_found(path: str, target: str) -> None:
    assert len(violations({path: f'#    include "{target}"\n', target: ""})) == 1


def test_a_circle_is_found() -> None:
    sources = {"cpu/a.h": "", "cpu/a.c": '#include "cpu/b.h"\n', "cpu/b.h": '#include "cpu/a.h"\n'}
    assert set(circle(sources)) == {"cpu/a", "cpu/b"}


def test_a_declaration_for_another_file_is_found() -> None:
    sources = {"cpu/a.h": "void ddoq_f(int x,\n            int y);\nvoid ddoq_g(void);\n"}
    sources["cpu/a.c"] = "void ddoq_g(void)\n{\n}\n"
    assert len(declared_for_others(sources)) == 1


def test_what_is_allowed_passes() -> None:
    sources = {"ddoq.h": "int ddoq_f(void);\n", "cpu/a.h": '#include "ddoq.h"\n#include <math.h>\nint ddoq_g(int x);\n'}
    sources["cpu/a.c"] = '#include "cpu/a.h"\n\nint ddoq_g(int x)\n{\n    return x;\n}\n'
    sources["cpu/quantize.c"] = '#include "cpu/a.h"\n#include "cpu/gram/b.h"\n'
    assert violations(sources) == []
    assert circle(sources) == []
    assert declared_for_others(sources) == []
