"""Command lines run in this process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ddoq.cli import main as cli


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command line run in this process."""
    try:
        status = cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    return status, *capsys.readouterr()


def distill_line(data: Path, out: Path, *more: str) -> list[str]:
    quick = ["--codec", "identity", "--synthesis", "decode", "--no-progress"]
    return ["distill", str(data), str(out), "--ipc", "2", *quick, *more]


def entries(text: str) -> dict[str, str]:
    """What a command's --help says of each option, by the option's name."""
    lines = [line.strip(" │|") for line in text.splitlines()]
    joined = " ".join(f"\n{line}" if re.match("--[a-z]", line) else line for line in lines)
    return {match[1]: match[2] for match in re.finditer(r"\n--([a-z-]+)(.*)", joined)}


def one_line_error(result: tuple[int, str, str]) -> str:
    status, out, err = result
    assert status == 1
    assert out == ""
    assert err.startswith("ddoq: error: ")
    assert err.count("\n") == 1, err
    return err
