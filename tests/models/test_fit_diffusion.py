"""A diffusion model that is fitted: its classes and scale, the same bytes, steps, wrong input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_diffusion import generators

from ddoq.models.diffusion.model import open_diffusion
from ddoq.models.fitting.dit import fit_diffusion, patch_size

# diffusers' schedulers turn tensors into NumPy 2 arrays in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def blobs(n: int = 192) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Two classes of latents: bright left halves and bright right halves, far from standard scale."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    latents = rng.normal(0, 0.3, (n, 1, 4, 4))
    latents[labels == 0, :, :, :2] += 2
    latents[labels == 1, :, :, 2:] += 2
    return (latents * 10 + 40).astype(np.float32), labels


@pytest.mark.parametrize("objective", ["velocity", "epsilon", "flow"])
def test_fitted_diffusion_learns_its_classes_and_scale(tmp_path: Path, objective: Any) -> None:
    latents, labels = blobs()
    facts = fit_diffusion(
        latents,
        labels,
        2,
        tmp_path / "model",
        seed=0,
        class_names=["left", "right"],
        objective=objective,
        steps=150,
        width=32,
        depth=2,
        progress=False,
    )
    assert facts["loss"] < (1 if objective == "flow" else 0.5)  # of a target whose variance is 2, otherwise 1
    model = open_diffusion(tmp_path / "model", ["right", "left"])
    assert model.keep(model.default_strength(25), 25) == pytest.approx(0.29, abs=0.03)  # type: ignore[attr-defined]
    classes = torch.tensor([0] * 8 + [1] * 8)
    made = model.sample(torch.zeros(16, 1, 4, 4), classes, generators(16), strength=1, steps=20, guidance=1.5)
    left, right = made[..., :2].mean((1, 2, 3)), made[..., 2:].mean((1, 2, 3))
    assert (right[:8] > left[:8]).all()
    assert (left[8:] > right[8:]).all()
    torch.testing.assert_close(right[:8].mean(), torch.tensor(60.0), atol=4, rtol=0)
    torch.testing.assert_close(right[8:].mean(), torch.tensor(40.0), atol=4, rtol=0)


def test_fitted_diffusion_is_the_same_to_the_byte_and_leaves_torch_alone(tmp_path: Path) -> None:
    latents, labels = blobs()
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.manual_seed(ord(name))
        before = torch.get_rng_state()
        fit_diffusion(latents, labels, 2, tmp_path / name, seed=seed, steps=3, width=32, depth=1, progress=False)
        assert torch.equal(torch.get_rng_state(), before)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 4
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() != (tmp_path / "c" / weights).read_bytes()


@pytest.mark.parametrize("steps", [1, 8, 9, 10])
def test_a_diffusion_is_fitted_in_any_number_of_steps(tmp_path: Path, steps: int) -> None:
    facts = fit_diffusion(*blobs(8), 2, tmp_path, seed=0, steps=steps, width=32, depth=1, progress=False)
    assert facts["steps"] == steps


def test_fit_diffusion_refuses_what_it_cannot_train(tmp_path: Path) -> None:
    latents, labels = blobs()
    for bad, message in (
        ((latents[:, :, :3], labels, 2), "square"),
        ((latents, labels[:-1], 2), "labels"),
        ((latents, labels, 1), "0 to 0"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_diffusion(*bad, tmp_path, seed=0, progress=False)
    for option in ({"steps": 0}, {"width": 40}):
        with pytest.raises(ValueError, match=r"step|width"):
            fit_diffusion(latents, labels, 2, tmp_path, seed=0, progress=False, **option)
    latents[5] = np.inf
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(ValueError, match=r"diffusion model diverged at step 1 of 2.*another seed.*of your own"),
    ):
        fit_diffusion(latents, labels, 2, tmp_path, seed=0, steps=2, width=32, depth=1, progress=False)
    assert [patch_size(side) for side in (4, 7, 8, 14, 16, 28, 32, 64)] == [1, 1, 1, 1, 1, 2, 2, 4]
