"""The gradient's error: by hand, its laws, the log, and along a training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_evaluate import digits, run_of
from torch import nn

import ddoq
from ddoq.evaluation.gradients import Agreement, gradient_agreement, gradient_error
from ddoq.training.training_set import TrainingSet

QUICK = {"progress": False, "device": "cpu"}


def pixels(values: list[float], labels: list[int], weights: list[float] | None = None) -> TrainingSet:
    """Images of one pixel; the statistics are such that the network sees the values themselves."""
    images = torch.tensor(values, dtype=torch.uint8)[:, None, None, None]
    own = torch.ones(len(values)) if weights is None else torch.tensor(weights)
    return TrainingSet(images, torch.tensor(labels), own, ("a", "b"), torch.zeros(1), torch.full((1,), 1 / 255))


def linear() -> nn.Module:
    """Two logits, both 0 for every image: the gradient of an image x of class 0 is (-x/2, x/2)."""
    layer = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(layer.weight)
    return nn.Sequential(nn.Flatten(), layer)


def test_error_by_hand() -> None:
    full = pixels([2, 2, 2, 8], [0, 0, 0, 0])  # mean 3.5
    small = pixels([2, 8], [0, 0])  # 5 with equal weights, 3.5 with the masses
    found = gradient_error(linear(), small, full, {"uniform": torch.ones(2), "density": torch.tensor([1.5, 0.5])})
    assert found["uniform"] == pytest.approx(1.5 / 3.5)
    assert found["density"] == pytest.approx(0, abs=1e-7)
    none = gradient_error(linear(), small, full, {"none": torch.tensor([1e-30, 0.0])})
    assert none["none"] == pytest.approx(1.5 / 3.5)  # the mean has no scale


def test_the_set_itself_has_no_error_and_the_scale_of_weights_is_none() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    data = pixels([1, 5, 9, 30], [0, 1, 1, 0], [0.5, 1.5, 1.0, 1.0])
    statistics = [buffer.clone() for buffer in model.buffers()]
    found = gradient_error(model, data, data, {"same": data.weights, "twice": 2 * data.weights, "other": torch.ones(4)})
    assert found["same"] == 0
    assert found["twice"] == pytest.approx(0, abs=1e-6)
    assert found["other"] > 0.01
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(statistics, model.buffers(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_along_a_training_with_its_log(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    options = {"epochs": 4, "every": 3, "batch_size": 2, **QUICK}
    found = gradient_agreement(run, digits(), **options)
    assert found.epochs == (0, 3, 4)
    assert set(found.errors) == {"uniform", "density"}
    assert all(0 < value < 3 for values in found.errors.values() for value in values)
    log = run / "train" / "agreement-decode-6-convnet3-seed0.jsonl"
    before = log.read_bytes()
    assert gradient_agreement(run, digits(), **options) == found  # read
    marked = before.replace(b'"epoch": 3, "uniform": ', b'"epoch": 3, "uniform": 1')
    log.write_bytes(marked)
    assert gradient_agreement(run, digits(), **options) != found
    log.write_bytes(before[:-30])
    assert gradient_agreement(run, digits(), **options) == found  # made again, to the bit
    assert log.read_bytes() == before
    assert json.loads(before.splitlines()[0])["settings"]["epochs"] == 4
    assert gradient_agreement(run, digits(), **{**options, "seed": 1}) != found


def test_classes_count_as_in_the_set_and_are_matched_by_name() -> None:
    from ddoq.evaluation.gradients import _full

    images, labels = digits()
    names = np.array(["c", "b", "a"])[labels]
    many = ddoq.open_data((images[:50], names[:50]))
    like = TrainingSet(
        torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1, 2]), torch.tensor([1.0, 1.0, 0.5, 1.5]),
        ("c", "b", "a"), torch.zeros(1), torch.ones(1),
    )  # fmt: skip
    full = _full(many, like, 10, 0)
    assert full.labels.bincount().tolist() == [10, 10, 10]
    for label, total in enumerate([2.0, 0.5, 1.5]):
        assert float(full.weights[full.labels == label].sum()) == pytest.approx(total)
    label_of = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert [label_of[image.numpy().tobytes()] for image in full.images[:, 0]] == full.labels.tolist()


def test_option_of_evaluate(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    options = {"seeds": 1, "epochs": 2, "gradients": 1, **QUICK}
    table = ddoq.evaluate(run, digits(True), data=digits(), **options)
    how = "batches of 256, learning rate 0.01"
    assert table.notes[0].startswith(
        f"decode, convnet3, 6 images, {how}: gradient error over epochs 0 to 2: uniform 0."
    )
    assert (run / "train" / "agreement-decode-6-convnet3-seed0.jsonl").exists()
    with pytest.raises(ValueError, match="needs data"):
        ddoq.evaluate(run, digits(True), **options)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        gradient_agreement("nowhere", None, every=0)
    assert str(Agreement((0,), {"sqrt": (0.25,)})) == "gradient error over epochs 0 to 0: sqrt 0.250"
