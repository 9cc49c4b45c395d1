"""Pretrained pipelines as codec and diffusion: tiny random ones, saved and loaded, against diffusers' own pipelines."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ddoq
from ddoq.data.class_names import imagenet, label_names
from ddoq.data.classes import match_labels
from ddoq.machine.torchvision import ensure_importable
from ddoq.models.codecs.codec import open_codec
from ddoq.models.diffusion.dit import DiTDiffusion
from ddoq.models.diffusion.model import open_diffusion
from ddoq.models.diffusion.prompts import prompts, spoken
from ddoq.models.fingerprint import fingerprint
from ddoq.storage.run import Run

ensure_importable()
pytest.importorskip("transformers")
from diffusers import (  # noqa: E402
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from pipelines import SD, dit, save, stable, stable_xl, unet  # noqa: E402

# diffusers' schedulers turn tensors into NumPy 2 arrays in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

NAMES = ("cat", "dog", "fox")
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "ddim": lambda: DDIMScheduler(clip_sample=False, **SD),
    "v": lambda: DDIMScheduler(clip_sample=False, prediction_type="v_prediction", **SD),
    "ddpm": lambda: DDPMScheduler(clip_sample=False, **SD),
    "pndm": lambda: PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **SD),
    "dpm": lambda: DPMSolverMultistepScheduler(**SD),
    "euler": lambda: EulerDiscreteScheduler(**SD),
}
PIPELINES: dict[str, Callable[[], Any]] = {
    "sd": lambda: stable(SCHEDULERS["pndm"]()),
    "sd-v": lambda: stable(SCHEDULERS["v"]()),
    "sdxl": lambda: stable_xl(SCHEDULERS["euler"]()),
    "dit": dit,
    "flow-sd": lambda: stable(FlowMatchEulerDiscreteScheduler(shift=1.0)),
    "flow-dit": lambda: dit(FlowMatchEulerDiscreteScheduler(shift=3.0)),
}


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def some_points(count: int = 3) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save(make(), tmp_path_factory.mktemp(name)) for name, make in PIPELINES.items()}


def images(n: int = 12) -> tuple[np.ndarray, list[str]]:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), np.uint8)
    return pixels, [NAMES[i % 3] for i in range(n)]


def distil(out: Path, diffusion: Any, **options: Any) -> ddoq.DistilledDataset:
    settings = {"ipc": 2, "steps": 4, "strength": 0.5, "progress": False, "device": "cpu", **options}
    return ddoq.distill(images(), out, diffusion=diffusion, **settings)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_from_a_folder_is_codec_and_diffusion(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    small = distil(tmp_path / "a", str(folders[name]))
    assert small.images.shape == (6, 3, 16, 16)
    run = Run.open(tmp_path / "a")
    assert run.info("encode")["latent_shape"] == [4, 8, 8]
    info = run.info("synthesize")
    assert info["strength"] == 0.5
    assert 0 < info["keep"] < 1
    assert info["precision"] == "float32"
    again = distil(tmp_path / "b", PIPELINES[name]())  # the object gives the same as its folder
    assert torch.equal(again.images, small.images)
    assert again.manifest["config"] == small.manifest["config"]
    other = distil(tmp_path / "c", str(folders[name]), seed=1, weighting="uniform")
    assert not torch.equal(other.images, small.images)


@pytest.mark.parametrize("name", PIPELINES)
def test_strength_0_gives_the_decoded_point_and_1_ignores_it(folders: dict[str, Path], name: str) -> None:
    model, codec = open_diffusion(folders[name], NAMES), open_codec(folders[name])
    points, classes = some_points(), torch.tensor([0, 2, 1])

    def run(points: Tensor, strength: float, seed: int = 0) -> Tensor:
        return model.sample(points, classes, generators(3, seed), strength=strength, steps=4, guidance=2)

    assert torch.equal(codec.decode(run(points, 0)), codec.decode(points))
    assert torch.equal(run(points, 1), run(points * -3, 1))
    assert torch.equal(run(points, 0.5), run(points, 0.5))
    assert not torch.allclose(run(points, 0.5), run(points * -3, 0.5))
    assert not torch.allclose(run(points, 0.5), run(points, 0.5, seed=9))
    whole = run(points, 0.5)
    for row in range(3):  # an image depends on its class and its own generator, not on its neighbours
        alone = model.sample(points[[row]], classes[[row]], [generators(3)[row]], strength=0.5, steps=4, guidance=2)
        torch.testing.assert_close(alone[0], whole[row], atol=1e-4, rtol=1e-4)


def test_a_scheduler_that_must_be_told_a_shift_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = dit(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))
    folder = save(pipeline, tmp_path / "pipeline")
    message = "the scheduler of {}, a FlowMatchEulerDiscreteScheduler, has use_dynamic_shifting: .*Set .* to false"
    with pytest.raises(ValueError, match=message.format("the diffusion model")):
        open_diffusion((pipeline.transformer, pipeline.scheduler), NAMES)
    monkeypatch.setattr(type(pipeline.transformer), "from_pretrained", None)  # refused before the weights are read
    with pytest.raises(ValueError, match=message.format(re.escape(str(folder)))):
        open_diffusion(folder, NAMES)


def test_exp_mu_is_the_shift_that_stands_for_it() -> None:
    """What the refusal advises."""
    dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    static = FlowMatchEulerDiscreteScheduler(shift=float(np.exp(0.8)))
    even = np.linspace(1, 1 / 7, 7).tolist()
    dynamic.set_timesteps(sigmas=even, mu=0.8)
    static.set_timesteps(sigmas=even)
    torch.testing.assert_close(static.sigmas, dynamic.sigmas)


@pytest.mark.parametrize("name", PIPELINES)
def test_guidance_1_runs_no_unconditional_pass(folders: dict[str, Path], name: str) -> None:
    model: Any = open_diffusion(folders[name], NAMES)
    calls: list[int] = []
    denoiser = model.transformer if "dit" in name else model.unet
    denoiser.register_forward_hook(lambda *_: calls.append(1))
    for guidance, passes in ((1.0, 1), (3.0, 2)):
        calls.clear()
        model.sample(some_points(), torch.tensor([0, 1, 2]), generators(3), strength=0.5, steps=8, guidance=guidance)
        times = len({"sd": range(5)}.get(name, range(4)))  # half of eight; PNDM's second time is run twice
        assert len(calls) == passes * times


@pytest.mark.parametrize("strength", [0.3, 0.7])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_equals_diffusers_img2img_below_strength_1(scheduler: str, strength: float) -> None:
    pipeline = stable(SCHEDULERS[scheduler]())
    points = some_points(2)
    theirs = pipeline(
        ["a photo of a cat", "a photo of a fox"],
        image=points,
        strength=strength,
        num_inference_steps=10,
        guidance_scale=5.0,
        negative_prompt=["cartoon"] * 2,
        generator=generators(2),
        output_type="latent",
    ).images
    model = open_diffusion(pipeline, NAMES, negative_prompt="cartoon")
    ours = model.sample(points, torch.tensor([0, 2]), generators(2), strength=strength, steps=10, guidance=5.0)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("negative", [None, "cartoon"])
def test_equals_diffusers_xl_img2img_below_strength_1(negative: str | None) -> None:
    pipeline = stable_xl()
    points = some_points(2)
    theirs = pipeline(
        ["a photo of a cat", "a photo of a fox"],
        image=points,
        strength=0.7,
        num_inference_steps=10,
        guidance_scale=5.0,
        negative_prompt=negative and [negative] * 2,
        generator=generators(2),
        output_type="latent",
    ).images
    model = open_diffusion(pipeline, NAMES, negative_prompt=negative)
    ours = model.sample(points, torch.tensor([0, 2]), generators(2), strength=0.7, steps=10, guidance=5.0)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


class Painter(UNet2DConditionModel):
    """A UNet whose flow leads to a number of what it is told, painted over the whole image."""

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Any:
        painted = encoder_hidden_states[..., 0].mean(1).reshape(-1, 1, 1, 1)
        return type("Output", (), {"sample": (sample - painted) / (timestep / 1000)})


def test_prompts_do_not_mix_and_are_encoded_once() -> None:
    pipeline = stable(FlowMatchEulerDiscreteScheduler(shift=1.0), Painter)
    seen: list[int] = []
    pipeline.text_encoder.register_forward_hook(lambda *call: seen.append(len(call[2][0])))
    model = open_diffusion(pipeline, NAMES, prompt="{}")
    classes = torch.tensor([2, 0, 0, 1, 2])
    for _ in range(2):
        result = model.sample(some_points(5), classes, generators(5), strength=0.8, steps=10, guidance=1)
    assert seen == [4]  # three prompts and the negative one, together
    embedded = pipeline.encode_prompt(list(NAMES), "cpu", 1, False)[0][..., 0].mean(1)
    assert min(abs(a - b) for a, b in itertools.combinations(embedded.tolist(), 2)) > 1e-3
    expected = embedded[classes].reshape(-1, 1, 1, 1).expand_as(result)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)


class Poster(torch.nn.Module):
    """A transformer whose flow leads to a tenth of its label, painted over the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"num_embeds_ada_norm": 3, "in_channels": 3, "sample_size": 16}
        self.dtype = torch.float32

    def forward(self, x: Tensor, timestep: Tensor, class_labels: Tensor) -> Any:
        painted = (class_labels / 10).reshape(-1, 1, 1, 1).expand_as(x)
        return type("Output", (), {"sample": (x - painted) / (timestep.reshape(-1, 1, 1, 1) / 1000)})


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_each_image_shows_the_label_of_its_class(tmp_path: Path, batch_size: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    model = DiTDiffusion(Poster(), scheduler, NAMES, names={0: "fox", 1: "cat", 2: "dog"})
    small = distil(tmp_path / "run", model, codec="identity", guidance=1.0, ipc=3, batch_size=batch_size)
    shown = {"fox": 0, "cat": 26, "dog": 51}  # of 255
    for image, label in zip(small.images, small.labels.tolist(), strict=True):
        assert set(image.flatten().tolist()) == {shown[small.class_names[label]]}


def test_prompts_speak_imagenets_identifiers_and_others_as_they_are() -> None:
    assert prompts("{}", ["n02102040", "n02086240", "fire_truck"]) == ["English springer", "Shih-Tzu", "fire truck"]
    words = [spoken(wnid) for wnid in imagenet()]
    assert len(words) == len(set(words)) == 1000
    for bad in ("a photo", "{} and {}", "{name}", "{} {"):
        with pytest.raises(ValueError, match="prompt must have one"):
            prompts(bad, NAMES)
    with pytest.raises(ValueError, match=r"prompt 'a{50} cat' has 55 tokens.* 40"):
        open_diffusion(stable(), NAMES, prompt="a" * 50 + " {}")


def test_a_dit_of_1000_labels_is_matched_by_name_never_by_index(tmp_path: Path) -> None:
    wnids, words = list(imagenet()), list(imagenet().values())
    published = [{134: "crane", 517: "crane"}.get(label, name) for label, name in enumerate(words)]
    id2label = dict(enumerate(published))
    folder = save(dit(classes=1000, id2label=id2label), tmp_path)
    nette = ("n03888257", "n01440764")  # parachute, tench
    for model in (folder, dit(classes=1000, id2label=id2label)):  # the object has lost one of the cranes
        assert open_diffusion(model, nette).labels.tolist() == [701, 0]  # type: ignore[attr-defined]
        assert open_diffusion(model, ("tench", "parachute, chute")).labels.tolist() == [0, 701]  # type: ignore[attr-defined]
        assert open_diffusion(model, [wnids[517], wnids[134]]).labels.tolist() == [517, 134]  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match=r"labels 134 and 517 .*'crane'"):
            open_diffusion(model, ("crane", "tench"))
        with pytest.raises(ValueError, match=r"class 'cat' \(1 unknown"):
            open_diffusion(model, ("cat", "tench"))
    assert match_labels(wnids[::-1], id2label | dict(enumerate(words)), "model") == list(range(1000))[::-1]
    with pytest.raises(ValueError, match="'tench' and 'n01440764' are both label 0"):
        match_labels(("tench", "n01440764"), dict(enumerate(words)), "model")
    assert label_names({0: "cat", 1: "dog"}, 1000) == {0: "cat", 1: "dog"}
    assert label_names(None, 10) is None


def test_a_transformer_of_the_old_class_is_known_as_a_dit(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = save(dit(), tmp_path)
    path = folder / "transformer" / "config.json"
    path.write_text(path.read_text().replace("DiTTransformer2DModel", "Transformer2DModel"))
    assert fingerprint(open_diffusion(folder, NAMES)) == fingerprint(open_diffusion(folders["dit"], NAMES))


def test_a_hub_id_without_a_network_is_named_with_the_local_way(tmp_path: Path) -> None:
    for open_it in (
        lambda: open_diffusion("owner/model", NAMES),
        lambda: open_codec("owner/model"),
        lambda: distil(tmp_path / "run", "owner/model"),
        lambda: ddoq.distill(images(), tmp_path / "run", method="d4m", ipc=2, progress=False),
    ):
        with pytest.raises(FileNotFoundError, match=r"(owner/model|stable-diffusion-v1-5)'.*the hub.*local folder"):
            open_it()
    assert not (tmp_path / "run").exists()


def test_a_path_that_a_folder_here_lacks_is_not_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    for open_it in (lambda: open_codec("run/codec"), lambda: open_diffusion("run/diffusion", NAMES)):
        with pytest.raises(FileNotFoundError, match=r"'run/(codec|diffusion)' is no folder, though 'run' is one here"):
            open_it()


BY_ID = """
from ddoq.models.codecs.codec import open_codec
from ddoq.models.fingerprint import fingerprint
from ddoq.models.diffusion.model import open_diffusion
print(fingerprint(open_codec("owner/tiny")), fingerprint(open_diffusion("owner/tiny", ("cat", "dog", "fox"))))
"""


@pytest.mark.parametrize("name", ["sd", "sdxl", "dit"])
def test_a_hub_id_that_was_downloaded_before_opens_without_a_network(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    cache = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(folders[name], cache / "snapshots" / ("0" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BY_ID]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    local = open_codec(folders[name]), open_diffusion(folders[name], NAMES)
    assert done.stdout.split() == [fingerprint(model) for model in local], done.stderr


def test_pipelines_that_are_not_known_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    pipeline = stable()
    pipeline.unet = unet(class_embed_type="timestep")
    with pytest.raises(ValueError, match="StableDiffusionImg2ImgPipeline wants class_embed_type 'timestep'"):
        open_diffusion(pipeline, NAMES)
    with pytest.raises(ValueError, match=r"text_encoder of .* is absent"):
        open_diffusion(_without(stable(), "text_encoder"), NAMES)
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text('{"_class_name": "SD3Transformer2DModel"}')
    with pytest.raises(ValueError, match="SD3Transformer2DModel"):
        open_diffusion(tmp_path, NAMES)
    with pytest.raises(ValueError, match=r"\(b, 4, h, w\).*\(1, 3, 8, 8\)"):
        open_diffusion(folders["sd"], NAMES).sample(
            torch.zeros(1, 3, 8, 8), torch.tensor([0]), generators(1), strength=0.5, steps=4, guidance=1
        )
    with pytest.raises(ValueError, match="prompt and negative_prompt are for Stable Diffusion"):
        distil(tmp_path / "run", folders["dit"], prompt="{}")


def _without(pipeline: Any, part: str) -> Any:
    setattr(pipeline, part, None)
    return pipeline


def test_fingerprint_tells_prompts_weights_and_schedules_apart(folders: dict[str, Path]) -> None:
    changed = stable(SCHEDULERS["pndm"]())
    with torch.no_grad():
        changed.text_encoder.get_input_embeddings().weight[0, 0] += 1e-3
    models = [
        open_diffusion(folders["sd"], NAMES),
        open_diffusion(folders["sd"], NAMES, prompt="{}"),
        open_diffusion(folders["sd"], NAMES, negative_prompt="cartoon"),
        open_diffusion(folders["sd"], NAMES[::-1]),
        open_diffusion(folders["sd-v"], NAMES),
        open_diffusion(folders["sdxl"], NAMES),
        open_diffusion(changed, NAMES),
    ]
    assert len({fingerprint(model) for model in models}) == len(models)
    assert fingerprint(models[0]) == fingerprint(open_diffusion(stable(SCHEDULERS["pndm"]()), NAMES))


def test_precision_is_what_is_asked_for(folders: dict[str, Path]) -> None:
    points, classes = some_points(), torch.tensor([0, 1, 2])
    for name in ("sd", "sdxl", "dit"):
        exact, half = (open_diffusion(folders[name], NAMES, precision=p) for p in ("float32", "bfloat16"))
        results = [
            model.sample(points, classes, generators(3), strength=0.5, steps=4, guidance=2) for model in (exact, half)
        ]
        assert results[1].dtype == torch.float32
        assert half.facts["precision"] == "bfloat16"  # type: ignore[attr-defined]
        assert not torch.equal(*results)
        torch.testing.assert_close(results[1], results[0], atol=0.1, rtol=0.1)
    codec: Any = open_codec(folders["sd"], precision="float16")
    assert codec.model.dtype == torch.float32  # its configuration has force_upcast
    with pytest.raises(ValueError, match="precision"):
        open_codec(folders["sd"], precision="float8")  # type: ignore[arg-type]
