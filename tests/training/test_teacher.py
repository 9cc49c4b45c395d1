"""Teachers: from checkpoints, timm folders and modules; classes by name; several averaged."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import ddoq
from ddoq.machine.torchvision import ensure_importable
from ddoq.storage.files import RunError
from ddoq.training.checkpoint import write_checkpoint
from ddoq.training.teacher import open_teacher
from ddoq.training.training_set import TrainingSet

CPU = torch.device("cpu")
needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
IMAGES = np.random.default_rng(0).integers(0, 255, (12, 8, 8), np.uint8)


def training(names: list[str], channels: int = 1, side: int = 8) -> TrainingSet:
    pixels = torch.randint(0, 255, (12, channels, side, side), dtype=torch.uint8)
    labels = torch.arange(12) % len(names)
    return TrainingSet(pixels, labels, torch.ones(12), tuple(names), torch.zeros(channels), torch.ones(channels))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    options: dict[str, Any] = {"student": "convnet3", "epochs": 2, "device": "cpu", "progress": False}
    result = ddoq.train_teacher((IMAGES, ["a", "b", "c"] * 4), path, test=(IMAGES, ["c", "a", "b"] * 4), **options)
    assert result.accuracy is not None
    assert result.recipe.protocol == "teacher, epochs=2"
    return path


def reference(checkpoint: Path, images: torch.Tensor) -> torch.Tensor:
    """Its logits, in the order a, b, c, by hand."""
    with safetensors.safe_open(checkpoint, "pt") as file:  # type: ignore[no-untyped-call]
        facts = json.loads(file.metadata()["ddoq"])
    from ddoq.training.students import create_student

    model = create_student("convnet3", n_classes=3, channels=1, image_size=8)
    model.load_state_dict(safetensors.torch.load_file(checkpoint))
    scaled = images.float() / 255
    with torch.no_grad():
        logits: torch.Tensor = model.eval()((scaled - facts["mean"][0]) / facts["std"][0])
    return logits


def test_checkpoint_by_class_names(checkpoint: Path) -> None:
    data = training(["c", "a"])
    teacher = open_teacher(str(checkpoint), data, CPU)
    wanted = reference(checkpoint, data.images)
    torch.testing.assert_close(teacher(data.images), wanted[:, [2, 0]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(teacher(data.images.float() / 255), wanted[:, [2, 0]], rtol=1e-4, atol=1e-5)
    assert teacher.name.startswith("convnet3@")


def test_images_of_another_size_are_resized_to_the_teachers(checkpoint: Path) -> None:
    data = training(["a", "b", "c"], side=16)
    constant = torch.full((1, 1, 16, 16), 100, dtype=torch.uint8)
    teacher = open_teacher(checkpoint, data, CPU)
    torch.testing.assert_close(teacher(constant), reference(checkpoint, constant[..., :8, :8]), rtol=1e-3, atol=1e-4)


def test_several_are_averaged(checkpoint: Path) -> None:
    data = training(["a", "b", "c"])
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    both = open_teacher([checkpoint, module], data, CPU)
    with torch.no_grad():
        wanted = (reference(checkpoint, data.images) + module(data.images.float() / 255)) / 2
    torch.testing.assert_close(both(data.images), wanted, rtol=1e-4, atol=1e-5)
    assert both.name.count("@") == 2


def test_the_callers_module_is_left_as_it_was() -> None:
    """In training mode, some layers frozen, on its device: "meta" stands for another than the work's."""
    data = training(["a", "b", "c"])
    module = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(64, 3)).train()
    module[0].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    teacher = open_teacher(module, data, CPU)
    assert torch.equal(teacher(data.images), teacher(data.images))  # nothing is dropped
    assert [layer.training for layer in module.modules()] == [True, False, True, True, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert open_teacher(module, data, CPU).name == teacher.name
    open_teacher(module, data, torch.device("meta"))
    assert {tensor.device for tensor in module.state_dict().values()} == {CPU}


def test_names_tell_weights_apart(checkpoint: Path) -> None:
    data, module = training(["a", "b", "c"]), nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    first = open_teacher(module, data, CPU).name
    with torch.no_grad():
        module[1].bias += 1
    assert open_teacher(module, data, CPU).name != first


@needs_timm
def test_timm_folder_with_label_names(tmp_path: Path) -> None:
    ensure_importable()
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3).eval()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": "resnet10t",
        "num_classes": 3,
        "label_names": ["dog", "cat", "emu"],
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "input_size": [3, 64, 64]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    data = training(["cat", "dog"], channels=3, side=32)
    scaled = (data.images.float() / 255 - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / 0.5
    with torch.no_grad():
        wanted = model(scaled)[:, [1, 0]]
    torch.testing.assert_close(open_teacher(tmp_path, data, CPU)(data.images), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="the teacher does not know class 'cow'"):
        open_teacher(tmp_path, training(["cat", "cow"], channels=3, side=32), CPU)
    del config["label_names"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not say what its 3 classes are called"):
        open_teacher(tmp_path, data, CPU)


@needs_timm
def test_what_is_no_teacher(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not know class 'z' .*: train one"):
        open_teacher(checkpoint, training(["a", "z"]), CPU)
    with pytest.raises(ValueError, match="is for 1 channels"):
        open_teacher(checkpoint, training(["a", "b"], channels=3), CPU)
    with pytest.raises(ValueError, match=r"gives logits \(12, 5\), the set has 2 classes"):
        open_teacher(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), training(["a", "b"]), CPU)(torch.zeros(12, 1, 8, 8))
    with pytest.raises(ValueError, match=r"'resnet81' is no file, folder or pretrained model"):
        open_teacher("resnet81", training(["a", "b"]), CPU)
    with pytest.raises(ValueError, match="names no network"):
        open_teacher([], training(["a", "b"]), CPU)
    foreign = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(1)}, foreign)
    with pytest.raises(ValueError, match="does not say which network it is"):
        open_teacher(foreign, training(["a", "b"]), CPU)
    says = {"student": "convnet3", "class_names": ["a", "b"], "channels": 1, "image_size": 8, "mean": [0.5], "std": [1]}
    model = nn.Linear(1, 1)
    for wrong in ({}, {"student": 3}, {"class_names": 3}, {"image_size": "8"}, {"image_size": 10**6}, {"mean": "dark"}):
        write_checkpoint(foreign, model, {**says, **wrong})
        with pytest.raises(ValueError, match="does not hold what it says, a "):
            open_teacher(foreign, training(["a", "b"]), CPU)
    content = checkpoint.read_bytes()
    foreign.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunError, match="is damaged"):
        open_teacher(foreign, training(["a", "b"]), CPU)
    foreign.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        open_teacher(foreign, training(["a", "b"]), CPU)
    (tmp_path / "of-any-name").write_bytes(content)
    assert open_teacher(tmp_path / "of-any-name", training(["a", "b"]), CPU).name.startswith("convnet3@")
    with pytest.raises(FileNotFoundError):
        open_teacher(tmp_path / "absent.safetensors", training(["a", "b"]), CPU)
