"""The steps of a training: weights under mixes, soft labels, parts, optimisers, precision, protocols."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train import CPU, run, state, stripes
from torch import nn

import ddoq
from ddoq.training.loop import StudentSteps
from ddoq.training.protocols import PROTOCOLS, ProtocolName
from ddoq.training.recipe import Recipe
from ddoq.training.targets import Online
from ddoq.training.teacher import open_teacher
from ddoq.training.training_set import TrainingSet, open_test
from ddoq.training.views import View, Views


class Flat(nn.Module):
    """A linear student, whose gradient is easy to write down; it counts the images of each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)
        self.passes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes.append(len(images))
        logits: torch.Tensor = self.linear(images.flatten(1))
        return logits


def descent(recipe: Recipe, data: TrainingSet, student: nn.Module | None = None) -> StudentSteps:
    torch.manual_seed(0)
    return StudentSteps(student or Flat(), recipe, data, 0, CPU)


@pytest.mark.parametrize(("mix_weights", "mixed"), [("mixed", True), ("base", False)])
def test_weights_of_mixed_images_by_hand(mix_weights: str, mixed: bool) -> None:
    """Each label by its share of the pixels, all by the mixed image's weight, divided by the number of images."""
    data = replace(stripes(), weights=torch.linspace(0.1, 2, 12))
    recipe = Recipe(epochs=1, mix="cutmix", mix_weights=mix_weights, lr=0.0)  # type: ignore[arg-type]
    training = descent(recipe, data)
    view = Views(data, recipe, CPU)(0, torch.arange(12))
    assert view.share is not None
    assert view.partner is not None
    logits = training.model((view.images - 0.2) / 0.2)
    own, other = (
        nn.functional.cross_entropy(logits, data.labels[rows], reduction="none") for rows in (view.index, view.partner)
    )
    weights = data.weights
    if mixed:
        weights = view.share * weights + (1 - view.share) * data.weights[view.partner]
    wanted = (weights * (view.share * own + (1 - view.share) * other)).sum() / 12
    training.run(progress=False)
    assert training.losses[0] == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize(("mix_weights", "kept"), [("mixed", 2 / 3), ("base", 1 / 2)])
def test_what_an_image_keeps_of_its_weight_under_cutmix(mix_weights: str, kept: float) -> None:
    """Two images, each the other's partner, the first alone with a weight, over shares uniform in [0, 1].

    It is mixed with the share s of its own pixels, and the other with the share 1 - s of them: on its own label fall
    s w + (1 - s) w', the weights of the two mixed images. Mixed, w = s and w' = 1 - s: E[s^2 + (1 - s)^2] = 2/3. Base,
    w = 1 and w' = 0: E[s] = 1/2. The rest falls on the other's label.
    """
    data = replace(stripes(2, classes=2), weights=torch.tensor([1.0, 0.0]))
    n = 1000
    share = (torch.arange(n) + 0.5) / n
    first, second = torch.zeros(n, dtype=torch.int64), torch.ones(n, dtype=torch.int64)
    views = [
        View(0, data.images[first], first, second, share),
        View(0, data.images[second], second, first, share),
    ]
    for label, wanted in ((0, kept), (1, 1 - kept)):
        student = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        nn.init.zeros_(student[1].weight)
        student[1].bias.data = torch.tensor([50.0, 50.0])
        student[1].bias.data[label] = 0.0  # the loss of this label is 50, that of the other 0
        training = descent(Recipe(mix="cutmix", mix_weights=mix_weights), data, student)  # type: ignore[arg-type]
        found = sum(training._loss(view).item() for view in views) / 50
        assert found == pytest.approx(wanted, abs=1e-5)


def test_soft_labels_are_weighted_alike() -> None:
    """KL at the temperature, without its square."""
    data = replace(stripes(), weights=torch.linspace(0.1, 2, 12))
    recipe = Recipe(epochs=1, lr=0.0, temperature=4.0)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    targets = Online(open_teacher(teacher, data, CPU), recipe, data.images, CPU)
    training = descent(recipe, data)
    training = StudentSteps(training.model, recipe, data, 0, CPU, targets)
    images = data.images.float() / 255
    student = training.model((images - 0.2) / 0.2)
    with torch.no_grad():
        p = (teacher(images) / 4).softmax(1)
        wanted = (data.weights * (p * (p.log() - (student / 4).log_softmax(1))).sum(1)).sum() / 12
    training.run(progress=False)
    assert training.losses[0] == pytest.approx(wanted.item(), rel=1e-3, abs=1e-6)


def test_accumulation_is_the_step_of_the_whole_batch() -> None:
    whole, parts = (descent(Recipe(epochs=3, batch_size=10, accumulate=n, lr=0.1), stripes()) for n in (1, 4))
    whole.run(progress=False)
    parts.run(progress=False)
    assert parts.model.passes == [3, 3, 3, 1, 1, 1] * 3  # type: ignore[union-attr,operator]
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    for one, other in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_parts_of_batch_statistics_have_two_images() -> None:
    student = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))
    sizes: list[int] = []
    student[1].register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    descent(Recipe(epochs=1, batch_size=5, accumulate=4), stripes(11), student).run(progress=False)
    assert sizes == [2, 3, 2, 2, 2]  # 5 and 6 images: the last alone joins those before


@pytest.mark.parametrize(("optimizer", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_optimisers(optimizer: str, kind: str) -> None:
    recipe = Recipe(optimizer=optimizer, lr=0.1, momentum=0.8, weight_decay=0.3, decay_1d=False)  # type: ignore[arg-type]
    training = descent(recipe, stripes())
    assert type(training.optimizer).__name__ == kind
    decayed, others = training.optimizer.param_groups
    assert [group["weight_decay"] for group in (decayed, others)] == [0.3, 0]
    assert [p.ndim for p in decayed["params"]] == [2]
    assert [p.ndim for p in others["params"]] == [1]
    assert (decayed["momentum"] if kind == "SGD" else decayed["betas"][0]) == 0.8


@pytest.mark.parametrize("settings", [{"precision": "bfloat16"}, {"channels_last": True}])
def test_mixed_precision_and_channels_last_train_alike(settings: dict[str, object]) -> None:
    data = stripes()
    plain, other = run(data, epochs=3), run(data, epochs=3, **settings)
    assert other.losses == pytest.approx(plain.losses, rel=0.05)
    assert all(p.dtype == torch.float32 for p in other.model.parameters())


def test_same_seed_same_accuracy_under_a_protocol_with_everything(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 8, 8), np.uint8)
    data = ddoq.open_data((images, ["x", "y"] * 10))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    options: dict[str, Any] = {"protocol": "rded", "teacher": teacher, "test": data, "epochs": 12, "progress": False}
    first, again = (ddoq.train(data, seed=5, device="cpu", **options) for _ in range(2))
    assert first.checks == again.checks
    assert torch.equal(state(first), state(again))
    log = tmp_path / "log.jsonl"
    ddoq.train(data, seed=5, device="cpu", log=log, **options)
    settings = json.loads(log.read_text().splitlines()[0])["settings"]
    assert "another machine" in settings["elsewhere"]
    assert settings["soft_labels"]["made"] == "online"
    assert settings["protocol"] == "rded, epochs=12"
    result = json.loads(log.read_text().splitlines()[-2])["result"]
    assert (result["accuracy"], result["best"]) == (first.accuracy, first.best)


def test_test_images_are_the_centres_of_larger_ones() -> None:
    """Resize(256), CenterCrop(224) is the centre of the image resized to 256."""
    train = stripes(size=14)
    pixels = np.random.default_rng(0).integers(0, 255, (3, 20, 20), np.uint8)
    test = open_test((pixels, ["a", "b", "c"]), train, side=Recipe(test_crop=True).test_side(14))
    assert test.images.shape == (3, 1, 14, 14)
    larger = open_test((pixels, ["a", "b", "c"]), stripes(size=16))
    assert torch.equal(test.images, larger.images[..., 1:15, 1:15])


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize(
    ("student", "settings"),
    [("resnet10t", {"precision": "bfloat16", "channels_last": True, "accumulate": 3}), ("test_vit", {"accumulate": 2})],
)
def test_timm_students_train_under_a_soft_protocol(student: str, settings: dict[str, object]) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    data = ddoq.open_data((images, ["x", "y"] * 10))
    teacher = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 2))
    options: dict[str, Any] = {"protocol": "d4m", "batch_size": 9, "epochs": 2, "device": "cpu", "progress": False}
    result = ddoq.train(data, student, teacher=teacher, test=data, settings=settings, **options)
    assert all(map(math.isfinite, result.losses))
    assert result.accuracy is not None


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "teacher"])
@pytest.mark.parametrize("size", [16, 36])
def test_every_protocol_trains_on_colour_and_grey(protocol: ProtocolName, size: int) -> None:
    random = np.random.default_rng(0)
    for channels in (1, 3):
        images = random.integers(0, 255, (20, size, size, channels), np.uint8)
        data = ddoq.open_data((images, ["x", "y"] * 10), channels=channels)
        soft = protocol in ("d4m", "rded", "rd3")
        teacher = nn.Sequential(nn.Flatten(), nn.Linear(size * size * channels, 2)) if soft else None
        result = ddoq.train(data, protocol=protocol, teacher=teacher, epochs=1, device="cpu", progress=False)
        assert math.isfinite(result.losses[0])
        assert result.recipe.protocol.endswith("epochs=1")
