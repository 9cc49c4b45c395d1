"""Reads how much of the machine this process may use, by Linux's and the control groups' limits."""

from __future__ import annotations

from pathlib import Path

CGROUP, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cpu_quota(root: Path = CGROUP, membership: Path = MEMBERSHIP) -> int | None:
    """Processors that the control groups (version 2, then 1) allow, rounded up; None without a quota."""
    ratios = []
    for folder in _folders(root, membership):
        quota, period = (_read(folder / "cpu.max") or "max 1").split()
        if quota != "max":
            ratios.append(int(quota) / int(period))
    quota, period = (_read(root / "cpu" / f"cpu.cfs_{name}_us") or "-1" for name in ("quota", "period"))
    if int(quota) > 0 and int(period) > 0:
        ratios.append(int(quota) / int(period))
    return max(1, -int(-min(ratios) // 1)) if ratios else None


def available_memory(root: Path = CGROUP, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes that can be had without swapping, as Linux and the control groups tell; None on other systems."""
    machine = _fields(Path("/proc/meminfo"))
    if "MemAvailable:" not in machine:
        return None
    free = [machine["MemAvailable:"] * 1024]
    for folder in _folders(root, membership):
        limit, used = _read(folder / "memory.max"), _read(folder / "memory.current")
        if limit and used and limit != "max":
            group = _fields(folder / "memory.stat")
            cached = group.get("inactive_file", 0) + group.get("active_file", 0)
            free.append(int(limit) - int(used) + cached)
    return min(free)


def _folders(root: Path, membership: Path) -> list[Path]:
    """Own version 2 control group and its parents, as far as they are visible."""
    for line in (_read(membership) or "").splitlines():
        if line.startswith("0::"):
            relative = Path(line[3:].lstrip("/"))
            return [root / part for part in (relative, *relative.parents)]
    return [root]


def _fields(path: Path) -> dict[str, int]:
    """First number of every line by the line's first word; empty where there is no such file."""
    return {words[0]: int(words[1]) for words in map(str.split, (_read(path) or "").splitlines())}


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
