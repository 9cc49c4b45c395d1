"""Small folders of flat images and data to weigh them by, which several files of tests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import ddoq
from ddoq.models.codecs.codec import open_codec

QUIET: dict[str, Any] = {"progress": False, "device": "cpu"}

DATA = {"ant": [0, 1, 2, 3, 10, 11], "zebra": [100, 120, 140, 160]}  # the shades of flat images

FOLDER = {"ant": [2, 10, 200], "zebra": [101, 150]}  # no shade of an ant is near 200

THEIRS = [
    {"file_name": "ant/im0.png", "caption": "an ant, ☃", "weight": 3.0, "label": "A"},
    {"file_name": "ant/im1.png", "caption": "another", "weight": 1},
    {"file_name": "ant/im2.png", "caption": "a strange one", "weight": 0.5},
    {"file_name": "zebra/im0.png", "caption": "stripes", "weight": 1},
    {"file_name": "zebra/im1.png", "caption": "more", "weight": 2},
    {"file_name": "elsewhere.png", "caption": "no class"},
]


def flat(shade: int, size: int = 4) -> np.ndarray:
    return np.full((size, size), shade, np.uint8)


def data(classes: dict[str, list[int]] = DATA) -> tuple[np.ndarray, list[str]]:
    shades = [(shade, name) for name, shades in classes.items() for shade in shades]
    return np.stack([flat(shade) for shade, _ in shades]), [name for _, name in shades]


def folder(path: Path, classes: dict[str, list[int]] = FOLDER, names: dict[str, str] | None = None) -> Path:
    for name, shades in classes.items():
        (path / (names or {}).get(name, name)).mkdir(parents=True)
        for i, shade in enumerate(shades):
            Image.fromarray(flat(shade)).save(path / (names or {}).get(name, name) / f"im{i}.png")
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metadata.jsonl").read_text().splitlines()]


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def weighed(path: Path, **options: Any) -> ddoq.stages.distances.Distances:
    return ddoq.weigh(path, data(), **{**QUIET, **options})


def with_metadata(path: Path) -> bytes:
    text = "".join(json.dumps(row) + "\n" for row in THEIRS).encode()
    (path / "metadata.jsonl").write_bytes(text)
    return text


class Counting:
    """Pixels; counts the images, and stops at a given one."""

    fingerprint = open_codec("identity").fingerprint  # type: ignore[attr-defined]

    def __init__(self, stop: int | None = None) -> None:
        self.images, self.stop = 0, stop

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        if self.stop is not None and self.images > self.stop:
            raise KeyboardInterrupt
        return images.flatten(1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError
