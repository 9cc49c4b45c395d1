"""Limits of control groups, read from files written here."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddoq.machine.limits import available_memory, cpu_quota


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"a/b/cpu.max": "300000 100000\n"}, 3),
        ({"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n", "cpu.max": "500000 100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
    ],
)
def test_cgroup_quota(files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    write(tmp_path, files)
    write(tmp_path, {"membership": "1:cpu:/elsewhere\n0::/a/b\n"})
    assert cpu_quota(tmp_path, tmp_path / "membership") == expected


def group(limit: str, used: int = 0, cached: int = 0) -> dict[str, str]:
    stat = f"anon {used - cached}\ninactive_file {cached // 4}\nactive_file {cached - cached // 4}\n"
    return {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": stat}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"a/b": group("9000", 1000)}, 8000),
        ({"a/b": group("9000", 1000, 400)}, 8400),
        ({"a/b": group("9000", 1000), "a": group("9000", 3000), ".": group("9000", 2000)}, 6000),
        ({"a/b": group("max", 1000), ".": group("9000", 2000)}, 7000),
        ({"a/c": group("10", 5), "a": group("max", 5), ".": {}}, None),
    ],
)
def test_memory_limit(groups: dict[str, dict[str, str]], expected: int | None, tmp_path: Path) -> None:
    for folder, files in groups.items():
        write(tmp_path / folder, files)
    write(tmp_path, {"membership": "0::/a/b\n"})
    free = available_memory(tmp_path, tmp_path / "membership")
    assert free is not None
    assert free == expected if expected is not None else free > 1 << 20  # the machine's
