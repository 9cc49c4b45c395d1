"""Pretrained pipelines as codec and diffusion: tiny random ones, saved and loaded, against diffusers' own pipelines."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
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
from ddoq.methods.catalogue import METHODS
from ddoq.models.codecs.codec import open_codec
from ddoq.models.diffusion.dit import DiTDiffusion
from ddoq.models.diffusion.model import open_diffusion
from ddoq.models.diffusion.prompts import prompts, spoken
from ddoq.models.diffusion.stable import StableDiffusion
from ddoq.models.diffusion.texts import TextEncoders
from ddoq.models.fingerprint import fingerprint
from ddoq.models.parts import PipelineFiles
from ddoq.reporting.call import call
from ddoq.storage.run import Run, RunError

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


def test_a_sampled_posterior_depends_on_seed_and_image_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    def latents(name: str, **options: Any) -> np.ndarray:
        distil(tmp_path / name, None, codec=folders["sd"], synthesis="decode", steps=None, strength=None, **options)
        return np.concatenate([ddoq.stages.latents.read_latents(Run.open(tmp_path / name), c)[0] for c in range(3)])

    mean = latents("mean")
    sampled = latents("sampled", posterior="sample")
    assert not np.array_equal(mean, sampled)
    np.testing.assert_allclose(latents("batches", posterior="sample", batch_size=5), sampled, atol=2e-3)
    assert np.array_equal(latents("again", posterior="sample"), sampled)
    assert not np.allclose(latents("seed", posterior="sample", seed=1), sampled, atol=1e-2)
    codec: Any = open_codec(folders["sd"], posterior="sample")
    pixels = torch.rand(400, 3, 2, 2).expand(400, 3, 2, 2)[:1].repeat(400, 1, 1, 1)
    drawn = codec.encode(pixels, generators(400))
    posterior = codec.model.encode(pixels[:1] * 2 - 1).latent_dist
    torch.testing.assert_close(drawn.mean(0), posterior.mean[0] * 0.5, atol=0.15, rtol=0)
    torch.testing.assert_close(drawn.std(0), posterior.std[0] * 0.5, atol=0.1, rtol=0.1)
    with pytest.raises(ValueError, match="posterior"):
        open_codec("identity", posterior="sample")


def test_method_d4m_is_recorded_and_every_value_can_be_given(folders: dict[str, Path], tmp_path: Path) -> None:
    small = distil(
        tmp_path / "run", str(folders["sd"]), method="d4m", image_size=16, output_size=8, strength=None, steps=None
    )
    assert small.images.shape[1:] == (3, 8, 8)
    config, info = small.manifest["config"], Run.open(tmp_path / "run").info("synthesize")
    assert (config["method"], config["weighting"], config["output_size"]) == ("d4m", "uniform", 8)
    published = {
        "posterior": "sample",
        "quantizer": "minibatch",
        "strength": 0.7,
        "steps": 50,
        "guidance": 8.0,
        "prompt": "{}",
        "negative_prompt": "cartoon, anime, painting",
    }
    assert config["options"].items() >= published.items()
    assert small.weights.tolist() == [1.0] * 6
    assert info["prompts"] == list(NAMES)
    assert info["negative_prompt"] == "cartoon, anime, painting"
    assert info["keep"] == pytest.approx(0.29, abs=0.02)  # as the schedule of 1,000 steps has it at strength 0.7
    assert (METHODS["d4m"].image_size, METHODS["d4m"].output_size) == (512, 224)
    assert "made by ddoq with method d4m." in (tmp_path / "run" / "images" / "README.md").read_text()
    with pytest.raises(RunError, match="negative_prompt"):
        distil(
            tmp_path / "run",
            str(folders["sd"]),
            method="d4m",
            image_size=16,
            output_size=8,
            strength=None,
            steps=None,
            negative_prompt="",
        )


def test_method_dit_is_labelled_a_reconstruction_wherever_it_shows(folders: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = distil(run, str(folders["dit"]), method="dit", image_size=16, strength=None, steps=6, controls=("nearest",))
    assert "a reconstruction" in repr(small)
    assert small.manifest["config"]["method"] == "dit"  # no text for readers among the settings
    assert "a reconstruction" in (run / "images" / "README.md").read_text()
    table = ddoq.evaluate(run, images(), seeds=1, epochs=1, progress=False)
    assert "dit (a reconstruction" in str(table)
    assert table.to_csv().count("method dit (a reconstruction") == len(table.rows)
    assert r"{\footnotesize dit: method dit (a reconstruction" in table.to_latex()
    assert "method dit (a reconstruction" in str(ddoq.weigh(run, progress=False))
    assert {row.set for row in table.rows} == {"dit nearest", "dit"}
    assert small.manifest["config"]["options"]["guidance"] == 4
    info = Run.open(run).info("synthesize")
    assert info["keep"] == pytest.approx(0.29, abs=0.1)
    assert info["labels"] == [0, 1, 2]


def test_controls_have_the_output_size(folders: dict[str, Path], tmp_path: Path) -> None:
    distil(tmp_path / "run", str(folders["sd"]), output_size=10, controls=("nearest", "decode"))
    for name in ("diffuse", "nearest", "decode"):
        assert ddoq.load(tmp_path / "run", synthesis=name).images.shape == (6, 3, 10, 10)


@pytest.mark.parametrize(("name", "synthesis"), [("sd", "diffuse"), ("sd", "decode"), ("dit", "nearest")])
def test_a_model_gives_the_size_of_images(folders: dict[str, Path], tmp_path: Path, name: str, synthesis: Any) -> None:
    pixels, labels = images()
    small = ddoq.distill(
        (pixels[:, :9, :9], labels),
        tmp_path / "run",
        ipc=1,
        diffusion=folders[name],
        synthesis=synthesis,
        steps=2 if synthesis == "diffuse" else None,
        progress=False,
    )
    assert small.images.shape[1:] == (3, 16, 16)


def test_what_a_synthesis_does_not_need_is_not_read(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load = PipelineFiles.load

    def watched(self: PipelineFiles, part: str, *arguments: Any) -> Any:
        read.append(part)
        return load(self, part, *arguments)

    monkeypatch.setattr(PipelineFiles, "load", watched)
    run, settings = tmp_path / "run", {"method": "d4m", "image_size": 16, "synthesis": "decode", "prompt": "one {}"}
    small = distil(run, str(folders["sd"]), **settings, steps=None, strength=None)
    assert read == ["vae"]
    more = distil(run, str(folders["sd"]), **settings, steps=2, controls=("diffuse",))  # it can still be added
    assert torch.equal(more.images, small.images)
    assert {"unet", "text_encoder"} < set(read)
    info = Run.open(run).info("synthesize:diffuse")
    assert (info["model"], info["prompts"][0]) == ("UNet2DConditionModel", "one cat")
    with pytest.raises(ValueError, match="prompt and negative_prompt are for Stable Diffusion"):
        distil(tmp_path / "dit", str(folders["dit"]), **{**settings, "method": "ddoq"}, steps=None, strength=None)


@pytest.mark.parametrize("whole", [True, False], ids=["pipeline", "parts"])
def test_a_diffused_control_is_added_to_decoded_points(tmp_path: Path, whole: bool) -> None:
    pipeline = dit()
    given = pipeline if whole else (pipeline.transformer, pipeline.scheduler)
    options = {"codec": pipeline.vae, "synthesis": "decode", "image_size": 16}
    points = distil(tmp_path, given, **options, steps=None, strength=None)
    again = distil(tmp_path, given, **options, controls=("diffuse",))
    diffused = ddoq.load(tmp_path, synthesis="diffuse")
    made_by = call(Run.open(tmp_path).manifest)
    assert made_by is not None
    assert "--strength 0.5 " in made_by[1]
    assert "--steps 4 " in made_by[1]
    assert torch.equal(again.images, points.images)
    assert diffused.images.shape == points.images.shape
    assert not torch.equal(diffused.images, points.images)
    assert torch.equal(diffused.weights, points.weights)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_pipelines import distil
from ddoq.models.diffusion.stable import StableDiffusion

sample, calls = StableDiffusion.sample, []

def killed(self, *arguments, **settings):
    if len(calls) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(None)
    return sample(self, *arguments, **settings)

StableDiffusion.sample = killed
distil(Path(sys.argv[1]), sys.argv[2], batch_size=2, posterior="sample")
"""


def test_kill_minus_9_with_a_pipeline_then_resume_gives_the_same_bytes(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(folders["sd"]), str(Path(__file__).parent)]
    places = os.pathsep.join(
        [str(Path(ddoq.__file__).parents[1]), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": places}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "killed" / "work" / "images").iterdir())) == 1
    sizes: list[int] = []
    sample = StableDiffusion.sample

    def watched(self: Any, points: Tensor, *arguments: Any, **settings: Any) -> Tensor:
        sizes.append(len(points))
        return sample(self, points, *arguments, **settings)

    monkeypatch.setattr(StableDiffusion, "sample", watched)
    for name in ("killed", "undisturbed"):
        distil(tmp_path / name, str(folders["sd"]), batch_size=2, posterior="sample")
    assert sizes == [2] * (2 + 3)  # batches that were left, and all
    killed, undisturbed = (
        {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in sorted((tmp_path / name).rglob("*"))
            if path.is_file() and path.name not in ("run.json", "run.lock")
        }
        for name in ("killed", "undisturbed")
    )
    assert killed == undisturbed


def test_grey_images_become_rgb_for_a_pipeline(folders: dict[str, Path], tmp_path: Path) -> None:
    pixels, labels = images()
    small = ddoq.distill(
        (pixels[..., 0], labels),
        tmp_path / "run",
        ipc=1,
        diffusion=folders["dit"],
        steps=2,
        strength=0.5,
        progress=False,
    )
    assert small.images.shape[1:] == (3, 16, 16)


class Full:
    """A codec and diffusion model in one, whose memory holds so many images."""

    fingerprint = "full"

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def encode(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.room:
            torch.empty(1 << 60)  # what the CPU's allocator says of it
        return images[..., ::2, ::2].flatten(1)

    def decode(self, latents: Tensor) -> Tensor:
        return latents.reshape(-1, 3, 8, 8).repeat_interleave(2, 2).repeat_interleave(2, 3)

    def sample(self, points: Tensor, *_: Any, **__: Any) -> Tensor:
        self.sizes.append(len(points))
        if len(points) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return points


def test_out_of_memory_halves_the_batch_says_so_and_records_it(tmp_path: Path) -> None:
    whole = Full(100)
    expected = distil(tmp_path / "whole", whole, codec=whole)
    model = Full(3)
    with pytest.warns(RuntimeWarning, match=r"out of memory with \d+ images a batch, going on with \d") as said:
        small = distil(tmp_path / "run", model, codec=model)
    assert torch.equal(small.images, expected.images)
    assert model.sizes == [12, 6, 3, 3, 3, 3, 6, 3, 3, 3, 3]  # encode, synthesise, encode again
    assert len(said) == 3
    run = Run.open(tmp_path / "run")
    assert (run.info("encode")["halved_to"], run.info("synthesize")["halved_to"]) == (3, 3)
    assert "halved_to" not in Run.open(tmp_path / "whole").info("encode")
    none = Full(0)
    with pytest.warns(RuntimeWarning), pytest.raises(MemoryError, match=r"single image.*image_size.*can't allocate"):
        distil(tmp_path / "none", none, codec=none)


def test_other_errors_do_not_halve(tmp_path: Path) -> None:
    class Broken(Full):
        def encode(self, images: Tensor) -> Tensor:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        distil(tmp_path / "run", Broken(1), codec=Broken(1))


def test_settings_are_in_run_json(folders: dict[str, Path], tmp_path: Path) -> None:
    distil(tmp_path / "run", str(folders["sd"]), prompt="one {}", batch_size=4)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["config"]["options"]["prompt"] == "one {}"
    assert manifest["config"]["options"]["batch_size"] == 4
    assert manifest["config"]["options"]["precision"] == "float32"
    with pytest.raises(RunError, match="precision: 'float32' in the folder, 'bfloat16' now"):
        distil(tmp_path / "run", str(folders["sd"]), prompt="one {}", batch_size=4, precision="bfloat16")
    info = manifest["stages"]["synthesize"]["info"]
    assert info["prompts"] == ["one cat", "one dog", "one fox"]
    assert info["scheduler"] == "PNDMScheduler"


def test_bar_of_the_synthesis_shows_images_per_second(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    distil(tmp_path / "run", str(folders["dit"]), progress=True)
    shown = capsys.readouterr().err
    assert re.search(r"diffuse: 100%.*6/6 .*image/s", shown)


@pytest.mark.parametrize("failing", [False, True])
def test_text_encoders_go_back_to_where_they_were(failing: bool) -> None:
    class Encoder(torch.nn.Module):
        """One on a device that this machine may not have."""

        device, visited = torch.device("cuda:1"), list[str]()

        def to(self, device: Any) -> Any:
            self.visited.append(str(device))
            return self

        def forward(self, numbers: torch.Tensor, output_hidden_states: bool) -> tuple[torch.Tensor]:
            if failing:
                raise RuntimeError("out of memory")
            return (torch.zeros(*numbers.shape, 4),)

    encoder = Encoder()
    texts = TextEncoders([stable().tokenizer], [encoder], xl=False)
    with pytest.raises(RuntimeError, match="out of memory") if failing else nullcontext():
        texts(["an ant"], torch.device("cpu"))
    assert encoder.visited == ["cpu", "cuda:1"]
