"""The distilled data set, read back from a run folder: what it holds, its weights, and damage that is named."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import pictures
from torch.utils.data import DataLoader

from ddoq.data.distilled import DistilledDataset, load
from ddoq.data.image_data import open_data
from ddoq.data.weights import class_weights
from ddoq.stages.data import record_data
from ddoq.storage.image_folder import write_images
from ddoq.storage.run import Run, RunError


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
        record_data(run, source, progress=False)
        stages = {"synthesize": ("images", images)}
        if control is not None:
            stages[f"synthesize:{control}"] = (f"controls/{control}", 255 - images)
        for stage, (folder, pixels) in stages.items():
            weights = class_weights(counts, offsets, "density")
            outputs = write_images(run.path / folder, pixels, labels, weights, counts, names, [{}] * n)
            run.record(stage, {}, outputs, seconds=0, info={})
    return path


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


def test_a_data_set_is_not_changed_but_replaced(tmp_path: Path) -> None:
    dataset = load(made(tmp_path / "run", ["a", "b"]))
    before = dataset.weights.clone()
    dataset.reweighted("uniform")
    assert torch.equal(dataset.weights, before)
    with pytest.raises(FrozenInstanceError):
        dataset.weights = before  # type: ignore[misc]


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
