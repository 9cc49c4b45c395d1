"""The picture of a distilled set: every image where it belongs, caps that are said, awkward class names."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddoq.data.distilled import DistilledDataset
from ddoq.reporting.weights_picture import Layout, _left_out, _short, weights_picture

pytest.importorskip("matplotlib")


def dataset(ipc: int, names: tuple[str, ...] = ("a", "b", "c"), size: int = 8, channels: int = 1) -> DistilledDataset:
    """Images of one shade each, darker from image to image, standing for 1, 2, ... images."""
    n = ipc * len(names)
    shades = torch.linspace(250, 0, n).to(torch.uint8)
    plain = DistilledDataset(
        shades[:, None, None, None].expand(n, channels, size, size).contiguous(),
        torch.arange(len(names)).repeat_interleave(ipc),
        torch.arange(1, n + 1),
        torch.ones(n, dtype=torch.float64),
        class_names=names,
        mean=torch.zeros(channels),
        std=torch.ones(channels),
        manifest={},
        weighting="uniform",
        class_prior="balanced",
    )
    return plain.reweighted("density")


def draw(data: DistilledDataset, path: Path, **options: int) -> np.ndarray:
    weights_picture(data, path, **options)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_in_its_place(tmp_path: Path, channels: int) -> None:
    data = dataset(4, channels=channels)
    pixels = draw(data, tmp_path / "weights.png")
    layout = Layout.of([np.arange(4)] * 3, ["a", "b", "c"], 8)
    assert pixels.shape == (layout.height, layout.width, 3)
    assert layout.tile % 8 == 0  # enlarged by a whole number
    top = layout.head
    for c in range(3):
        for place in range(4):
            index = 4 * c + 3 - place  # the heaviest first
            x = layout.left + place * layout.step
            tile = pixels[top : top + layout.tile, x : x + layout.tile]
            assert (tile == int(data.images[index].flatten()[0])).all()
            share = float(data.weights[index] / data.weights.max())
            bar = pixels[top + layout.tile + 7, x : x + layout.tile]
            assert (bar[:, 0] < 100).sum() == round(share * layout.tile)  # blue, not the pale track
        top += layout.row_height(4)


def test_enlarged_pixels_are_sharp(tmp_path: Path) -> None:
    data = dataset(1, ("a",))
    data.images[0, 0] = torch.arange(64, dtype=torch.uint8).reshape(8, 8) * 4
    pixels = draw(data, tmp_path / "weights.png")
    layout = Layout.of([np.arange(1)], ["a"], 8)
    tile = pixels[layout.head : layout.head + layout.tile, layout.left : layout.left + layout.tile, 0]
    factor = layout.tile // 8
    assert np.array_equal(tile, data.images[0, 0].numpy().repeat(factor, 0).repeat(factor, 1))


@pytest.mark.parametrize(("ipc", "per_line"), [(1, 1), (10, 10), (11, 11), (26, 13), (50, 25)])
def test_lines(ipc: int, per_line: int) -> None:
    layout = Layout.of([np.arange(ipc)] * 10, list("0123456789"), 28)
    assert layout.per_line == per_line
    assert layout.width <= 2000
    assert layout.height <= 2500


def test_large_images_are_shrunk(tmp_path: Path) -> None:
    pixels = draw(dataset(2, size=256), tmp_path / "weights.png")
    assert pixels.shape[0] < 700


def test_caps_are_said(tmp_path: Path) -> None:
    data = dataset(6, tuple("abcdefgh"))
    small = draw(data, tmp_path / "small.png", max_classes=2, max_images=3)
    large = draw(data, tmp_path / "large.png")
    assert small.shape[0] < large.shape[0] / 2
    cut = [np.arange(3)] * 2
    assert _left_out(data, cut) == "drawn: the first 2 of 8 classes, the 3 heaviest of up to 6 images per class"
    assert _left_out(data, [np.arange(6)] * 8) == ""
    with pytest.raises(ValueError, match="max_images"):
        weights_picture(data, tmp_path / "none.png", max_images=0)


def test_the_method_is_said(tmp_path: Path) -> None:
    data = dataset(2)
    plain = draw(data, tmp_path / "plain.png")
    data.manifest["config"] = {"method": "dit"}
    note = "a reconstruction: the paper's own settings are not published"
    data.manifest["stages"] = {"synthesize": {"info": {"note": note}}}
    said = draw(data, tmp_path / "said.png")
    rows, columns = np.nonzero((said != plain).any(2))
    assert said.shape == plain.shape
    assert 46 < rows.min() < rows.max() < Layout.of([np.arange(2)] * 3, ["a", "b", "c"], 8).head
    assert columns.max() < 732


def test_awkward_class_names(tmp_path: Path) -> None:
    names = ("$x^$", "猫", "two\nlines", "a name that is far too long for one line", "")
    draw(dataset(2, names), tmp_path / "weights.png")
    assert [_short(name) for name in names[2:4]] == ["two lines", "a name that is far…"]
    assert len(_short("猫" * 30)) <= 11


def test_pyplot_is_not_touched(tmp_path: Path) -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    weights_picture(dataset(1), tmp_path / "weights.png")
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"ddoq\[report\]"):
        weights_picture(dataset(1), tmp_path / "weights.png")
    assert not list(tmp_path.iterdir())
