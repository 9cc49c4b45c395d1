"""Students: the field's ConvNet layer by layer, timm's models by name, what is said of a wrong name or size."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from torch import nn

from ddoq.training.students import create_student

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


@pytest.mark.parametrize(
    ("size", "channels", "parameters"),
    [
        (28, 1, 317706),  # 32 x 32 after the first convolution's padding: the head sees 128 x 4 x 4
        (32, 3, 320010),
        (8, 1, 298506),
        (8, 3, 300810),
        (30, 3, 311050),
        (33, 1, 317706),
        (64, 3, 381450),
    ],
)
def test_convnet3(size: int, channels: int, parameters: int) -> None:
    student = create_student("convnet3", n_classes=10, channels=channels, image_size=size)
    assert student(torch.zeros(2, channels, size, size)).shape == (2, 10)
    assert sum(p.numel() for p in student.parameters()) == parameters


def test_convnet3_is_the_fields() -> None:
    student = create_student("convnet3", n_classes=10, channels=1, image_size=28)
    layers = [type(layer) for layer in student.features]  # type: ignore[union-attr]
    assert layers == [nn.Conv2d, nn.GroupNorm, nn.ReLU, nn.AvgPool2d] * 3
    convolutions = [layer for layer in student.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.padding for layer in convolutions] == [(3, 3), (1, 1), (1, 1)]
    # a group for each channel is instance normalisation
    features = torch.rand(2, 128, 5, 5, generator=torch.Generator().manual_seed(0))
    norm = next(layer for layer in student.modules() if isinstance(layer, nn.GroupNorm))
    variance, mean = torch.var_mean(features, (2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(norm(features), (features - mean) / (variance + 1e-5).sqrt())


def test_too_small() -> None:
    with pytest.raises(ValueError, match="at least 8"):
        create_student("convnet3", n_classes=10, channels=1, image_size=7)


@needs_timm
def test_timm_by_name() -> None:
    student = create_student("resnet10t", n_classes=7, channels=1, image_size=32)
    assert student.training
    assert student(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


@needs_timm
def test_timm_of_fixed_size_is_built_for_the_images() -> None:
    student = create_student("test_vit", n_classes=3, channels=3, image_size=64)
    assert student(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


@needs_timm
@pytest.mark.parametrize(("name", "near"), [("resnet81", "resnet18"), ("convnet", "convnet3"), ("hf-hub:a/b", "")])
def test_unknown_name(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.*{near}"):
        create_student(name, n_classes=10, channels=3, image_size=32)


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match=r"ddoq\[train\]"):
        create_student("resnet18", n_classes=10, channels=3, image_size=32)
    with pytest.raises(ModuleNotFoundError, match="did you mean 'convnet3'"):
        create_student("ConvNet-3", n_classes=2, channels=1, image_size=8)


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (32, 3), (28, 1)])
def test_convnet4_has_four_blocks(size: int, channels: int) -> None:
    student = create_student("convnet4", n_classes=10, channels=channels, image_size=size)
    assert [type(layer) for layer in student.features] == [nn.Conv2d, nn.GroupNorm, nn.ReLU, nn.AvgPool2d] * 4  # type: ignore[union-attr]
    assert student(torch.zeros(2, channels, size, size)).shape == (2, 10)
    with pytest.raises(ValueError, match="convnet4 needs images of at least 16"):
        create_student("convnet4", n_classes=10, channels=channels, image_size=15)


@needs_timm
@pytest.mark.parametrize(
    ("name", "size", "channels", "parameters"),
    [
        ("resnet18", 32, 3, 11_181_642),
        ("mobilenetv2", 32, 3, 2_236_682),
        ("efficientnet_b0", 32, 3, 4_020_358),
        ("vit_tiny", 32, 1, None),
        ("swin_tiny", 32, 3, None),
    ],
)
def test_students_of_the_tables(name: str, size: int, channels: int, parameters: int | None) -> None:
    student = create_student(name, n_classes=10, channels=channels, image_size=size)
    assert student.eval()(torch.zeros(2, channels, size, size)).shape == (2, 10)
    assert parameters in (None, sum(p.numel() for p in student.parameters()))


@needs_timm
@pytest.mark.parametrize(
    ("name", "size", "patches"),
    [("vit_tiny", 224, 14), ("vit_tiny", 64, 16), ("vit_small", 32, 16), ("swin_tiny", 112, 56), ("swin_tiny", 64, 32)],
)
def test_patches_suit_the_images(name: str, size: int, patches: int) -> None:
    with torch.device("meta"):
        import timm

        from ddoq.training.students import SHORT, _size_arguments

        student = timm.create_model(SHORT[name], img_size=size, **_size_arguments(name, size))
    assert student.patch_embed.grid_size == (patches, patches)
