"""Data and a run that the tests of the command share."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import distill_line
from PIL import Image

from ddoq.cli import main as cli
from ddoq.cli.demo import digits


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: twelve digits of each of three classes, as PNG files."""
    folder = tmp_path_factory.mktemp("data")
    (images, labels), _ = digits()
    for digit, name in enumerate(("zero", "one", "two")):
        (folder / name).mkdir()
        for i, image in enumerate(images[labels == digit][:12]):
            Image.fromarray(image).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    assert cli.main(distill_line(data, out)) == 0
    return out
