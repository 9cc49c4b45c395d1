"""run.json: what it holds, its seal, and what is refused in its place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from runs import CONFIG, NAMES, files, make

from ddoq.storage.manifest import sealed
from ddoq.storage.run import Run, RunError
from ddoq.storage.values import plain


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


def test_hostile_paths_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    folder = make(tmp_path / "run")
    manifest = json.loads((folder / "run.json").read_bytes())
    for name in ("../secret.txt", str(secret), "images/../../secret.txt", "a\0b", ""):
        manifest["stages"]["quantize"]["outputs"] = {name: hashlib.sha256(b"secret").hexdigest()}
        (folder / "run.json").write_bytes(sealed(manifest))
        with pytest.raises(RunError, match="outside its folder"):
            Run.open(folder).verify()


@pytest.mark.parametrize("number", [1, 3])
def test_another_format_is_refused_with_what_to_do(tmp_path: Path, number: int) -> None:
    folder = make(tmp_path / "run")
    manifest = json.loads((folder / "run.json").read_bytes())
    versions = {"ddoq": "0.1.2"}
    (folder / "run.json").write_bytes(sealed({**manifest, "format": number, "versions": versions}))
    remedy = "distil again into another folder, or use the ddoq that made it, version 0.1.2$"
    with pytest.raises(RunError, match=f"has format {number} and this ddoq reads 2: {remedy}"):
        Run.open(folder)
    weighed = {**manifest, "format": number, "config": {"given": {}}}
    (folder / "run.json").write_bytes(sealed(weighed))
    with pytest.raises(RunError, match="reads 2: delete it and weigh the folder again, or use"):
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
        (folder / "run.json").write_bytes(sealed(shape))
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


def test_open_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run folder: .*; make one with ddoq distill"):
        Run.open(tmp_path)
