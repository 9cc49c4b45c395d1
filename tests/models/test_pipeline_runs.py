"""Runs with pipelines: methods of published settings, sizes, memory, kill -9, what run.json records."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipelines import dit, stable
from test_pipelines import NAMES, distil, folders, generators, images
from torch import Tensor

import ddoq
from ddoq.methods.catalogue import METHODS
from ddoq.models.codecs.codec import open_codec
from ddoq.models.diffusion.stable import StableDiffusion
from ddoq.models.diffusion.texts import TextEncoders
from ddoq.models.parts import PipelineFiles
from ddoq.reporting.call import call
from ddoq.storage.run import Run, RunError

__all__ = ["folders"]

# diffusers' schedulers turn tensors into NumPy 2 arrays in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


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
from ddoq.models.codecs.codec import open_codec
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
    assert model.sizes == [12, 6, 3, 3, 3, 3, 6, 3, 3, 6, 3, 3]  # encode, synthesise, encode again
    assert len(said) == 4
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
