"""Weighing anybody's folder loses nothing of it, and goes on after a stop between any two writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from weighing import FOLDER, QUIET, THEIRS, Counting, content, data, flat, folder, rows, weighed, with_metadata

import ddoq
from ddoq.stages import user_metadata, weigh_folder
from ddoq.storage.run import Run, RunError

METADATA = ("metadata.jsonl", "metadata.original.jsonl")


def test_resumes_at_the_shard(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (1300, 4, 4), np.uint8)
    many = images, ["ant", "zebra"] * 650
    path, other = folder(tmp_path / "a"), folder(tmp_path / "b")
    stopped, resumed = Counting(stop=1024), Counting()
    with pytest.raises(KeyboardInterrupt):
        ddoq.weigh(path, many, codec=stopped, **QUIET)
    with pytest.raises(RunError, match=r"\.ddoq is of a weighing with other arguments"):
        ddoq.weigh(path, many, codec=Counting(), class_prior="data", **QUIET)
    assert not (path / "metadata.jsonl").exists()
    ddoq.weigh(path, many, codec=resumed, **QUIET)
    assert resumed.images == 1300 - 1024 + 5
    ddoq.weigh(other, many, codec=Counting(), **QUIET)
    assert rows(path) == rows(other)
    assert not (path / ".ddoq").exists()


def test_the_users_metadata_are_kept(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    text = with_metadata(path)
    table = weighed(path)
    assert (path / "metadata.original.jsonl").read_bytes() == text
    assert [row["caption"] for row in rows(path)] == [row["caption"] for row in THEIRS[:5]]
    assert [row["weight"] for row in rows(path)] == ddoq.load(path).weights.tolist()
    assert [row.weighting for row in table.rows] == ["reencoded", "original", "uniform"]
    best, given, _ = table.rows
    assert all(a <= b for a, b in zip(best.per_class, given.per_class, strict=True))
    images, _ = data()
    ants = images[:6].reshape(6, -1) / 255
    own = np.stack([flat(shade).ravel() for shade in FOLDER["ant"]]) / 255
    assert given.per_class[0] == pytest.approx(ddoq.w2(ants, own, [3, 1, 0.5]), rel=1e-3)
    # weighed again otherwise: still theirs, not ours, is the given one
    again = weighed(path, class_prior="data")
    assert again.rows[1].per_class == given.per_class
    assert (path / "metadata.original.jsonl").read_bytes() == text
    # a file changed since is not overwritten, one put back is as good as new
    (path / "metadata.jsonl").write_bytes(text)
    assert weighed(path) == table
    (path / "metadata.jsonl").write_bytes(text[:-1])
    with pytest.raises(RunError, match="changed after it was weighed"):
        weighed(path, class_prior="data")


def test_captions_with_other_line_breaks(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    caption = "one\u2028two\u2029three\x85four"  # and half of a pair, which JSON can hold and UTF-8 cannot
    theirs = [{"file_name": row["file_name"], "caption": caption} for row in THEIRS]
    lines = [json.dumps(row, ensure_ascii=False)[:-2] + '\\ud800"}\n' for row in theirs]
    (path / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    weighed(path)
    written = (path / "metadata.jsonl").read_text(encoding="utf-8").splitlines()  # loaders may cut there
    assert [json.loads(line)["caption"] for line in written] == [caption + "\ud800"] * 5


@pytest.mark.filterwarnings("ignore")  # third-party loaders
def test_hugging_face_reads_the_weights(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = folder(tmp_path / "images")
    with_metadata(path)
    weighed(path)
    found = datasets.load_dataset("imagefolder", data_dir=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert found["weight"][:] == ddoq.load(path).weights.tolist()
    assert found["caption"][2] == "a strange one"
    assert [np.asarray(image)[0, 0] for image in found["image"][:]] == [2, 10, 200, 101, 150]


@pytest.mark.parametrize("theirs", [True, False])
def test_stopped_between_any_two_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: bool) -> None:
    whole = folder(tmp_path / "whole")
    text = with_metadata(whole) if theirs else b""
    wanted = weighed(whole)
    write, record = weigh_folder.write_atomic, Run.record
    for stop in range(3 + theirs):
        path = folder(tmp_path / str(stop))
        if theirs:
            with_metadata(path)
        left = [stop]

        def counted(*arguments: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            write(*arguments)

        def recorded(run: Run, stage: str, *arguments: Any, left: list[int] = left, **more: Any) -> None:
            if stage == "weigh" and left[0] < 1:
                raise KeyboardInterrupt
            record(run, stage, *arguments, **more)

        with monkeypatch.context() as patch:
            for module in (weigh_folder, user_metadata):
                patch.setattr(module, "write_atomic", counted)
            patch.setattr(Run, "record", recorded)
            with pytest.raises(KeyboardInterrupt):
                weighed(path)
        if theirs:  # whole, in one of two places
            assert text in [(path / name).read_bytes() for name in METADATA if (path / name).exists()]
        with pytest.raises(RunError):
            ddoq.load(path)
        assert weighed(path) == wanted
        different = {name for name, data in content(path).items() if content(whole)[name] != data}
        assert different <= {"run.json"}  # it holds times
        assert set(content(path)) == set(content(whole))


@pytest.mark.parametrize("removed", range(3))  # of the latents, then what else is in the folder
def test_stopped_before_the_latents_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: int) -> None:
    path = folder(tmp_path / "images")
    remove, left = shutil.rmtree, [removed]

    def counted(place: Path, **options: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        remove(place, **options)

    def halfway(place: Path, **options: Any) -> None:
        if place.name == ".ddoq":
            (place / "run.json").unlink()
            raise KeyboardInterrupt
        remove(place, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", counted if removed < 2 else halfway)
        with pytest.raises(KeyboardInterrupt):
            weighed(path)
    assert (path / ".ddoq").exists()
    assert len(ddoq.load(path)) == 5
    again = Counting()
    weighed(path, codec=again)
    assert again.images == 0
    assert not (path / ".ddoq").exists()


def test_the_latents_of_another_weighing_are_left(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    table = weighed(path)
    with pytest.raises(KeyboardInterrupt):
        weighed(path, class_prior="data", codec=Counting(stop=0))
    assert weighed(path) == table
    assert (path / ".ddoq").exists()


def test_metadata_that_are_gone_are_made_again(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    table = weighed(path)
    wanted = (path / "metadata.jsonl").read_bytes()
    (path / "metadata.jsonl").unlink()
    assert weighed(path) == table
    assert (path / "metadata.jsonl").read_bytes() == wanted
    assert len(ddoq.load(path)) == 5
