"""Files that are whole or absent: atomic writes, full disks, kill -9, and paths that stay in their folder."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import files, full_disk

from ddoq.storage.files import clean, inside, new_folder, write_atomic
from ddoq.storage.run import RunError


def test_atomic_write_replaces_whole(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"one")
    write_atomic(tmp_path / "a", b"two")
    assert files(tmp_path) == {"a": b"two"}


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"old")
    with full_disk(), pytest.raises(OSError, match=r"cannot write: .*'.*/a'"):
        write_atomic(tmp_path / "a", b"x" * 2000)
    assert files(tmp_path) == {"a": b"old"}


def test_full_disk_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    def build(content: bytes) -> None:
        with new_folder(tmp_path / "images") as work:
            (work / "sub").mkdir()
            (work / "sub" / "a").write_bytes(content)

    build(b"old")
    with full_disk(), pytest.raises(OSError, match="images"):
        build(b"x" * 2000)
    assert files(tmp_path) == {"images/sub/a": b"old"}
    build(b"new")
    assert files(tmp_path) == {"images/sub/a": b"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


KILLED_WRITER = """
import sys
from pathlib import Path
from ddoq.storage.files import write_atomic
print("ready", flush=True)
for i in range(10**9):
    write_atomic(Path(sys.argv[1]), bytes([i % 256]) * 3_000_000)
"""


def test_kill_9_never_leaves_half_a_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    for delay in (0.0, 0.003, 0.01, 0.02):
        command = [sys.executable, "-c", KILLED_WRITER, str(target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            while not target.exists():
                time.sleep(0.001)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        content = target.read_bytes()
        assert content == content[:1] * 3_000_000
    clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_symbolic_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(RunError, match="outside"):
        inside(tmp_path / "run", "link", tmp_path / "run" / "run.json")
