"""Weights of the images' own cells: by hand, laws, stored once, anybody's folder with nothing of it lost."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import ddoq
from ddoq.models.codecs.codec import open_codec
from ddoq.stages import distances, weigh_folder
from ddoq.storage.run import Run, RunError

QUIET: dict[str, Any] = {"progress": False, "device": "cpu"}
DATA = {"ant": [0, 1, 2, 3, 10, 11], "zebra": [100, 120, 140, 160]}  # the shades of flat images
FOLDER = {"ant": [2, 10, 200], "zebra": [101, 150]}  # no shade of an ant is near 200


def flat(shade: int, size: int = 4) -> np.ndarray:
    return np.full((size, size), shade, np.uint8)


def data(classes: dict[str, list[int]] = DATA) -> tuple[np.ndarray, list[str]]:
    shades = [(shade, name) for name, shades in classes.items() for shade in shades]
    return np.stack([flat(shade) for shade, _ in shades]), [name for _, name in shades]


def folder(path: Path, classes: dict[str, list[int]] = FOLDER, names: dict[str, str] | None = None) -> Path:
    for name, shades in classes.items():
        (path / (names or {}).get(name, name)).mkdir(parents=True)
        for i, shade in enumerate(shades):
            Image.fromarray(flat(shade)).save(path / (names or {}).get(name, name) / f"im{i}.png")
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metadata.jsonl").read_text().splitlines()]


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def weighed(path: Path, **options: Any) -> ddoq.stages.distances.Distances:
    return ddoq.weigh(path, data(), **{**QUIET, **options})


# ---- any folder ------------------------------------------------------------------------------------------------------


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


class Counting:
    """Pixels; counts the images, and stops at a given one."""

    fingerprint = open_codec("identity").fingerprint  # type: ignore[attr-defined]

    def __init__(self, stop: int | None = None) -> None:
        self.images, self.stop = 0, stop

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        if self.stop is not None and self.images > self.stop:
            raise KeyboardInterrupt
        return images.flatten(1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


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


THEIRS = [
    {"file_name": "ant/im0.png", "caption": "an ant, ☃", "weight": 3.0, "label": "A"},
    {"file_name": "ant/im1.png", "caption": "another", "weight": 1},
    {"file_name": "ant/im2.png", "caption": "a strange one", "weight": 0.5},
    {"file_name": "zebra/im0.png", "caption": "stripes", "weight": 1},
    {"file_name": "zebra/im1.png", "caption": "more", "weight": 2},
    {"file_name": "elsewhere.png", "caption": "no class"},
]


def with_metadata(path: Path) -> bytes:
    text = "".join(json.dumps(row) + "\n" for row in THEIRS).encode()
    (path / "metadata.jsonl").write_bytes(text)
    return text


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
            patch.setattr(weigh_folder, "write_atomic", counted)
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


METADATA = ("metadata.jsonl", "metadata.original.jsonl")


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
        with pytest.raises(ImportError, match=r"weigh of a folder needs POT"):
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


# ---- a run -----------------------------------------------------------------------------------------------------------


def digits() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    return (bunch.images[:300] * 15).astype(np.uint8), bunch.target[:300]


class Moved:
    """Halves that decode to something else than their means: images are off the points."""

    fingerprint = "moved"

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) * 2

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        images = latents.reshape(-1, 1, 8, 8) / 2
        return (images.roll(1, dims=3) + images.square()).clamp(0, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weigh") / "run"
    ddoq.distill(digits(), out, ipc=5, codec=Moved(), synthesis="decode", controls=["nearest"], **QUIET)
    return out


def test_distances_of_a_run_are_those_of_w2(run: Path) -> None:
    table = ddoq.weigh(run, **QUIET)
    found = {(row.set, row.weighting): row.per_class for row in table.rows}
    assert list(found) == [
        ("points", "density"),
        ("points", "uniform"),
        ("decode", "reencoded"),
        ("decode", "density"),
        ("decode", "uniform"),
        ("nearest", "reencoded"),
        ("nearest", "density"),
        ("nearest", "uniform"),
    ]
    images, labels = digits()
    codec = Moved()
    latents = codec.encode(torch.from_numpy(images[:, None]).float() / 255).half().float().numpy()
    for name in ("decode", "nearest"):
        small = ddoq.load(run, synthesis=name)
        own = codec.encode(small.images.float() / 255).half().float().numpy()
        for c in (0, 7):
            real, points = latents[labels == c], own[small.labels.numpy() == c]
            for weighting in ("reencoded", "density", "uniform"):
                weights = small.reweighted(weighting).weights.numpy()[small.labels.numpy() == c]  # type: ignore[arg-type]
                assert found[name, weighting][c] == pytest.approx(ddoq.w2(real, points, weights), rel=1e-5)


def test_own_cells_are_the_best_weights_of_every_class(run: Path) -> None:
    table = ddoq.weigh(run, **QUIET)
    for name in ("decode", "nearest"):
        best, *others = [row.per_class for row in table.rows if row.set == name]
        for other in others:
            assert all(a <= b * (1 + 1e-9) for a, b in zip(best, other, strict=True))
    decode = {row.weighting: row.mean for row in table.rows if row.set == "decode"}
    assert decode["reencoded"] < 0.99 * decode["density"]  # the decoder has moved the points far


def test_distances_are_stored_once_and_checked(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    shutil.copytree(run, path)
    table = ddoq.weigh(path, **QUIET)
    info = Run.open(path).info("weigh:decode")
    assert info == {row.weighting: pytest.approx(row.mean) for row in table.rows if row.set == "decode"}
    monkeypatch.setattr(distances, "w2", None)
    assert ddoq.weigh(path, **QUIET) == table
    with pytest.raises(ValueError, match="leave data out"):
        ddoq.weigh(path, digits(), **QUIET)
    kept = path / "w2" / "decode.json"
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"decode\.json is damaged"):
        ddoq.weigh(path, **QUIET)
    kept.unlink()
    monkeypatch.undo()
    assert ddoq.weigh(path, **QUIET) == table
    content = bytearray((path / "images.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "images.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"images\.safetensors is damaged"):
        ddoq.weigh(path, **QUIET)


def test_weighting_reencoded_everywhere(run: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"ipc": 5, "codec": Moved(), "synthesis": "decode", **QUIET}
    made = ddoq.distill(digits(), tmp_path / "run", weighting="reencoded", **settings)
    loaded = ddoq.load(run, weighting="reencoded")
    assert torch.equal(made.weights, loaded.weights)
    assert (made.weighting, loaded.weighting) == ("reencoded", "reencoded")
    assert not torch.equal(made.weights, ddoq.load(run).weights)
    assert torch.equal(made.reweighted("density").weights, ddoq.load(run).weights)
    totals = torch.zeros(10, dtype=torch.float64).index_add(0, made.labels, made.weights)
    assert totals.tolist() == pytest.approx([5.0] * 10)
    assert made.weights.mean().item() == pytest.approx(1)
    table = ddoq.evaluate(run, digits(), weightings=("density", "reencoded"), seeds=1, epochs=1, **QUIET)
    assert [row.weighting for row in table.rows] == ["density", "reencoded"] * 2


def test_images_that_nobody_encoded_again_have_no_such_weights(run: Path) -> None:
    small = ddoq.load(run)
    small.reencoded = None
    with pytest.raises(ValueError, match=r"use ddoq\.weigh"):
        small.reweighted("reencoded")
