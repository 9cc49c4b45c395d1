"""Stages of a run as blocks, and what a run folder answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddoq.storage.files import write_atomic
from ddoq.storage.points import POINTS, Points, write_points
from ddoq.storage.run import Run, RunError

NAMES = ["cat", "dog"]


def greet(folder: Path, word: str, fail: bool = False) -> bool:
    """Work on a stage that writes a word; whether there was anything to do."""
    with Run.locked(folder, {}, NAMES) as run, run.stage("greet", {"word": word}) as stage:
        if stage.done:
            return False
        write_atomic(folder / "hello.txt", word.encode())
        stage.outputs, stage.info = [folder / "hello.txt"], {"length": len(word)}
        if fail:
            raise KeyboardInterrupt
    return True


def test_a_stage_is_recorded_when_its_block_ends_and_then_skipped(tmp_path: Path) -> None:
    assert greet(tmp_path, "hello")
    entry = Run.open(tmp_path).manifest["stages"]["greet"]
    assert entry["info"] == {"length": 5}
    assert list(entry["outputs"]) == ["hello.txt"]
    assert entry["seconds"] >= 0
    assert entry["peak_memory"] > 1 << 20
    before = (tmp_path / "run.json").read_bytes()
    assert not greet(tmp_path, "hello")
    assert (tmp_path / "run.json").read_bytes() == before
    assert greet(tmp_path, "good day")  # other inputs
    (tmp_path / "hello.txt").unlink()
    assert greet(tmp_path, "good day")  # a file is missing


def test_a_stage_that_fails_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        greet(tmp_path, "hello", fail=True)
    assert not Run.open(tmp_path).has("greet")
    assert greet(tmp_path, "hello")


def test_damage_is_refused_before_the_block(tmp_path: Path) -> None:
    greet(tmp_path, "hello")
    (tmp_path / "hello.txt").write_bytes(b"hullo")
    with pytest.raises(RunError, match=r"hello\.txt is damaged.*delete it"):
        greet(tmp_path, "hello")


def test_sets_of_images_are_named_main_first(tmp_path: Path) -> None:
    with Run.locked(tmp_path, {"method": "ddoq", "options": {"synthesis": "decode"}}, NAMES) as run:
        assert run.syntheses() == []
        for stage in ("encode", "synthesize:nearest", "synthesize", "synthesize:diffuse", "weigh:decode"):
            run.record(stage, {}, [], seconds=0, info={})
    run = Run.open(tmp_path)
    assert run.syntheses() == ["decode", "nearest", "diffuse"]
    assert (run.kind, run.class_names, run.config["method"]) == ("distilled", ("cat", "dog"), "ddoq")
    assert run.has("encode")
    assert not run.has("quantize")


def test_a_method_without_syntheses_gives_its_name(tmp_path: Path) -> None:
    with Run.locked(tmp_path, {"method": "random", "options": {}}, NAMES) as run:
        run.record("synthesize", {}, [], seconds=0, info={})
        assert run.syntheses() == ["random"]


def test_points_of_classes_of_several_sizes(tmp_path: Path) -> None:
    points = Points(
        points=np.arange(20, dtype=np.float32).reshape(5, 1, 2, 2),
        weights=np.array([0.5, 0.25, 0.25, 0.75, 0.25]),
        counts=np.array([2, 1, 1, 3, 1]),
        offsets=np.array([0, 3, 5]),
        distortion=np.array([1.0, 2.0]),
    )
    with Run.locked(tmp_path, {}, NAMES) as run:
        with pytest.raises(RunError, match="'quantize' is not finished"):
            run.points()
        write_points(tmp_path / POINTS, points)
        run.record("quantize", {}, [tmp_path / POINTS], seconds=0, info={})
        again = run.points()
    for name in ("points", "weights", "counts", "offsets", "distortion"):
        np.testing.assert_array_equal(getattr(again, name), getattr(points, name))
    assert again.classes.tolist() == [0, 0, 0, 1, 1]
    assert again.positions.tolist() == [0, 1, 2, 0, 1]
