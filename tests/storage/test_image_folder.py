"""The image folder: its rows, its names, and the way back through every loader."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import pictures
from PIL import Image

from ddoq.data.image_data import open_data
from ddoq.storage.image_folder import write_images

# "train", "test tube" and "val" are what the Hugging Face loader takes for splits
AWKWARD = [
    "10", "2", "1", "Übung", "猫", "two words", "AC/DC", "train", "test tube", "val", "..", ".hidden", "a\\b",
    "tab\tnew\nline", "[x]*?", "a::b", "100%", "#1", 'quo"te', "'", "null", "a: b", "- x", "x" * 300, " lead", "trail ",
    "emoji 😀", "nel\x85ls\u2028", "~", "true", "0", "00", "é", "e\u0301",
]  # fmt: skip


def written(folder: Path, names: list[str], per_class: int = 2, channels: int = 3) -> Path:
    n = len(names) * per_class
    labels = np.repeat(np.arange(len(names)), per_class)
    extra = [{"source": i} for i in range(n)]
    weights, counts = np.linspace(0.5, 1.5, n), np.arange(1, n + 1)
    write_images(folder, pictures(len(names), per_class, channels), labels, weights, counts, names, extra)
    return folder


def test_folder_and_metadata(tmp_path: Path) -> None:
    folder = written(tmp_path / "images", ["cat", "dog"], channels=1)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "0000_cat/00000.png",
        "0000_cat/00001.png",
        "0001_dog/00000.png",
        "0001_dog/00001.png",
        "README.md",
        "metadata.jsonl",
    ]
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert list(rows[3]) == ["file_name", "label", "class_name", "weight", "count", "sha256", "source"]
    assert (rows[3]["file_name"], rows[3]["label"], rows[3]["class_name"]) == ("0001_dog/00001.png", 1, "dog")
    assert (rows[3]["weight"], rows[3]["count"], rows[3]["source"]) == (1.5, 4, 3)
    with Image.open(folder / "0001_dog" / "00001.png") as image:
        assert image.mode == "L"
        assert np.asarray(image)[0, :2].tolist() == [1, 1]


def test_same_content_same_bytes(tmp_path: Path) -> None:
    one, two = (written(tmp_path / name, AWKWARD) for name in ("one", "two"))
    assert [path.read_bytes() for path in sorted(one.rglob("*.*")) if path.is_file()] == [
        path.read_bytes() for path in sorted(two.rglob("*.*")) if path.is_file()
    ]


def test_folders_sort_as_classes_beyond_ten_thousand(tmp_path: Path) -> None:
    from ddoq.storage.image_folder import folder_name

    folders = [folder_name(label, "x", 100_000) for label in range(0, 100_000, 99)]
    assert folders == sorted(folders)


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((2, 1, 8, 8))},
        {"images": np.zeros((2, 8, 8), np.uint8)},
        {"images": [np.zeros((1, 8, 8), np.uint8), np.zeros((1, 9, 9), np.uint8)]},
        {"images": np.zeros((1, 1, 8, 8), np.uint8)},
        {"images": iter(np.zeros((3, 1, 8, 8), np.uint8))},
        {"weights": [1.0]},
    ],
)
def test_bad_images(tmp_path: Path, change: dict[str, Any]) -> None:
    given: dict[str, Any] = {"images": np.zeros((2, 1, 8, 8), np.uint8), "weights": np.ones(2)} | change
    with pytest.raises(ValueError, match="images"):
        write_images(
            tmp_path / "x", given["images"], np.array([0, 1]), given["weights"], np.ones(2, int), ["a", "b"], [{}] * 2
        )
    assert not (tmp_path / "x").exists()


def check_rows(rows: Any, names: list[str], *, class_label: bool) -> None:
    """Each image says its class: label and name must agree with it."""
    seen = 0
    for row in rows:
        pixels = np.asarray(row["image"])
        assert pixels[0, 0].tolist() == [row["label"]] * 3
        assert row["class_name"] == names[row["label"]]
        seen += 1
    assert seen == 2 * len(names)
    if class_label:
        assert rows.features["label"].names == names


@pytest.mark.filterwarnings("ignore")  # third-party loaders
def test_hugging_face_folder_gives_names_and_indices(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = written(tmp_path / "images", AWKWARD)
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    check_rows(rows, AWKWARD, class_label=True)
    assert rows["weight"][:] == pytest.approx(np.linspace(0.5, 1.5, len(rows)))
    assert set(rows.column_names) == {"image", "label", "class_name", "weight", "count", "sha256", "source"}


@pytest.mark.filterwarnings("ignore")  # third-party loaders
def test_hugging_face_imagefolder_gives_names_and_indices(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = written(tmp_path / "images", AWKWARD)
    splits = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    assert list(splits) == ["train"]
    check_rows(splits["train"], AWKWARD, class_label=False)


@pytest.mark.filterwarnings("ignore")  # third-party loaders
def test_hugging_face_and_back(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = written(tmp_path / "images", AWKWARD)
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    data = open_data(rows)
    assert data.class_names == tuple(AWKWARD)
    assert np.array_equal(data.images(range(len(data))), pictures(len(AWKWARD), 2))


def check_reader(paths_and_labels: list[tuple[str, int]], folder: Path) -> None:
    """A folder reader's positions are the class indices, and the file is of that class."""
    assert len(paths_and_labels) == 2 * len(AWKWARD)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    names = {row["file_name"]: row["class_name"] for row in rows}
    for path, label in paths_and_labels:
        with Image.open(folder / path) as image:
            assert np.asarray(image)[0, 0, 0] == label
        assert names[path] == AWKWARD[label]


@pytest.mark.filterwarnings("ignore")  # third-party loaders
def test_torchvision_folder_reader(tmp_path: Path) -> None:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    from ddoq.machine.torchvision import ensure_importable

    ensure_importable()
    from torchvision.datasets import ImageFolder

    folder = written(tmp_path / "images", AWKWARD)
    reader = ImageFolder(str(folder))
    assert [int(name[:4]) for name in reader.classes] == list(range(len(AWKWARD)))
    assert reader.classes[4] == "0004_猫"
    check_reader([(str(Path(path).relative_to(folder)), label) for path, label in reader.samples], folder)
    data = open_data(reader)  # and it can be opened again
    assert np.array_equal(data.images([5]), pictures(len(AWKWARD), 2)[[5]])


@pytest.mark.filterwarnings("ignore")  # third-party loaders
def test_timm_folder_reader(tmp_path: Path) -> None:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    from ddoq.machine.torchvision import ensure_importable

    ensure_importable()
    from timm.data import ImageDataset, create_dataset

    folder = written(tmp_path / "images", AWKWARD)
    for dataset in (ImageDataset(str(folder)), create_dataset("folder", root=str(folder))):
        found = [(dataset.filename(i), dataset[i][1]) for i in range(len(dataset))]
        check_reader(found, folder)
        positions = dataset.reader.class_to_idx
        assert positions["0004_猫"] == 4
        assert {int(name[:4]): index for name, index in positions.items()} == {i: i for i in range(len(AWKWARD))}
