"""Weights of the images' own cells in anybody's folder: by hand, matched by name, and what is refused."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from weighing import DATA, FOLDER, QUIET, Counting, content, data, flat, folder, rows, weighed, with_metadata

import ddoq
from ddoq.storage.run import Run, RunError


def test_weights_and_distances_by_hand(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    before = content(path)
    table = weighed(path)
    # ants 0 1 2 3 go to shade 2, 10 and 11 to shade 10, none to 200; zebras 100 120 to 101, 140 160 to 150
    assert [row["reencoded"] for row in rows(path)] == [4, 2, 0, 2, 2]
    assert [row["count"] for row in rows(path)] == [4, 2, 0, 2, 2]
    assert [row["weight"] for row in rows(path)] == pytest.approx([2.5 * 4 / 6, 2.5 * 2 / 6, 0, 1.25, 1.25])
    assert [row["file_name"] for row in rows(path)][3:] == ["zebra/im0.png", "zebra/im1.png"]
    assert [(row["label"], row["class_name"]) for row in rows(path)][2:4] == [(0, "ant"), (1, "zebra")]
    unit = 16**0.5 / 255  # of one shade, over 4 x 4 pixels
    squares = {
        "reencoded": [(4 + 1 + 0 + 1 + 0 + 1) / 6, (1 + 19**2 + 10**2 + 10**2) / 4],
        # two ants to each: 0 1 to 2, 2 3 to 10, 10 11 to 200
        "uniform": [(4 + 1 + 64 + 49 + 190**2 + 189**2) / 6, (1 + 19**2 + 10**2 + 10**2) / 4],
    }
    found = {row.weighting: [distance / unit for distance in row.per_class] for row in table.rows}
    assert list(found) == ["reencoded", "uniform"]
    for weighting, wanted in squares.items():
        assert found[weighting] == pytest.approx(np.sqrt(wanted).tolist(), rel=1e-2)  # float16 latents
    assert {row.set for row in table.rows} == {"given"}
    after = content(path)
    assert set(after) - set(before) == {"metadata.jsonl", "run.json"}
    assert {name: after[name] for name in before} == before


def test_data_prior(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    weighed(path, class_prior="data")
    assert [row["weight"] for row in rows(path)] == pytest.approx([2, 1, 0, 1, 1])


def test_a_weighed_folder_is_a_data_set(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    weighed(path)
    small = ddoq.load(path)
    assert (small.weighting, small.class_names) == ("reencoded", ("ant", "zebra"))
    assert small.images[:, 0, 0, 0].tolist() == [2, 10, 200, 101, 150]
    assert small.weights.tolist() == pytest.approx([2.5 * 4 / 6, 2.5 * 2 / 6, 0, 1.25, 1.25])
    assert small.mean.item() == pytest.approx(data()[0].mean() / 255)
    assert ddoq.load(path, weighting="uniform").weights.tolist() == pytest.approx([2.5 / 3] * 3 + [1.25] * 2)
    images, labels = data()
    test = (np.pad(images, ((0, 0), (2, 2), (2, 2)), mode="edge"), labels)
    options: dict[str, Any] = {"epochs": 1, "batch_size": 4, **QUIET}
    big = folder_of_size(tmp_path / "big", 8)
    ddoq.weigh(big, test, **QUIET)
    table = ddoq.evaluate(big, test, weightings=("uniform", "reencoded"), seeds=1, **options)
    assert [(row.set, row.weighting) for row in table.rows] == [("given", "uniform"), ("given", "reencoded")]
    alone = ddoq.train(ddoq.load(big), test=test, **options)
    assert table.rows[1].accuracies == (alone.accuracy,)
    # the logs are no class folder of the user's
    assert {entry.name for entry in big.iterdir() if not entry.name.startswith(".")} == {
        "ant", "zebra", "metadata.jsonl", "run.json"
    }  # fmt: skip
    assert len(ddoq.open_data(big)) == 5


def folder_of_size(path: Path, size: int) -> Path:
    for name, shades in FOLDER.items():
        (path / name).mkdir(parents=True)
        for i, shade in enumerate(shades):
            Image.fromarray(flat(shade, size)).save(path / name / f"im{i}.png")
    return path


def test_images_of_any_kind_and_size(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    Image.fromarray(flat(10, 12)).convert("RGBA").save(path / "ant" / "im1.png")
    Image.fromarray(flat(150, 9)).convert("RGB").save(path / "zebra" / "im1.png")
    weighed(path, image_size=4)
    small = ddoq.load(path)
    assert tuple(small.images.shape) == (5, 1, 4, 4)
    assert small.images[:, 0, 0, 0].tolist() == [2, 10, 200, 101, 150]
    assert small.reencoded is not None
    assert small.reencoded.tolist() == [4, 2, 0, 2, 2]


def test_the_second_call_computes_nothing_and_other_arguments_weigh_anew(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    first = weighed(path)
    before = content(path)
    assert weighed(path, codec=Counting()) == first
    assert content(path) == before
    weighed(path, class_prior="data")
    assert rows(path)[0]["weight"] == pytest.approx(2)
    assert set(content(path)) == set(before)


@pytest.mark.parametrize("names", [{"ant": "0", "zebra": "1"}, {"ant": "00001_x", "zebra": "0"}])
def test_folders_named_by_index(tmp_path: Path, names: dict[str, str]) -> None:
    # a folder's number is the class's position in the data, whatever the folders' sorted order
    classes = FOLDER if names["ant"] == "0" else {"ant": FOLDER["zebra"], "zebra": FOLDER["ant"]}
    path = folder(tmp_path / "images", classes, names)
    with pytest.raises(ValueError, match="by-index"):
        weighed(path)
    weighed(path, by_index=True)
    found = {row["class_name"]: row["label"] for row in rows(path)}
    assert found == {"ant": 0, "zebra": 1}
    assert ddoq.load(path).class_names == ("ant", "zebra")
    of_ants = [row["reencoded"] for row in rows(path) if row["class_name"] == "ant"]
    assert of_ants == [4, 2, 0]
    weighed(path, by_index=True)  # done: the names are known now


def test_the_order_of_the_images_is_no_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"class {i:02d}" for i in range(11)]
    many = data({name: [20 * i, 20 * i + 4] for i, name in enumerate(names)})
    folders = {name: str(i) for i, name in enumerate(names)}  # "10" comes before "2", and metadata.jsonl has it last
    path = folder(tmp_path / "images", {name: [20 * i] for i, name in enumerate(names)}, folders)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "record", stops_at("weigh", Run.record))
        with pytest.raises(KeyboardInterrupt):
            ddoq.weigh(path, many, by_index=True, **QUIET)
    first = ddoq.weigh(path, many, by_index=True, **QUIET)  # resumes
    assert [row["file_name"] for row in rows(path)] == [f"{i}/im0.png" for i in range(11)]
    again = Counting()
    assert ddoq.weigh(path, many, by_index=True, codec=again, **QUIET) == first
    assert again.images == 0


def stops_at(stage: str, record: Any) -> Any:
    def recorded(run: Run, name: str, *arguments: Any, **more: Any) -> None:
        if name == stage:
            raise KeyboardInterrupt
        record(run, name, *arguments, **more)

    return recorded


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    images, labels = data()
    numbers = [1 if name == "ant" else 0 for name in labels]  # the data's own order is the other one
    ddoq.weigh(path, (images, numbers), class_names=("zebra", "ant"), **QUIET)
    assert [row["reencoded"] for row in rows(path)] == [4, 2, 0, 2, 2]
    assert ddoq.load(path).class_names == ("ant", "zebra")


def test_ddoqs_own_images_elsewhere(tmp_path: Path) -> None:
    images, labels = data()
    ddoq.distill((images, labels), tmp_path / "run", ipc=2, codec="identity", synthesis="decode", **QUIET)
    with pytest.raises(RunError, match="belongs to the run"):
        ddoq.weigh(tmp_path / "run" / "images", (images, labels), **QUIET)
    (tmp_path / "link").symlink_to(tmp_path / "run" / "images")
    with pytest.raises(RunError, match="belongs to the run"):
        ddoq.weigh(tmp_path / "link", (images, labels), **QUIET)
    path = tmp_path / "copy"
    shutil.copytree(tmp_path / "run" / "images", path)
    table = ddoq.weigh(path, (images, labels), **QUIET)
    assert [row.weighting for row in table.rows] == ["reencoded", "original", "uniform"]
    run = ddoq.weigh(tmp_path / "run", **QUIET)
    same = {row.weighting: row.per_class for row in run.rows if row.set == "decode"}
    assert table.rows[0].per_class == pytest.approx(same["reencoded"])
    assert table.rows[1].per_class == pytest.approx(same["density"])
    assert table.rows[2].per_class == pytest.approx(same["uniform"])


def test_a_run_above_that_is_damaged_may_own_the_images(tmp_path: Path) -> None:
    images, labels = data()
    ddoq.distill((images, labels), tmp_path / "run", ipc=2, codec="identity", synthesis="decode", **QUIET)
    manifest = tmp_path / "run" / "run.json"
    manifest.write_bytes(manifest.read_bytes()[:-9])
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        ddoq.weigh(tmp_path / "run" / "images", (images, labels), **QUIET)
    manifest.write_text("{}")  # another program's
    ddoq.weigh(tmp_path / "run" / "images", (images, labels), **QUIET)


def test_what_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    with pytest.raises(ValueError, match=r"give data \(--data\), the full data set"):
        ddoq.weigh(path, **QUIET)
    with pytest.raises(ValueError, match="lacks 'ant' and has 'bee' beside"):
        ddoq.weigh(path, data({"bee": [1, 2], "zebra": [3, 4]}), **QUIET)
    with pytest.raises(ValueError, match="class_prior 'fair'"):
        weighed(path, class_prior="fair")
    with pytest.raises(ValueError, match="codec 'fit' is not for weigh"):
        weighed(path, codec="fit")
    with pytest.raises(ValueError, match="not one for each of the data's 3 classes"):
        ddoq.weigh(path, data({**DATA, "bee": [1]}), by_index=True, **QUIET)
    for name in ("metadata.csv", "metadata.parquet"):
        (path / name).write_text("")
        with pytest.raises(RunError, match=name):
            weighed(path)
        (path / name).unlink()
    (path / "metadata.jsonl").write_text("{'a'}\n")
    with pytest.raises(RunError, match="not a file of one JSON object a line"):
        weighed(path)
    (path / "metadata.jsonl").unlink()
    (path / "run.json").write_text("{}")
    with pytest.raises(RunError, match="another program's"):
        weighed(path)
    assert (path / "run.json").read_text() == "{}"


def test_what_is_refused_is_refused_before_anything_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "images")
    with_metadata(path)
    (path / "metadata.original.jsonl").write_text("{}")
    codec = Counting()
    with pytest.raises(RunError, match="move one away"):
        weighed(path, codec=codec)
    (path / "metadata.original.jsonl").unlink()
    (path / "metadata.jsonl").write_text("[")
    with pytest.raises(RunError, match="not a file of one JSON object a line"):
        weighed(path, codec=codec)
    (path / "metadata.jsonl").unlink()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ot", None)
        with pytest.raises(ImportError, match=r"weigh of a folder needs ot"):
            weighed(path, codec=codec)
    try:
        (path / "ant" / "im0.png").rename(path / "ant" / os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("this file system has names of UTF-8 alone")
    with pytest.raises(ValueError, match=r"xff\.png' has a name that is not UTF-8"):
        weighed(path, codec=codec)
    assert codec.images == 0
    assert not (path / ".ddoq").exists()


def test_changes_after_weighing_are_noticed(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    weighed(path)
    Image.fromarray(flat(99)).save(path / "ant" / "new.png")
    with pytest.raises(ValueError, match=r"new\.png is not in"):
        weighed(path)
    (path / "ant" / "new.png").unlink()
    Image.fromarray(flat(3)).save(path / "ant" / "im0.png")
    with pytest.raises(RunError, match=r"im0\.png is damaged"):
        ddoq.load(path)
    weighed(path)
    assert ddoq.load(path).images[0, 0, 0, 0] == 3
