"""The call that made a run: by its method, without what is as by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddoq
from ddoq.methods.catalogue import METHODS
from ddoq.reporting.call import call
from ddoq.storage.run import Run

DATA = (np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4), np.arange(12) % 2)
PIXELS: dict[str, Any] = {"ipc": 2, "codec": "identity", "synthesis": "decode", "device": "cpu", "progress": False}


class Halved:
    """A codec of the user's."""

    fingerprint = "halved"

    def encode(self, images: Any) -> Any:
        return images / 2

    def decode(self, latents: Any) -> Any:
        return latents * 2


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"controls": ("nearest",)}, ['codec="identity"', 'synthesis="decode"', "controls=('nearest',)"]),
        ({"codec": Halved()}, ["codec=...,  # halved", 'synthesis="decode"']),
        ({"weighting": "sqrt"}, ['codec="identity"', 'synthesis="decode"', 'weighting="sqrt"']),
        ({"method": "d4m", "diffusion": "auto", "prompt": "{}", "output_size": 3, "weighting": "density",
          "negative_prompt": "cartoon, anime, painting", "posterior": "mean", "image_size": 4},
         ['method="d4m"', 'codec="identity"', 'diffusion="auto"', 'synthesis="decode"', 'posterior="mean"',
          'weighting="density"', "image_size=4", "output_size=3"]),
    ],
)  # fmt: skip
def test_a_call_has_what_is_not_as_by_default(tmp_path: Path, options: dict[str, Any], lines: list[str]) -> None:
    ddoq.distill(DATA, tmp_path, **{**PIXELS, **options})
    made_by = call(Run.open(tmp_path).manifest)
    assert made_by is not None
    written = [line.strip().removesuffix(",") for line in made_by[0].splitlines()[5:-1]]
    size = [] if "image_size" in options else ["image_size=4"]
    batch = ["batch_size=64"]
    assert sorted(written) == sorted(["ipc=2", *lines, *size, *batch, "seed=0"])
    words = made_by[1].replace(" \\\n   ", "")
    assert words.startswith("ddoq distill DATA again --ipc 2 ")
    assert ("--codec CODEC" in words) == isinstance(options.get("codec"), Halved)
    again = {"data": DATA, "Codec": Halved}
    source = made_by[0].replace("...", "Codec()").replace('"again"', f"{str(tmp_path / 'again')!r}, progress=False")
    exec(source, again)
    assert Run.open(tmp_path / "again").manifest["config"] == Run.open(tmp_path).manifest["config"]


def test_folders_and_methods_that_are_not_there_have_no_call() -> None:
    assert call({"config": {"synthesis": "given"}, "stages": {}}) is None
    assert call({"config": {"method": "of a later version", "options": {}}, "stages": {}}) is None
    assert "of a later version" not in METHODS
