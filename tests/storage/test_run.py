"""The run folder: atomic writes, the manifest's seal, the lock, resume and verification."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ddoq.machine.streams import seed_sequence
from ddoq.storage.files import clean, inside, new_folder, write_atomic
from ddoq.storage.image_folder import write_images
from ddoq.storage.run import Run, RunError
from ddoq.storage.values import plain

CONFIG = {"ipc": 10, "quantizer": {"n_init": 1, "init": "k-means++"}, "strength": None}
NAMES = ["cat", "dog"]


@contextlib.contextmanager
def full_disk(limit: int = 1000) -> Iterator[None]:
    """Files may not grow beyond `limit` bytes: a write fails half-way, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "run.lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def make(folder: Path) -> Path:
    """A run with a plain stage, a stage in a sub-folder, and images."""
    with Run.locked(folder, CONFIG, NAMES) as run:
        write_atomic(run.path / "points.bin", bytes(range(256)))
        run.record("quantize", {"seed": 0}, [run.path / "points.bin"], seconds=1.5, info={"w2": 0.5})
        (run.path / "codec").mkdir()
        write_atomic(run.path / "codec" / "weights.bin", b"weights" * 10)
        run.record("codec", {"seed": 0}, [Path("codec/weights.bin")], seconds=2, info={})
        images = np.arange(4 * 16, dtype=np.uint8).reshape(4, 1, 4, 4)
        outputs = write_images(
            run.path / "images", images, np.array([0, 0, 1, 1]), np.ones(4), np.ones(4, int), NAMES, [{}] * 4
        )
        run.record("synthesize", {"seed": 0}, outputs, seconds=3, info={})
    return folder


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


def test_manifest_holds_what_a_run_is(tmp_path: Path) -> None:
    run = Run.open(make(tmp_path / "run"))
    assert run.manifest["config"] == CONFIG
    assert run.manifest["class_names"] == NAMES
    assert run.manifest["versions"]["numpy"] == np.__version__
    assert run.manifest["machine"]["processor"]
    stage = run.manifest["stages"]["quantize"]
    assert stage["outputs"] == {"points.bin": hashlib.sha256(bytes(range(256))).hexdigest()}
    assert stage["seconds"] == 1.5
    assert stage["peak_memory"] > 1 << 20
    assert run.info("quantize") == {"w2": 0.5}
    assert set(run.manifest["stages"]["synthesize"]["outputs"]) == {"images/metadata.jsonl", "images/README.md"}
    run.verify()


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


def test_every_flipped_byte_of_the_manifest_is_noticed(tmp_path: Path) -> None:
    path = make(tmp_path / "run") / "run.json"
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        for mask in (0x01, 0x10, 0x29):
            changed = bytearray(whole)
            changed[position] ^= mask
            path.write_bytes(changed)
            with pytest.raises(RunError, match=r"run\.json"):
                Run.open(tmp_path / "run")
    path.write_bytes(whole)
    Run.open(tmp_path / "run").verify()


def test_truncated_manifest_is_named(tmp_path: Path) -> None:
    path = make(tmp_path / "run") / "run.json"
    for size in (0, 1, 500):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(RunError, match=r"run\.json is damaged"), Run.locked(tmp_path / "run", CONFIG, NAMES):
            pass


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


def test_open_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run folder: .*; make one with ddoq distill"):
        Run.open(tmp_path)


def test_unfinished_stage_is_named(tmp_path: Path) -> None:
    make(tmp_path / "run")
    with pytest.raises(RunError, match="'encode' is not finished"):
        Run.open(tmp_path / "run").output("encode")


def seal(manifest: dict[str, object]) -> bytes:
    """A run.json that an attacker has sealed again."""
    from ddoq.storage.manifest import sealed

    return sealed(manifest)


def test_hostile_paths_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    folder = make(tmp_path / "run")
    manifest = json.loads((folder / "run.json").read_bytes())
    for name in ("../secret.txt", str(secret), "images/../../secret.txt", "a\0b", ""):
        manifest["stages"]["quantize"]["outputs"] = {name: hashlib.sha256(b"secret").hexdigest()}
        (folder / "run.json").write_bytes(seal(manifest))
        with pytest.raises(RunError, match="outside its folder"):
            Run.open(folder).verify()


def test_symbolic_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(RunError, match="outside"):
        inside(tmp_path / "run", "link", tmp_path / "run" / "run.json")


@pytest.mark.parametrize("number", [1, 3])
def test_another_format_is_refused_with_what_to_do(tmp_path: Path, number: int) -> None:
    folder = make(tmp_path / "run")
    manifest = json.loads((folder / "run.json").read_bytes())
    versions = {"ddoq": "0.1.2"}
    (folder / "run.json").write_bytes(seal({**manifest, "format": number, "versions": versions}))
    remedy = "distil again into another folder, or use the ddoq that made it, version 0.1.2$"
    with pytest.raises(RunError, match=f"has format {number} and this ddoq reads 2: {remedy}"):
        Run.open(folder)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"config": []}, "config"),
        ({"class_names": "ab"}, "class_names"),
        ({"class_names": [1, 2]}, "class_names"),
        ({"versions": None}, "versions"),
        ({"stages": []}, "stages"),
        ({"stages": {"quantize": {}}}, "stage 'quantize'"),
        ({"stages": {"quantize": []}}, "stage 'quantize'"),
        ({"stages": {"quantize": {"inputs": "", "outputs": {"a": 1}, "output": "", "info": {}}}}, "stage 'quantize'"),
    ],
)
def test_sealed_manifest_of_another_shape_is_refused(tmp_path: Path, change: dict[str, object], wrong: str) -> None:
    folder = make(tmp_path / "run")
    manifest = json.loads((folder / "run.json").read_bytes())
    for shape in ({**manifest, **change}, {key: manifest[key] for key in manifest if key not in change}):
        (folder / "run.json").write_bytes(seal(shape))
        with pytest.raises(RunError, match=r"run\.json is damaged.*is not what ddoq writes") as caught:
            Run.open(folder)
        assert wrong.split()[0] in str(caught.value)
        with pytest.raises(RunError, match="is not what ddoq writes"), Run.locked(folder, CONFIG, NAMES):
            pass


@pytest.mark.parametrize("content", ["{}", '{"name": "sprint"}', "[]", "3"])
def test_run_json_of_another_program_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    (tmp_path / "thesis.tex").write_text("mine")
    with (
        pytest.raises(RunError, match=r"not a ddoq run.*choose another folder") as caught,
        Run.locked(tmp_path, {}, []),
    ):
        pass
    assert "delete" not in str(caught.value)
    with pytest.raises(RunError, match="not a ddoq run"):
        Run.open(tmp_path)
    assert files(tmp_path) == {"run.json": content.encode(), "thesis.tex": b"mine"}
    assert not (tmp_path / "run.lock").exists()


def test_facts_that_json_lacks_are_written_as_text(tmp_path: Path) -> None:
    with Run.locked(tmp_path / "run", {}, []) as run:
        run.record("codec", {}, [], seconds=0, info={"psnr": float("inf"), "loss": np.float32("nan")})
    assert Run.open(tmp_path / "run").info("codec") == {"psnr": "inf", "loss": "nan"}
    with pytest.raises(TypeError, match="object"):
        plain({"codec": object()})


def test_seed_sequences_are_what_they_were() -> None:
    """Pinned: a change would break the reproduction of every published run."""
    assert seed_sequence(0, "quantize", 3).generate_state(2).tolist() == [651045769, 3321447516]
    states = {
        tuple(seed_sequence(seed, stage, *key).generate_state(4))
        for seed in (0, 1)
        for stage in ("quantize", "synthesize")
        for key in ((), (0,), (1,), (0, 0), (0, 1), (1, 0))
    }
    assert len(states) == 24


@pytest.mark.parametrize("seed", [-1, 0.5, True, None])
def test_bad_seed(seed: object) -> None:
    with pytest.raises(ValueError, match="seed"):
        seed_sequence(seed, "quantize")  # type: ignore[arg-type]
