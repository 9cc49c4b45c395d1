"""Distances of a run's images under several weights: those of w2, stored once, and damage noticed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from weighing import QUIET

import ddoq
from ddoq.stages import distances
from ddoq.storage.run import Run, RunError


def digits() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    return (bunch.images[:300] * 15).astype(np.uint8), bunch.target[:300]


class Moved:
    """Halves that decode to something else than their means: images are off the points."""

    fingerprint = "moved"

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) * 2

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        images = latents.reshape(-1, 1, 8, 8) / 2
        return (images.roll(1, dims=3) + images.square()).clamp(0, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weigh") / "run"
    ddoq.distill(digits(), out, ipc=5, codec=Moved(), synthesis="decode", controls=["nearest"], **QUIET)
    return out


def test_distances_of_a_run_are_those_of_w2(run: Path) -> None:
    table = ddoq.weigh(run, **QUIET)
    found = {(row.set, row.weighting): row.per_class for row in table.rows}
    assert list(found) == [
        ("points", "density"),
        ("points", "uniform"),
        ("decode", "reencoded"),
        ("decode", "density"),
        ("decode", "uniform"),
        ("nearest", "reencoded"),
        ("nearest", "density"),
        ("nearest", "uniform"),
    ]
    images, labels = digits()
    codec = Moved()
    latents = codec.encode(torch.from_numpy(images[:, None]).float() / 255).half().float().numpy()
    for name in ("decode", "nearest"):
        small = ddoq.load(run, synthesis=name)
        own = codec.encode(small.images.float() / 255).half().float().numpy()
        for c in (0, 7):
            real, points = latents[labels == c], own[small.labels.numpy() == c]
            for weighting in ("reencoded", "density", "uniform"):
                weights = small.reweighted(weighting).weights.numpy()[small.labels.numpy() == c]  # type: ignore[arg-type]
                assert found[name, weighting][c] == pytest.approx(ddoq.w2(real, points, weights), rel=1e-5)


def test_own_cells_are_the_best_weights_of_every_class(run: Path) -> None:
    table = ddoq.weigh(run, **QUIET)
    for name in ("decode", "nearest"):
        best, *others = [row.per_class for row in table.rows if row.set == name]
        for other in others:
            assert all(a <= b * (1 + 1e-9) for a, b in zip(best, other, strict=True))
    decode = {row.weighting: row.mean for row in table.rows if row.set == "decode"}
    assert decode["reencoded"] < 0.99 * decode["density"]  # the decoder has moved the points far


def test_distances_are_stored_once_and_checked(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    shutil.copytree(run, path)
    table = ddoq.weigh(path, **QUIET)
    info = Run.open(path).info("weigh:decode")
    assert info == {row.weighting: pytest.approx(row.mean) for row in table.rows if row.set == "decode"}
    monkeypatch.setattr(distances, "w2", None)
    assert ddoq.weigh(path, **QUIET) == table
    with pytest.raises(ValueError, match="leave data out"):
        ddoq.weigh(path, digits(), **QUIET)
    kept = path / "w2" / "decode.json"
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"decode\.json is damaged"):
        ddoq.weigh(path, **QUIET)
    kept.unlink()
    monkeypatch.undo()
    assert ddoq.weigh(path, **QUIET) == table
    content = bytearray((path / "images.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "images.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"images\.safetensors is damaged"):
        ddoq.weigh(path, **QUIET)


def test_weighting_reencoded_everywhere(run: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"ipc": 5, "codec": Moved(), "synthesis": "decode", **QUIET}
    made = ddoq.distill(digits(), tmp_path / "run", weighting="reencoded", **settings)
    loaded = ddoq.load(run, weighting="reencoded")
    assert torch.equal(made.weights, loaded.weights)
    assert (made.weighting, loaded.weighting) == ("reencoded", "reencoded")
    assert not torch.equal(made.weights, ddoq.load(run).weights)
    assert torch.equal(made.reweighted("density").weights, ddoq.load(run).weights)
    totals = torch.zeros(10, dtype=torch.float64).index_add(0, made.labels, made.weights)
    assert totals.tolist() == pytest.approx([5.0] * 10)
    assert made.weights.mean().item() == pytest.approx(1)
    table = ddoq.evaluate(run, digits(), weightings=("density", "reencoded"), seeds=1, epochs=1, **QUIET)
    assert [row.weighting for row in table.rows] == ["density", "reencoded"] * 2


def test_images_that_nobody_encoded_again_have_no_such_weights(run: Path) -> None:
    small = replace(ddoq.load(run), reencoded=None)
    with pytest.raises(ValueError, match=r"use ddoq\.weigh"):
        small.reweighted("reencoded")
