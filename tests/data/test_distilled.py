"""The distilled data set: weights, images on disk, and the way back through every loader."""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ddoq.data.distilled import DistilledDataset, load, write_images
from ddoq.data.image_data import open_data
from ddoq.data.weights import class_weights
from ddoq.models.codecs.identity import IdentityCodec
from ddoq.stages.encode import encode
from ddoq.storage.run import Run, RunError

# "train", "test tube" and "val" are what the Hugging Face loader takes for splits
AWKWARD = [
    "10", "2", "1", "Übung", "猫", "two words", "AC/DC", "train", "test tube", "val", "..", ".hidden", "a\\b",
    "tab\tnew\nline", "[x]*?", "a::b", "100%", "#1", 'quo"te', "'", "null", "a: b", "- x", "x" * 300, " lead", "trail ",
    "emoji 😀", "nel\x85ls\u2028", "~", "true", "0", "00", "é", "e\u0301",
]  # fmt: skip


def pictures(n_classes: int, per_class: int, channels: int = 3) -> np.ndarray:
    """Images that say their class: pixel (0, 0) is the class, pixel (0, 1) the number within it."""
    images = np.zeros((n_classes, per_class, channels, 8, 8), np.uint8)
    images[..., 0, 0] = np.arange(n_classes)[:, None, None]
    images[..., 0, 1] = np.arange(per_class)[:, None]
    images[:, :, 0, 7, 7] = 200
    return images.reshape(-1, channels, 8, 8)


def written(folder: Path, names: list[str], per_class: int = 2, channels: int = 3) -> Path:
    n = len(names) * per_class
    labels = np.repeat(np.arange(len(names)), per_class)
    extra = [{"source": i} for i in range(n)]
    weights, counts = np.linspace(0.5, 1.5, n), np.arange(1, n + 1)
    write_images(folder, pictures(len(names), per_class, channels), labels, weights, counts, names, extra)
    return folder


def made(path: Path, names: list[str], *, per_class: int = 3, channels: int = 3, control: str | None = None) -> Path:
    """A finished run, without the stages between."""
    n = len(names) * per_class
    images = pictures(len(names), per_class, channels)
    labels = np.repeat(np.arange(len(names)), per_class)
    counts = np.arange(1, n + 1)
    offsets = np.arange(len(names) + 1) * per_class
    config = {"synthesis": "decode", "weighting": "density", "class_prior": "balanced"}
    with Run.locked(path, config, names) as run:
        source = open_data((images.transpose(0, 2, 3, 1), labels), class_names=names, channels=channels)
        encode(run, source, IdentityCodec(), device="cpu", progress=False)
        stages = {"synthesize": ("images", images)}
        if control is not None:
            stages[f"synthesize:{control}"] = (f"controls/{control}", 255 - images)
        for stage, (folder, pixels) in stages.items():
            weights = class_weights(counts, offsets, "density")
            outputs = write_images(run.path / folder, pixels, labels, weights, counts, names, [{}] * n)
            run.record(stage, {}, outputs, seconds=0, info={})
    return path


# ---- weights ---------------------------------------------------------------------------------------------------------

COUNTS, OFFSETS = np.array([9, 1, 20, 15, 5, 50]), np.array([0, 2, 5, 6])  # classes of 10, 40 and 50 images


@pytest.mark.parametrize(
    ("weighting", "prior", "wanted"),
    [
        ("density", "balanced", [1.8, 0.2, 1, 0.75, 0.25, 2]),
        ("density", "data", [0.54, 0.06, 1.2, 0.9, 0.3, 3]),
        ("uniform", "balanced", [1, 1, 2 / 3, 2 / 3, 2 / 3, 2]),
        ("uniform", "data", [0.3, 0.3, 0.8, 0.8, 0.8, 3]),
        ("sqrt", "balanced", [1.5, 0.5, 0.8556, 0.7410, 0.4278, 2]),
    ],
)
def test_weights_by_hand(weighting: str, prior: str, wanted: list[float]) -> None:
    weights = class_weights(COUNTS, OFFSETS, weighting, prior)
    np.testing.assert_allclose(weights, wanted, atol=2e-2 if weighting == "sqrt" else 1e-12)
    assert weights.dtype == np.float64


@pytest.mark.parametrize("weighting", ["density", "sqrt", "uniform"])
def test_laws_of_weights(weighting: str) -> None:
    balanced = class_weights(COUNTS, OFFSETS, weighting, "balanced")
    data = class_weights(COUNTS, OFFSETS, weighting, "data")
    assert balanced.mean() == pytest.approx(1)
    assert data.mean() == pytest.approx(1)
    np.testing.assert_allclose(np.add.reduceat(balanced, OFFSETS[:-1]), 2)
    np.testing.assert_allclose(np.add.reduceat(data, OFFSETS[:-1]), 6 * np.array([10, 40, 50]) / 100)
    power = {"density": 1, "sqrt": 0.5, "uniform": 0}[weighting]
    assert balanced[0] / balanced[1] == pytest.approx(9**power)
    assert data[2] / data[4] == pytest.approx(4**power)


def test_density_of_equal_classes_is_share_times_ipc() -> None:
    counts = np.array([3, 7, 4, 6])
    np.testing.assert_allclose(class_weights(counts, np.array([0, 2, 4]), "density"), counts / 10 * 2)


def test_an_empty_cell_weighs_nothing() -> None:
    assert class_weights(np.array([0, 4]), np.array([0, 2]), "density").tolist() == [0, 2]


@pytest.mark.parametrize(
    ("counts", "offsets", "weighting", "prior", "message"),
    [
        ([1, 1], [0, 2], "cubic", "balanced", "cubic"),
        ([1, 1], [0, 2], "density", "fair", "fair"),
        ([1, 1], [0, 1], "density", "balanced", "class_offsets"),
        ([1, 1], [0, 0, 2], "density", "balanced", "class_offsets"),
        ([1, 0], [0, 1, 2], "density", "balanced", r"classes \[1\]"),
        ([2, -1], [0, 2], "density", "balanced", "negative"),
    ],
)
def test_bad_weights(counts: Any, offsets: Any, weighting: str, prior: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_weights(np.array(counts), np.array(offsets), weighting, prior)


# ---- the folder ------------------------------------------------------------------------------------------------------


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


# ---- loaders ---------------------------------------------------------------------------------------------------------


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


# ---- the data set ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_load(tmp_path: Path, channels: int) -> None:
    names = ["10", "2", "1", "Übung", "猫", "two words", "AC/DC"]
    dataset = load(made(tmp_path / "run", names, channels=channels))
    assert dataset.class_names == tuple(names)
    assert dataset.images.dtype == torch.uint8
    assert torch.equal(dataset.images, torch.from_numpy(pictures(7, 3, channels)))
    assert dataset.labels.tolist() == np.repeat(range(7), 3).tolist()
    assert dataset.counts.tolist() == list(range(1, 22))
    assert dataset.weights.dtype == torch.float64
    assert dataset.weights.mean().item() == pytest.approx(1)
    assert dataset.manifest["class_names"] == names
    pixels = dataset.images.double() / 255
    assert dataset.mean.tolist() == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert dataset.std.tolist() == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())
    image, target, weight = dataset[20]
    assert (image.dtype, image.shape) == (torch.float32, (channels, 8, 8))
    assert torch.equal(image, dataset.images[20] / 255)
    assert (target, type(target)) == (6, int)
    assert (weight, type(weight)) == (dataset.weights[20].item(), float)


def test_repr_tells_size_classes_and_weights(tmp_path: Path) -> None:
    dataset = load(made(tmp_path / "run", ["a", "b"], per_class=2), weighting="uniform")
    assert repr(dataset) == "DistilledDataset(4 images 3x8x8, 2 classes, uniform weights 1 to 1)"


def test_reweighting(tmp_path: Path) -> None:
    path = made(tmp_path / "run", ["a", "b"])
    dataset = load(path)
    offsets = np.array([0, 3, 6])
    for weighting in ("density", "sqrt", "uniform"):
        for prior in ("balanced", "data"):
            wanted = class_weights(np.arange(1, 7), offsets, weighting, prior)
            assert np.array_equal(load(path, weighting=weighting, class_prior=prior).weights, wanted)
            again = dataset.reweighted(weighting, prior)
            assert np.array_equal(again.weights, wanted)
            assert (again.weighting, again.class_prior) == (weighting, prior)
    assert np.array_equal(
        load(path, class_prior="data").weights, class_weights(np.arange(1, 7), offsets, "density", "data")
    )
    assert torch.equal(dataset.reweighted("uniform").reweighted("density").weights, dataset.weights)
    with pytest.raises(ValueError, match="heavy"):
        dataset.reweighted("heavy")  # type: ignore[arg-type]


def test_controls(tmp_path: Path) -> None:
    path = made(tmp_path / "run", ["a", "b"], control="nearest")
    main = load(path)
    assert torch.equal(load(path, synthesis="decode").images, main.images)
    assert torch.equal(load(path, synthesis="nearest").images, 255 - main.images)
    with pytest.raises(RunError, match=r"'diffuse', only \['decode', 'nearest'\]"):
        load(path, synthesis="diffuse")


def test_folders_that_are_no_run_and_what_to_do_with_them(tmp_path: Path) -> None:
    path = made(tmp_path / "run", ["a", "b"], control="nearest")
    with pytest.raises(RunError, match=f"images is a part of the run {path}: give {path}$"):
        load(path / "images")
    with pytest.raises(RunError, match=f"give {path} with synthesis='nearest'"):
        load(path / "controls" / "nearest")
    (tmp_path / "theirs" / "cat").mkdir(parents=True)
    with pytest.raises(RunError, match=f"no weights yet: ddoq weigh {tmp_path / 'theirs'} --data DATA"):
        load(tmp_path / "theirs")
    with pytest.raises(RunError, match=r"absent is not a run folder: .*; make one with ddoq distill$"):
        load(tmp_path / "absent")


@pytest.mark.parametrize("name", ["images/metadata.jsonl", "images/README.md", "images/0001_b/00002.png", "run.json"])
def test_damage_is_named(tmp_path: Path, name: str) -> None:
    path = made(tmp_path / "run", ["a", "b"])
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 0x10
    (path / name).write_bytes(content)
    with pytest.raises(RunError, match=Path(name).name.replace(".", r"\.")):
        load(path)


def test_unfinished_run(tmp_path: Path) -> None:
    with Run.locked(tmp_path / "run", {"synthesis": "decode"}, ["a"]):
        pass
    with pytest.raises(RunError, match="finish it"):
        load(tmp_path / "run")


def test_loader_with_workers_and_pickle(tmp_path: Path) -> None:
    dataset = load(made(tmp_path / "run", ["a", "b"]))
    images, targets, weights = [], [], []
    for image, target, weight in DataLoader(dataset, batch_size=4, num_workers=2):
        images.append(image)
        targets.append(target)
        weights.append(weight)
    assert torch.equal(torch.cat(images), dataset.images / 255)
    assert torch.equal(torch.cat(targets), dataset.labels)
    assert torch.equal(torch.cat(weights), dataset.weights)
    copy: DistilledDataset = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.images, dataset.images)
    assert repr(copy) == repr(dataset)


def test_sampler_draws_by_weight_and_is_reproducible() -> None:
    small = DistilledDataset(
        torch.zeros(4, 1, 8, 8, dtype=torch.uint8),
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([30, 10, 20, 20]),
        torch.tensor([1.5, 0.5, 0.0, 2.0], dtype=torch.float64),
        class_names=("a", "b"),
        mean=torch.zeros(1),
        std=torch.ones(1),
        manifest={},
        weighting="density",
        class_prior="balanced",
    )
    assert len(list(small.sampler())) == 4
    sampler = small.sampler(num_samples=8000, seed=3)
    first, second = list(sampler), list(sampler)
    assert first == list(small.sampler(num_samples=8000, seed=3))
    assert first != second
    shares = torch.bincount(torch.tensor(first), minlength=4) / 2000
    torch.testing.assert_close(shares, small.weights.float(), rtol=0, atol=0.08)
    batch = next(iter(torch.utils.data.DataLoader(small, batch_size=3, sampler=small.sampler())))
    assert batch[0].shape == (3, 1, 8, 8)
