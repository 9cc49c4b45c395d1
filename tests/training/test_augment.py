"""Augmentations against torchvision, and against loops over single images written from their sources."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddoq.machine.torchvision import ensure_importable
from ddoq.training import augment, siamese as _dsa

needs_torchvision = pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="no torchvision")


def pictures(n: int = 6, channels: int = 3, side: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


def numbers(n: int, width: int, seed: int = 1) -> Tensor:
    return torch.rand(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@needs_torchvision
def test_crop_is_torchvisions_resized_crop() -> None:
    ensure_importable()
    from torchvision.transforms.v2 import functional as tv

    images, u = pictures(40), numbers(40, augment.CROP_NUMBERS)
    result = augment.crop(images, u, 0.08)
    for image, box, mine in zip(images, augment.crop_boxes(u, 16, 0.08).int().tolist(), result, strict=True):
        theirs = tv.resized_crop(image[None], *box, [16, 16], antialias=True)[0]
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_crop_boxes_are_distributed_as_torchvisions() -> None:
    """Area and shape of get_params, written out: the first of ten boxes that fits, or all of the image."""
    u = numbers(300, augment.CROP_NUMBERS)
    boxes = augment.crop_boxes(u, 32, 0.5).tolist()
    whole = 0
    for row, box in zip(u.tolist(), boxes, strict=True):
        for area, ratio in zip(row[0:20:2], row[1:20:2], strict=True):
            shape = math.exp(math.log(3 / 4) + ratio * (math.log(4 / 3) - math.log(3 / 4)))
            pixels = 32 * 32 * (0.5 + 0.5 * area)
            width, height = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
            if 0 < width <= 32 and 0 < height <= 32:
                break
        else:
            width = height = 32
            whole += 1
        assert box == [int(row[20] * (33 - height)), int(row[21] * (33 - width)), height, width]
    assert whole < 10
    assert augment.crop_boxes(numbers(5, augment.CROP_NUMBERS), 8, 1.0)[:, 2:].min() == 8  # scale (1, 1): RDED at 32


def test_flip() -> None:
    images = pictures(2)
    result = augment.flip(images, torch.tensor([[0.49], [0.5]]))
    assert torch.equal(result[0], images[0].flip(2))
    assert torch.equal(result[1], images[1])


@pytest.mark.parametrize(("side", "patches"), [(16, 2), (16, 3), (9, 2)])
def test_shuffle_moves_whole_strips(side: int, patches: int) -> None:
    """Columns, then rows; the last strip takes the remainder."""
    images, u = pictures(5, side=side), numbers(5, 2 * patches)
    edges = [k * (side // patches) for k in range(patches)] + [side]
    for image, row, result in zip(images, u, augment.shuffle(images, u, patches), strict=True):
        for dim, order in ((2, row[:patches].argsort()), (1, row[patches:].argsort())):
            strips = [image.narrow(dim, edges[k], edges[k + 1] - edges[k]) for k in range(patches)]
            image = torch.cat([strips[k] for k in order.argsort()], dim)
        assert torch.equal(result, image)
        assert torch.equal(result.flatten().sort().values, image.flatten().sort().values)


def test_shuffle_takes_every_order() -> None:
    images = torch.arange(16.0).reshape(1, 1, 4, 4).expand(64, -1, -1, -1)
    corners = augment.shuffle(images, numbers(64, 4), 2)[:, 0, 0, 0]
    assert set(corners.tolist()) == {0.0, 2.0, 8.0, 10.0}


def test_jitter_is_three_mixtures_in_order() -> None:
    images, u = pictures(20), numbers(20, 6)
    for image, row, result in zip(images, u, augment.jitter(images, u), strict=True):
        amounts = ((2 * row[:3] - 1) * 0.4).tolist()
        for step in row[3:].argsort().tolist():
            grey = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
            target = (torch.zeros(()), grey.mean(), grey)[step]
            image = image + amounts[step] * (target - image)
        torch.testing.assert_close(result, image, rtol=1e-4, atol=1e-5)


def test_lighting_adds_one_colour_with_the_components_variance() -> None:
    images = torch.zeros(4000, 3, 2, 2)
    result = augment.lighting(images, numbers(4000, 3))
    assert torch.equal(result[:, :, :1, :1].expand_as(result), result)
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    wanted = vectors @ np.diag(np.array([0.2175, 0.0188, 0.0045]) ** 2) @ vectors.T * 0.1**2
    found = np.cov(result[:, :, 0, 0].numpy().T)
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()
    grey = pictures(2, channels=1)
    assert augment.lighting(grey, numbers(2, 3)) is grey


def test_cutmix_by_hand() -> None:
    """A quarter of the pixels stay: the box has a side of floor(8 sqrt(3/4)) = 6, and is cut at the image's edge."""
    share, centre = torch.tensor([0.25, 1.0]), torch.tensor([[0.5, 0.99], [0.5, 0.5]], dtype=torch.float64)
    box = augment.cutmix_box(share.double(), centre, 8)
    assert box.tolist() == [[1, 4, 7, 8], [4, 4, 4, 4]]
    images, others = torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
    mixed, kept = augment.cutmix(images, others, box)
    assert mixed[0, 0, 1:7, 4:8].min() == 1
    assert mixed[0].sum() == 24
    assert mixed[1].sum() == 0
    assert kept.tolist() == [1 - 24 / 64, 1]


def test_mixup_by_hand() -> None:
    mixed, kept = augment.mixup(torch.full((1, 1, 2, 2), 4.0), torch.zeros(1, 1, 2, 2), torch.tensor([0.25]))
    assert mixed.unique().tolist() == [1.0]
    assert kept.tolist() == [0.25]


def test_amounts_of_siamese_augmentation() -> None:
    amounts = (_dsa.FLIP, _dsa.SCALE, _dsa.ROTATE, _dsa.CROP, _dsa.CUTOUT)
    assert amounts == (0.5, 1.2, 15.0, 0.125, 0.5)
    assert (_dsa.BRIGHTNESS, _dsa.SATURATION, _dsa.CONTRAST) == (1.0, 2.0, 0.5)


def test_siamese_color() -> None:
    image, u = pictures(1), torch.tensor([[0.0, 0.9, 0.2, 0.7]])
    wanted = image + 0.4
    grey = wanted.mean(1, keepdim=True)
    wanted = (wanted - grey) * 0.4 + grey
    wanted = (wanted - wanted.mean()) * 1.2 + wanted.mean()
    torch.testing.assert_close(_dsa.siamese(image, u, "color"), wanted, rtol=1e-4, atol=1e-5)


def test_siamese_crop_moves_and_fills_with_zeros() -> None:
    image = pictures(1)
    moved = _dsa.siamese(image, torch.tensor([[0.0, 0.0, 0.99, 0.0]]), "crop")  # two pixels down, two to the left
    assert torch.equal(moved[..., 2:, :-2], image[..., :-2, 2:])
    assert moved[..., :2, :].abs().sum() == moved[..., -2:].abs().sum() == 0


def test_siamese_cutout() -> None:
    image = torch.ones(2, 1, 16, 16)
    cut = _dsa.siamese(image, torch.tensor([[0, 0.5, 0.5, 0], [0, 0.0, 0.99, 0]]), "cutout")
    assert cut[0, 0, 4:12, 4:12].sum() == 0
    assert cut[0].sum() == 256 - 64
    assert cut[1, 0, :4, 12:].sum() == 0  # the box is cut at the corner
    assert cut[1].sum() == 256 - 16


def test_siamese_scale_and_rotation_are_affine() -> None:
    image, u = pictures(1), torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    for name, matrix in (
        ("scale", [[1.2, 0, 0], [0, 1 / 1.2, 0]]),
        (
            "rotate",
            [[math.cos(math.pi / 12), -math.sin(math.pi / 12), 0], [math.sin(math.pi / 12), math.cos(math.pi / 12), 0]],
        ),
    ):
        grid = F.affine_grid(torch.tensor([matrix]), list(image.shape), align_corners=False)
        wanted = F.grid_sample(image, grid, align_corners=False)
        torch.testing.assert_close(_dsa.siamese(image, u, name), wanted)


def test_siamese_takes_one_operation_an_image() -> None:
    images, u = pictures(60), numbers(60, _dsa.NUMBERS)
    names = "color_crop_cutout_flip_scale_rotate"
    result = _dsa.siamese(images, u, names)
    for number, name in enumerate(names.split("_")):
        rows = (u[:, 0] * 6).long() == number
        assert rows.any()
        assert torch.equal(result[rows], _dsa.siamese(images[rows], u[rows] * torch.tensor([0, 1, 1, 1]), name))
