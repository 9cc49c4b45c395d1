"""The run folder: one configuration, one process at a time, resume and verification."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runs import CONFIG, NAMES, files, full_disk, make

from ddoq.storage.files import write_atomic
from ddoq.storage.run import Run, RunError


def test_done_depends_on_inputs_and_files(tmp_path: Path) -> None:
    make(tmp_path / "run")
    with Run.locked(tmp_path / "run", CONFIG, NAMES) as run:
        assert run.done("quantize", {"seed": 0})
        assert not run.done("quantize", {"seed": 1})
        assert not run.done("encode", {"seed": 0})
        before = run.output("quantize")
        write_atomic(run.path / "points.bin", b"other")
        run.record("quantize", {"seed": 1}, [run.path / "points.bin"], seconds=1, info={})
        assert run.output("quantize") != before
    with Run.locked(tmp_path / "run", CONFIG, NAMES) as run:
        assert run.done("quantize", {"seed": 1})


@pytest.mark.parametrize(
    "name",
    ["points.bin", "codec/weights.bin", "images/metadata.jsonl", "images/README.md", "images/0001_dog/00001.png"],
)
def test_damage_is_named_and_deleting_is_the_remedy(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "run")
    victim = folder / name
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0x10
    victim.write_bytes(content)
    stage = {"points.bin": "quantize", "codec/weights.bin": "codec"}.get(name, "synthesize")
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        Run.open(folder).verify()
    with Run.locked(folder, CONFIG, NAMES) as run, pytest.raises(RunError, match=f"{name}.* delete it"):
        run.done(stage, {"seed": 0})
    victim.unlink()
    with pytest.raises(RunError, match=f"{name} is missing"):
        Run.open(folder).verify()
    with Run.locked(folder, CONFIG, NAMES) as run:
        assert not run.done(stage, {"seed": 0})


def test_verify_names_every_damaged_file(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    for name in ("points.bin", "images/0000_cat/00000.png"):
        (folder / name).write_bytes(b"")
    with pytest.raises(RunError, match=r"points\.bin is damaged; .*00000\.png is damaged"):
        Run.open(folder).verify()


def test_another_configuration_names_each_difference(tmp_path: Path) -> None:
    make(tmp_path / "run")
    other = {"ipc": 20, "quantizer": {"n_init": 2, "init": "k-means++"}, "seed": 0}
    with pytest.raises(RunError) as caught, Run.locked(tmp_path / "run", other, ["dog", "cat"]):
        pass
    message = str(caught.value)
    for part in (
        "ipc: 10 in the folder, 20 now",
        "quantizer.n_init: 1",
        "strength: None",
        "seed: 'absent'",
        "class_names",
    ):
        assert part in message
    assert "quantizer.init" not in message


def test_equal_configurations_are_equal_however_written(tmp_path: Path) -> None:
    with Run.locked(tmp_path / "run", {"size": (np.int64(2), np.float32(0.5)), "path": Path("a")}, ("a", "b")):
        pass
    before = (tmp_path / "run" / "run.json").stat().st_mtime_ns
    with Run.locked(tmp_path / "run", {"size": [2, 0.5], "path": "a"}, ["a", "b"]):
        pass
    assert (tmp_path / "run" / "run.json").stat().st_mtime_ns == before


def test_foreign_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"not empty and not a run folder .*thesis\.txt"), Run.locked(tmp_path, {}, []):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match="file"), Run.locked(path, {}, []):
            pass


def test_unwritable_folder(tmp_path: Path) -> None:
    user = os.geteuid()
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if user == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        for path in (folder, folder / "run"):
            with pytest.raises(RunError, match="Permission denied"), Run.locked(path, {}, []):
                pass
    finally:
        os.seteuid(user)
    assert list(folder.iterdir()) == []


def test_full_disk_at_the_start(tmp_path: Path) -> None:
    config = {"long": "x" * 2000}
    with full_disk(), pytest.raises(OSError, match=r"run\.json"), Run.locked(tmp_path / "run", config, []):
        pass
    assert files(tmp_path / "run") == {}
    with Run.locked(tmp_path / "run", config, []) as run:  # there is room again
        assert run.manifest["stages"] == {}


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.json.123.tmp").write_bytes(b"{")  # killed while it made the run
    (tmp_path / "run" / "run.lock").write_bytes(b"123")
    with Run.locked(tmp_path / "run", CONFIG, NAMES):
        pass
    (tmp_path / "run" / ".images.123.tmp" / "0000_cat").mkdir(parents=True)
    with Run.locked(tmp_path / "run", CONFIG, NAMES):
        pass
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == ["run.json", "run.lock"]


HOLDER = """
import sys, time
from ddoq.storage.run import Run
with Run.locked(sys.argv[1], {}, []):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_second_process_is_kept_out_until_the_first_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with (
            pytest.raises(RunError, match=f"in use by another process \\({process.pid}\\)"),
            Run.locked(tmp_path / "run", {}, []),
        ):
            pass
        process.send_signal(signal.SIGKILL)
    with (
        Run.locked(tmp_path / "run", {}, []),
        pytest.raises(RunError, match="in use"),
        Run.locked(tmp_path / "run", {}, []),
    ):
        pass


def test_unfinished_stage_is_named(tmp_path: Path) -> None:
    make(tmp_path / "run")
    with pytest.raises(RunError, match="'encode' is not finished"):
        Run.open(tmp_path / "run").output("encode")
