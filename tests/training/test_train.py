"""Training: what the loss and the protocol do, reproducibility, the log, the checkpoint, and clear errors."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

import ddoq
from ddoq.training import loop as _descent
from ddoq.training.loop import StudentSteps
from ddoq.training.recipe import Recipe
from ddoq.training.students import create_student
from ddoq.training.train import TrainResult, fit
from ddoq.training.training_set import HeldOut, TrainingSet, open_test

CPU = torch.device("cpu")


def stripes(n: int = 12, classes: int = 3, size: int = 8, seed: int = 0) -> TrainingSet:
    """A set that is easy to learn: class c has a bright row 2 c, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    images = torch.randint(0, 80, (n, 1, size, size), generator=generator, dtype=torch.uint8)
    images[torch.arange(n), 0, 2 * labels] += 150
    names = tuple("abcdefgh"[:classes])
    return TrainingSet(images, labels, torch.ones(n), names, torch.tensor([0.2]), torch.tensor([0.2]))


def held_out(data: TrainingSet) -> HeldOut:
    return HeldOut(data.images, data.labels)


def run(data: TrainingSet, test: HeldOut | None = None, log: Path | None = None, **settings: object) -> TrainResult:
    recipe = Recipe(**{"epochs": 4, **settings})  # type: ignore[arg-type]
    return fit(recipe, data, test, device=CPU, log=log, progress=False)


def state(result: TrainResult) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in result.model.state_dict().values()])


def test_learns_and_tests_the_last_epoch() -> None:
    train, test = stripes(), stripes(30, seed=1)
    result = run(train, held_out(test), epochs=8)
    assert result.accuracy is not None
    assert result.accuracy > 90
    assert len(result.losses) == 8
    assert result.losses[-1] < result.losses[0] / 2
    # the accuracy is that of the model which is returned
    images = (test.images.float() / 255 - 0.2) / 0.2
    with torch.inference_mode():
        right = (result.model(images).argmax(1) == test.labels).float().mean()
    assert result.accuracy == pytest.approx(100 * right.item())


def test_one_step_by_hand() -> None:
    """Gradient of the weighted loss divided by the batch, weight decay, learning rate."""
    data = replace(stripes(4), weights=torch.tensor([0.5, 2.0, 1.0, 0.5]))
    result = run(data, epochs=1, lr=0.1, weight_decay=0.01)
    model = run(data, epochs=1, lr=0.0).model  # the start
    model.train()
    images = (data.images.float() / 255 - 0.2) / 0.2
    losses = nn.functional.cross_entropy(model(images), data.labels, reduction="none")
    ((data.weights * losses).sum() / 4).backward()
    assert result.losses[0] == pytest.approx((data.weights * losses).mean().item(), rel=1e-5)
    for start, end in zip(model.parameters(), result.model.parameters(), strict=True):
        assert start.grad is not None
        torch.testing.assert_close(end, start - 0.1 * (start.grad + 0.01 * start), rtol=1e-4, atol=1e-6)


def test_learning_rate_falls_at_half(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    step = torch.optim.SGD.step

    def spy(self: torch.optim.SGD) -> None:
        seen.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    run(stripes(), epochs=5, batch_size=8)
    assert seen == pytest.approx([0.01] * 6 + [0.001] * 4)  # 12 images: two steps an epoch


def test_defaults_are_the_protocol() -> None:
    recipe = Recipe()
    assert (recipe.lr, recipe.momentum, recipe.weight_decay, recipe.epochs, recipe.batch_size) == (
        0.01,
        0.9,
        5e-4,
        300,
        256,
    )
    assert recipe.protocol == "dc"
    assert Recipe(epochs=100, lr=0.1).protocol == "dc, epochs=100, lr=0.1"


def test_same_seed_same_bits_and_no_global_seed_is_left() -> None:
    data = stripes()
    before = torch.random.get_rng_state()
    first = run(data, batch_size=5, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    again = run(data, batch_size=5, seed=3)
    other = run(data, batch_size=5, seed=4)
    assert torch.equal(state(first), state(again))
    assert first.losses == again.losses
    assert not torch.equal(state(first), state(other))


def test_blocks_give_the_gradient_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    data = replace(stripes(), weights=torch.linspace(0, 2, 12))
    whole = run(data)
    monkeypatch.setattr(_descent, "BLOCK_PIXELS", 5 * 64)  # 12 images: 5, 5, 2
    blocks = run(data)
    assert blocks.losses == pytest.approx(whole.losses, rel=1e-4)
    torch.testing.assert_close(state(blocks), state(whole), rtol=1e-3, atol=1e-5)


def test_batch_normalisation_sees_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Student(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            logits: torch.Tensor = super().forward(images)
            return logits

    monkeypatch.setattr(_descent, "BLOCK_PIXELS", 64)
    data, recipe = stripes(), Recipe(epochs=1, batch_size=6)
    student = Student(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 3))
    StudentSteps(student, recipe, data, 0, CPU).run(progress=False)
    assert sizes == [6, 6]


@pytest.mark.parametrize(("layer", "sizes"), [(nn.BatchNorm2d(1), [4, 5]), (nn.Identity(), [4, 4, 1])])
def test_single_last_image_joins_the_batch_before_only_for_batch_statistics(layer: nn.Module, sizes: list[int]) -> None:
    seen: list[int] = []
    layer.register_forward_hook(lambda module, arguments, output: seen.append(len(output)))
    # as at the end of resnet18: one value per channel and image
    student = nn.Sequential(nn.AdaptiveAvgPool2d(1), layer, nn.Flatten(), nn.Linear(1, 3))
    recipe = Recipe(epochs=1, batch_size=4)
    descent = StudentSteps(student, recipe, stripes(9), 0, CPU)
    descent.run(progress=False)
    assert seen == sizes
    assert math.isfinite(descent.losses[0])


def test_weight_zero_is_absent() -> None:
    """With one batch, images of weight 0 change only the divisor, which the learning rate makes good."""
    data = stripes()
    weights = torch.ones(12)
    weights[8:] = 0
    some = replace(data, images=data.images[:8], labels=data.labels[:8], weights=weights[:8])
    with_zeros = run(replace(data, weights=weights), epochs=2, lr=0.015, weight_decay=0)
    without = run(some, epochs=2, lr=0.01, weight_decay=0)
    torch.testing.assert_close(state(with_zeros), state(without), rtol=1e-3, atol=1e-5)


def test_log(tmp_path: Path) -> None:
    data, test = stripes(), stripes(seed=1)
    log = tmp_path / "train" / "log.jsonl"
    result = run(data, held_out(test), log, epochs=40, batch_size=12)
    first, *epochs, last, seal = [json.loads(line) for line in log.read_text().splitlines()]
    assert first["settings"] == result.recipe.settings(data, held_out(test), CPU)
    assert seal == {"sha256": hashlib.sha256(b"".join(log.read_bytes().splitlines(True)[:-1])).hexdigest()}
    assert first["settings"]["training_images"] == 12
    assert first["settings"]["versions"]["torch"] == torch.__version__
    assert (first["settings"]["device"], first["settings"]["torch_threads"]) == ("cpu", torch.get_num_threads())
    assert [line["epoch"] for line in epochs] == list(range(2, 41, 2))
    assert epochs[-1]["loss"] == result.losses[-1]
    assert last["result"]["accuracy"] == result.accuracy
    assert last["result"]["steps"] == result.steps == 40
    assert not list(log.parent.glob(".*"))


def test_settings_tell_data_apart() -> None:
    data, recipe = stripes(), Recipe()
    same = recipe.settings(stripes(), held_out(stripes()), CPU)
    assert recipe.settings(data, held_out(data), CPU) == same
    heavier = replace(data, weights=data.weights * 2)
    brighter = replace(data, images=data.images + 1)
    assert recipe.settings(heavier, held_out(data), CPU) != same
    assert recipe.settings(brighter, held_out(data), CPU) != same
    assert recipe.settings(data, held_out(brighter), CPU) != same
    assert Recipe(epochs=3).settings(data, held_out(data), CPU) != same


def test_settings_tell_versions_and_threads_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    data = stripes()
    same = Recipe().settings(data, None, CPU)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert Recipe().settings(data, None, CPU) == {**same, "torch_threads": 77}
    monkeypatch.undo()
    monkeypatch.setattr(sys.modules["ddoq.machine.environment"], "__version__", "77")
    assert Recipe().settings(data, None, CPU)["versions"] == {**same["versions"], "ddoq": "77"}


def test_checkpoint_gives_the_student_back(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (9, 8, 8), np.uint8)
    data = ddoq.open_data((images, ["x", "y", "z"] * 3))
    path = tmp_path / "student.safetensors"
    result = ddoq.train(data, epochs=2, checkpoint=path, device="cpu", progress=False)
    with safetensors.safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
        facts = json.loads(file.metadata()["ddoq"])
    assert facts["class_names"] == ["x", "y", "z"]
    student = create_student(facts["student"], n_classes=3, channels=facts["channels"], image_size=facts["image_size"])
    student.load_state_dict(safetensors.torch.load_file(path))
    batch = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(student.eval()(batch), result.model(batch))


@pytest.mark.parametrize("name", ["log", "checkpoint"])
def test_files_that_cannot_be_written_are_found_before_training(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_training(*arguments: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(StudentSteps, "run", no_training)
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "a", tmp_path / "file" / "a" / "b", tmp_path):
        with pytest.raises(OSError, match="cannot write: ") as caught:
            ddoq.train(ddoq.open_data((np.zeros((2, 8, 8), np.uint8), [0, 1])), **{name: path}, progress=False)  # type: ignore[arg-type]
        assert caught.value.filename == str(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_folders_of_log_and_checkpoint_are_made(tmp_path: Path) -> None:
    data = ddoq.open_data((np.zeros((2, 8, 8), np.uint8), [0, 1]))
    log, checkpoint = tmp_path / "a" / "b" / "log.jsonl", tmp_path / "c" / "d" / "student.safetensors"
    ddoq.train(data, epochs=1, log=log, checkpoint=checkpoint, device="cpu", progress=False)
    assert [path.name for path in log.parent.iterdir()] == ["log.jsonl"]
    assert [path.name for path in checkpoint.parent.iterdir()] == ["student.safetensors"]


def test_names_of_the_classes_of_a_test_array() -> None:
    images = np.repeat(np.array([0, 255], np.uint8), 4)[:, None, None] * np.eye(8, dtype=np.uint8)
    data = ddoq.open_data((images, ["blank"] * 4 + ["line"] * 4))
    test = (images, [1] * 4 + [0] * 4)  # by the names given here, in another order
    options = {"epochs": 10, "device": "cpu", "progress": False}
    assert ddoq.train(data, test=test, class_names=["line", "blank"], **options).accuracy == 100  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name the classes of arrays with class_names"):
        ddoq.train(data, test=test, **options)  # type: ignore[arg-type]


def test_all_images_have_their_own_statistics() -> None:
    images = np.random.default_rng(0).integers(0, 255, (200, 6, 8, 3), np.uint8)
    data = TrainingSet.of(ddoq.open_data((images, np.arange(200) % 2), image_size=8))
    pixels = data.images.double() / 255
    torch.testing.assert_close(data.mean, pixels.mean((0, 2, 3)).float())
    torch.testing.assert_close(data.std, pixels.std((0, 2, 3), correction=0).float())
    assert data.weights.tolist() == [1] * 200


def test_constant_images_are_not_divided_by_zero() -> None:
    data = replace(stripes(), mean=torch.tensor([1.0]), std=torch.tensor([0.0]))
    assert all(map(math.isfinite, run(data, epochs=2).losses))


def test_classes_are_matched_by_name() -> None:
    train = stripes()
    order = torch.tensor([2, 0, 1])  # the test set's own indices, by the training set's
    test = (train.images[:, 0].numpy(), order[train.labels].numpy())
    matched = open_test(test, train, class_names=("b", "c", "a"))
    assert torch.equal(matched.labels, train.labels)
    with pytest.raises(ValueError, match=r"lacks 'c' and has 'cc' beside"):
        open_test(test, train, class_names=("b", "cc", "a"))


def test_other_sizes_and_channels_are_converted() -> None:
    train = stripes()
    test = (np.zeros((3, 12, 10, 3), np.uint8), ["a", "b", "c"])
    assert open_test(test, train).images.shape == (3, 1, 8, 8)


def test_loss_that_is_not_finite_stops() -> None:
    with pytest.raises(ValueError, match=r"loss is (nan|inf) in epoch \d+ of 50 .*lower lr"):
        run(stripes(), epochs=50, lr=1e30)


@pytest.mark.parametrize(
    "settings", [{"epochs": 0}, {"batch_size": 0}, {"lr": -1.0}, {"lr": math.nan}, {"momentum": -0.1}]
)
def test_bad_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        run(stripes(), **settings)


def test_bad_dataset() -> None:
    with pytest.raises(TypeError, match=r"ddoq\.load.*list"):
        ddoq.train([1, 2, 3], progress=False)  # type: ignore[arg-type]


def test_looks_on_the_way_are_told_apart_from_the_last() -> None:
    data = stripes()
    result = run(data, held_out(stripes(30, seed=1)), epochs=30, check_from=0.3)
    assert [epoch for epoch, _ in result.checks] == [20, 30]
    assert result.accuracy == result.checks[-1][1]
    assert result.best == max(accuracy for _, accuracy in result.checks)
    assert "best of 2 looks" in str(result)
    assert "after the last of 30 epochs (30 steps, few: published protocols make 300 and more), loss" in str(result)
    assert "(300 steps), loss" in str(replace(result, steps=300))


def test_a_look_changes_nothing() -> None:
    data = stripes()
    looked, blind = (run(data, held_out(data), epochs=30, check_from=share) for share in (0.0, 1.0))
    assert torch.equal(state(looked), state(blind))
