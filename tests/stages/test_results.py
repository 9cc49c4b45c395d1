"""What every method ends with: images written with weights and recorded, batch by batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddoq.stages.batches import Images, StoredImages, make_batches, resized
from ddoq.stages.results import Counts, Style, result_stage, write_result
from ddoq.storage.run import Run

NAMES = ["ant", "bee"]
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 3, 8, 8), np.uint8)
LABELS = np.array([0, 0, 0, 0, 1, 1, 1])
COUNTS = Counts(np.array([4, 3, 2, 1, 6, 3, 1]), np.array([1, 1, 4, 4, 5, 5, 0]))


def stored(work: Path) -> StoredImages:
    """The images in files of three."""
    return make_batches(lambda rows: PIXELS[rows], len(PIXELS), 3, work, "key", "make", False)


def write(path: Path, images: Any = PIXELS, style: Style | None = None, control: str | None = None, **more: Any) -> Run:
    with Run.locked(path, {}, NAMES) as run, run.stage(result_stage(control), {"a": 1}) as stage:
        write_result(run, stage, control, images, LABELS, COUNTS, style or Style(), **more)
    return run


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def test_stored_images_are_those_that_were_made(tmp_path: Path) -> None:
    images = stored(tmp_path)
    assert len(images) == 7
    assert len(images.paths) == 3
    assert np.array_equal(np.stack(list(images)), PIXELS)
    for chosen in ([0], [2, 3], [6, 0, 1, 5], list(range(7))):
        assert np.array_equal(images[np.array(chosen)], PIXELS[chosen])
    assert np.array_equal(images.at_size(5)[np.array([4])], resized(PIXELS[4:5], 5))
    assert images.at_size(5)[np.array([4])].shape == (1, 3, 5, 5)


def test_no_more_than_a_batch_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, read = stored(tmp_path / "work"), list[int]()
    whole = StoredImages.__getitem__

    def watched(self: StoredImages, wanted: Any) -> Images:
        read.append(len(wanted))
        return whole(self, wanted)

    monkeypatch.setattr(StoredImages, "__getitem__", watched)
    write(tmp_path / "run", images)
    assert read == [3, 3, 1]


def test_the_run_has_the_images_their_weights_and_the_stage(tmp_path: Path) -> None:
    style = Style("sqrt", "data", output_size=6, made_by="somebody", note="a trial")
    extra = {"columns": {"score": [0.5] * 7}, "info": {"steps": 3}}
    run = write(tmp_path, iter(PIXELS), style, **extra)
    listed = rows(tmp_path / "images")
    assert [row["count"] for row in listed] == COUNTS.points.tolist()
    assert [row["reencoded"] for row in listed] == COUNTS.reencoded.tolist()  # type: ignore[union-attr]
    assert [row["score"] for row in listed] == [0.5] * 7
    weights = np.array([row["weight"] for row in listed])
    assert weights.mean() == pytest.approx(1)
    assert weights[0] / weights[3] == pytest.approx(2)  # square roots of 4 and 1
    assert [np.asarray(Image.open(tmp_path / "images" / row["file_name"])).shape for row in listed] == [(6, 6, 3)] * 7
    assert run.info("synthesize") == {"steps": 3, "images": 7, "note": "a trial"}
    assert "made by somebody" in (tmp_path / "images" / "README.md").read_text()
    assert run.done("synthesize", {"a": 1})
    run.verify()


def test_a_control_has_a_folder_and_a_stage_of_its_own(tmp_path: Path) -> None:
    run = write(tmp_path, control="mine", style=Style("reencoded"))
    assert set(run.manifest["stages"]) == {"synthesize:mine"}
    assert [row["weight"] for row in rows(tmp_path / "controls" / "mine")][-1] == 0


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "controls" / ".mine.123.tmp" / "0000_ant").mkdir(parents=True)
    write(tmp_path, control="mine")
    assert sorted(path.name for path in (tmp_path / "controls").iterdir()) == ["mine"]


def test_nothing_is_there_where_the_images_fail(tmp_path: Path) -> None:
    def failing() -> Iterator[Images]:
        yield PIXELS[0]
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write(tmp_path, failing())
    assert not (tmp_path / "images").exists()
    with pytest.raises(ValueError, match="1 images but 7 labels"):
        write(tmp_path, PIXELS[:1])
    assert Run.open(tmp_path).manifest["stages"] == {}
