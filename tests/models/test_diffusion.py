"""Partial denoising over diffusers' schedulers, the DiT as a diffusion model, and the fitted one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddoq.data.class_names import imagenet
from ddoq.machine.torchvision import ensure_importable
from ddoq.models.diffusion.model import open_diffusion
from ddoq.models.diffusion.partial import check_sampling, denoise, keep, steps_run, strength_that_keeps
from ddoq.models.fingerprint import fingerprint

ensure_importable()
from diffusers import (  # noqa: E402
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)

# diffusers' schedulers turn tensors into NumPy 2 arrays in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS = {
    "ddim": lambda: DDIMScheduler(clip_sample=False),
    "ddpm": lambda: DDPMScheduler(clip_sample=False),
    "dpm": lambda: DPMSolverMultistepScheduler(**SD),
    "pndm": lambda: PNDMScheduler(skip_prk_steps=True, **SD),
    "pndm, diffusers' default": lambda: PNDMScheduler(**SD),
    "euler": lambda: EulerDiscreteScheduler(**SD),
    "ancestral": lambda: EulerAncestralDiscreteScheduler(**SD),
    "heun": lambda: HeunDiscreteScheduler(**SD),
    "flow": lambda: FlowMatchEulerDiscreteScheduler(shift=1.0),
}


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def some_points(count: int = 3) -> Tensor:
    return torch.randn(count, 4, 4, 4, generator=torch.Generator().manual_seed(5))


def shrink(x: Tensor, t: Tensor, conditional: bool) -> Tensor:
    return x * 0.1


@pytest.mark.parametrize("name", SCHEDULERS)
def test_strength_0_returns_the_point_and_1_ignores_it(name: str) -> None:
    def run(points: Tensor, strength: float) -> Tensor:
        scheduler = SCHEDULERS[name]()
        return denoise(scheduler, shrink, points, generators(3), strength=strength, steps=10, guidance=1)

    points = some_points()
    assert torch.equal(run(points, 0), points)
    assert torch.equal(run(points, 1), run(points * -7, 1))
    assert not torch.allclose(run(points, 0.5), run(points * -7, 0.5))
    assert run(points, 0.5).isfinite().all()


class Perfect:
    """The model that knows the clean image: what it predicts leads back there."""

    def __init__(self, scheduler: Any, clean: Tensor) -> None:
        self.scheduler, self.clean = scheduler, clean

    def __call__(self, x: Tensor, t: Tensor, conditional: bool) -> Tensor:
        if isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):
            return (x - self.clean) / (t / 1000)  # noise - clean
        alpha = torch.cumprod(1 - self.scheduler.betas.double(), 0)[round(float(t))].float()
        return (x - alpha.sqrt() * self.clean) / (1 - alpha).sqrt()


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_a_perfect_model_brings_every_scheduler_to_the_clean_image(name: str, strength: float) -> None:
    scheduler = SCHEDULERS[name]()
    clean = some_points()
    model = Perfect(scheduler, clean)
    result = denoise(scheduler, model, -clean, generators(3), strength=strength, steps=50, guidance=1)
    # some schedules end a little above zero noise, or interpolate between their times
    assert float((result - clean).abs().mean()) < 0.05


@pytest.mark.parametrize("name", SCHEDULERS)
def test_an_image_depends_on_its_own_generator_alone(name: str) -> None:
    points = some_points(5)

    def run(rows: list[int]) -> Tensor:
        chosen = [generators(5)[row] for row in rows]
        return denoise(SCHEDULERS[name](), shrink, points[rows], chosen, strength=0.6, steps=10, guidance=1)

    whole = run([0, 1, 2, 3, 4])
    torch.testing.assert_close(torch.cat([run([row]) for row in range(5)]), whole)
    torch.testing.assert_close(run([4, 2, 0, 1, 3]), whole[[4, 2, 0, 1, 3]])
    assert not torch.allclose(whole[0], whole[1])


def test_the_scheduler_of_the_caller_is_left_alone() -> None:
    scheduler = DPMSolverMultistepScheduler(**SD)
    before = scheduler.timesteps.clone()
    results = [
        denoise(scheduler, shrink, some_points(), generators(3), strength=0.5, steps=7, guidance=1) for _ in range(2)
    ]
    assert torch.equal(*results)
    assert torch.equal(scheduler.timesteps, before)


def test_guidance_1_asks_the_model_once_a_step_and_2_twice() -> None:
    asked: list[bool] = []

    def predict(x: Tensor, t: Tensor, conditional: bool) -> Tensor:
        asked.append(conditional)
        return torch.full_like(x, 1.0 if conditional else 3.0)

    def run(guidance: float) -> Tensor:
        asked.clear()
        scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        return denoise(scheduler, predict, some_points(), generators(3), strength=0.5, steps=8, guidance=guidance)

    plain = run(1)
    assert asked == [True] * 4
    guided = run(2)
    assert asked == [True, False] * 4
    sigma = 1 - keep(FlowMatchEulerDiscreteScheduler(shift=1.0), 0.5, 8)
    # 3 + 2 (1 - 3) = -1 instead of 1, along a straight flow from sigma to 0
    torch.testing.assert_close(guided - plain, torch.full_like(plain, 2 * sigma))


def test_keep_is_the_square_root_of_alpha_bar_at_the_start() -> None:
    # by hand: the linear schedule at its timestep 480 of 25 leading steps, 13 of them run (0, 40 ... 480)
    alpha = np.cumprod(1 - np.linspace(0.0001, 0.02, 1000))
    assert keep(DDIMScheduler(), 13 / 25, 25) == pytest.approx(math.sqrt(alpha[480]), abs=1e-4)
    assert keep(DDIMScheduler(), 0, 25) == 1
    assert keep(DDIMScheduler(), 1, 25) == 0
    # Stable Diffusion's schedule at its timestep 699, whichever way the scheduler scales its noise
    alpha = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    for kind in (DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler):
        assert keep(kind(**SD), 0.7, 1000) == pytest.approx(math.sqrt(alpha[699]), abs=2e-3), kind
    assert keep(FlowMatchEulerDiscreteScheduler(shift=1.0), 0.25, 1000) == pytest.approx(1 - 0.25, abs=0.002)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_strength_that_keeps_is_found(name: str) -> None:
    scheduler = SCHEDULERS[name]()
    strength = strength_that_keeps(scheduler, 0.29, 100)
    assert keep(scheduler, strength, 100) == pytest.approx(0.29, abs=0.03)
    assert steps_run(strength, 100) == round(strength * 100)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_strength_that_keeps_never_ignores_the_point(name: str) -> None:
    assert strength_that_keeps(SCHEDULERS[name](), 0.0, 2) == 0.5
    with pytest.raises(ValueError, match="steps=1 "):
        strength_that_keeps(SCHEDULERS[name](), 0.29, 1)


def test_bad_sampling_settings_are_named() -> None:
    for strength in (-0.1, 1.5, math.nan):
        with pytest.raises((TypeError, ValueError), match="strength"):
            check_sampling(strength, 25, 1)
    with pytest.raises((TypeError, ValueError), match=r"strength 0\.01 runs none of 25"):
        check_sampling(0.01, 25, 1)
    for steps in (0, 2.5, True):
        with pytest.raises((TypeError, ValueError), match="steps"):
            check_sampling(0.5, steps, 1)  # type: ignore[arg-type]
    for guidance in (-1, math.inf):
        with pytest.raises((TypeError, ValueError), match="guidance"):
            check_sampling(0.5, 25, guidance)
    with pytest.raises((TypeError, ValueError), match="generators"):
        denoise(DDIMScheduler(), shrink, some_points(), generators(2), strength=0.5, steps=5, guidance=1)


def tiny_dit(classes: int = 3, out_channels: int = 4) -> DiTTransformer2DModel:
    torch.manual_seed(0)
    return DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=out_channels,
        num_layers=2,
        sample_size=4,
        patch_size=2,
        num_embeds_ada_norm=classes,
    )


NAMES = ("ant", "bee", "cat")


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_strength_1_equals_diffusers_dit_pipeline(guidance: float) -> None:
    transformer = tiny_dit(classes=1000, out_channels=8)  # the pipeline's null class is always 1000
    vae = AutoencoderKL(block_out_channels=[8], norm_num_groups=4, latent_channels=4)
    scheduler = DDIMScheduler()
    pipeline = DiTPipeline(transformer=transformer.eval(), vae=vae, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    seen: list[Tensor] = []
    pipeline.vae.decode = lambda z: seen.append(z * vae.config.scaling_factor) or SimpleNamespace(sample=z)
    pipeline([7, 991], guidance_scale=guidance, generator=generators(2), num_inference_steps=9)
    names = [list(imagenet())[label] for label in (991, 7)]
    model = open_diffusion((transformer, scheduler), names)
    ours = model.sample(
        torch.zeros(2, 4, 4, 4), torch.tensor([1, 0]), generators(2), strength=1, steps=9, guidance=guidance
    )
    torch.testing.assert_close(ours, seen[0], atol=1e-4, rtol=1e-4)


class Painter(nn.Module):
    """A transformer whose flow leads to its class index, painted over the whole image, or to -1 without a class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.config = {"num_embeds_ada_norm": classes, "in_channels": 4, "sample_size": 4}
        self.dtype = torch.float32

    def forward(self, x: Tensor, timestep: Tensor, class_labels: Tensor) -> Any:
        known = torch.where(class_labels == self.config["num_embeds_ada_norm"], -1, class_labels)
        painted = known.float().reshape(-1, 1, 1, 1).expand_as(x)
        return type("Output", (), {"sample": (x - painted) / (timestep.reshape(-1, 1, 1, 1) / 1000)})


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_classes_do_not_mix(guidance: float) -> None:
    model = open_diffusion((Painter(6), FlowMatchEulerDiscreteScheduler(shift=1.0)), [*"abcdef"])
    classes = torch.tensor([4, 0, 5, 5, 1])
    result = model.sample(some_points(5), classes, generators(5), strength=0.8, steps=10, guidance=guidance)
    painted = classes + (guidance - 1) * (classes + 1)
    torch.testing.assert_close(result, painted.float().reshape(-1, 1, 1, 1).expand_as(result), atol=1e-4, rtol=1e-4)


def test_classes_are_matched_by_name_where_the_model_has_names(tmp_path: Path) -> None:
    tiny_dit().save_pretrained(tmp_path / "transformer")
    DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    assert open_diffusion(tmp_path, NAMES).labels.tolist() == [0, 1, 2]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"3 classes.* 2"):
        open_diffusion(tmp_path, NAMES[:2])
    (tmp_path / "model_index.json").write_text(
        json.dumps({"id2label": {"0": "bee, honey bee", "2": "ant", "1": "cat"}})
    )
    assert open_diffusion(tmp_path, ("ant", "honey bee")).labels.tolist() == [2, 0]  # type: ignore[attr-defined]
    (tmp_path / "model_index.json").write_text(
        json.dumps({"id2label": {"0": "crane, bird", "2": "ant, ant", "1": "crane, machine"}})
    )
    assert open_diffusion(tmp_path, ("ant", "bird")).labels.tolist() == [2, 0]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"labels 0 and 1 .*'crane'"):
        open_diffusion(tmp_path, ("ant", "crane"))
    (tmp_path / "ddoq.json").write_text(json.dumps({"class_names": ["cat", "bee", "ant"]}))
    assert open_diffusion(str(tmp_path), NAMES).labels.tolist() == [2, 1, 0]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="'dog'"):
        open_diffusion(tmp_path, ("ant", "dog"))


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    tiny_dit().save_pretrained(tmp_path / "transformer", safe_serialization=False)
    DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.bin").is_file()
    with pytest.raises(OSError, match=r"diffusion_pytorch_model\.safetensors"):
        open_diffusion(tmp_path, NAMES)


def test_a_dit_sees_standardised_latents_and_gives_them_back_in_scale(tmp_path: Path) -> None:
    tiny_dit().save_pretrained(tmp_path / "transformer")
    DDIMScheduler(clip_sample=False).save_pretrained(tmp_path / "scheduler")
    classes, points = torch.tensor([0, 1, 2]), some_points()
    plain = open_diffusion(tmp_path, NAMES)
    expected = plain.sample(points, classes, generators(3), strength=0.5, steps=6, guidance=2)
    scale = {"latent_mean": [1.0, 2.0, 3.0, 4.0], "latent_std": [5.0, 6.0, 7.0, 8.0]}
    (tmp_path / "ddoq.json").write_text(json.dumps(scale))
    scaled = open_diffusion(tmp_path, NAMES)
    mean, std = (torch.tensor(values).reshape(1, 4, 1, 1) for values in scale.values())
    result = scaled.sample(points * std + mean, classes, generators(3), strength=0.5, steps=6, guidance=2)
    torch.testing.assert_close(result, expected * std + mean, atol=1e-4, rtol=1e-4)
    assert fingerprint(plain) != fingerprint(scaled)
    assert torch.equal(scaled.sample(points, classes, generators(3), strength=0, steps=6, guidance=2), points)


def test_fingerprint_of_a_dit_covers_schedule_and_labels() -> None:
    models = [
        open_diffusion((tiny_dit(), DDIMScheduler()), NAMES),
        open_diffusion((tiny_dit(), DDIMScheduler(beta_schedule="squaredcos_cap_v2")), NAMES),
        open_diffusion((tiny_dit(), DDPMScheduler()), NAMES),
        open_diffusion((tiny_dit(out_channels=8), DDIMScheduler()), NAMES),
    ]
    assert len({fingerprint(model) for model in models}) == 4
    assert fingerprint(models[0]) == fingerprint(open_diffusion((tiny_dit(), DDIMScheduler()), NAMES))


def test_what_is_no_diffusion_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no/such"):
        open_diffusion("no/such", NAMES)
    with pytest.raises(FileNotFoundError, match="transformer/config"):
        open_diffusion(tmp_path, NAMES)
    with pytest.raises(TypeError, match="int"):
        open_diffusion(3, NAMES)
    model = open_diffusion((tiny_dit(), DDIMScheduler()), NAMES)
    with pytest.raises(ValueError, match=r"\(4, 4, 4\).*\(4, 8, 8\)"):
        model.sample(torch.zeros(1, 4, 8, 8), torch.tensor([0]), generators(1), strength=1, steps=2, guidance=1)

    tiny_dit().save_pretrained(tmp_path / "transformer")
    (tmp_path / "scheduler").mkdir()
    schedule = tmp_path / "scheduler" / "scheduler_config.json"
    for text, what in (
        ("[]", "list"),
        ("{}", "None"),
        *((f'{{"_class_name": "{n}"}}', n) for n in ("nope", "UNet2DModel")),
    ):
        schedule.write_text(text)
        with pytest.raises(ValueError, match=rf"scheduler_config\.json .*{what}"):
            open_diffusion(tmp_path, NAMES)

    class Own:
        def sample(self, points: Tensor, *rest: Any, **more: Any) -> Tensor:
            return points

    own = Own()
    assert open_diffusion(own, NAMES) is own
