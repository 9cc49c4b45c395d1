"""The stage "data": statistics of the full data set, with and without encoding, read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddoq.data.image_data import ImageData, open_data
from ddoq.models.codecs.identity import IdentityCodec
from ddoq.stages.data import record_data
from ddoq.stages.encode import encode
from ddoq.storage.run import Run


def data(n: int = 150, channels: int = 1) -> ImageData:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (n, 8, 8, 3) if channels == 3 else (n, 8, 8), np.uint8)
    return open_data((pixels, generator.permutation(np.arange(n) % 3)))


def recorded(folder: Path, source: ImageData, *, encodes: bool) -> dict[str, Any]:
    with Run.locked(folder, {}, source.class_names) as run:
        if encodes:
            encode(run, source, IdentityCodec(), device="cpu", shard_size=10, progress=False)
        else:
            record_data(run, source, progress=False)
        return run.info("data")


@pytest.mark.parametrize("encodes", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_the_pixels(tmp_path: Path, channels: int, encodes: bool) -> None:
    source = data(channels=channels)
    info = recorded(tmp_path, source, encodes=encodes)
    pixels = source.images(range(150)) / 255.0
    np.testing.assert_allclose(info["mean"], pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(info["std"], pixels.std(axis=(0, 2, 3)), rtol=1e-10)
    assert info["class_sizes"] == np.bincount(source.labels).tolist()
    facts = {name: info[name] for name in ("n", "image_size", "channels", "fingerprint")}
    assert facts == {"n": 150, "image_size": 8, "channels": channels, "fingerprint": source.fingerprint}


def test_encoding_changes_no_bit_of_them(tmp_path: Path) -> None:
    assert recorded(tmp_path / "a", data(), encodes=True) == recorded(tmp_path / "b", data(), encodes=False)


def test_deviation_of_a_single_colour_is_zero(tmp_path: Path) -> None:
    source = open_data((np.full((4, 8, 8), 77, np.uint8), [0, 1, 0, 1]))
    assert recorded(tmp_path, source, encodes=False)["std"] == [pytest.approx(0, abs=1e-7)]


@pytest.mark.parametrize("encodes", [True, False])
def test_images_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encodes: bool) -> None:
    read: list[int] = []
    images = ImageData.images

    def counted(self: ImageData, indices: Any) -> Any:
        read.extend(int(index) for index in indices)
        return images(self, indices)

    monkeypatch.setattr(ImageData, "images", counted)
    for _ in range(2):  # the second time it is done
        recorded(tmp_path, data(), encodes=encodes)
    assert sorted(read) == list(range(150))


def test_bar_shows_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run.locked(tmp_path, {}, ["0", "1", "2"]) as run:
        record_data(run, data())
    assert "150/150" in capsys.readouterr().err
