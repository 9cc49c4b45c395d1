"""`ddoq fit`: the training loop, resume after kill -9, the folder that comes out, wrong input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddoq
from ddoq.cli import main as cli
from ddoq.machine.torchvision import ensure_importable
from ddoq.models.codecs.codec import open_codec
from ddoq.models.diffusion.model import open_diffusion
from ddoq.models.fitting import loop as _training
from ddoq.models.fitting.sizes import SIZES, Size
from ddoq.stages.fit import Fitted
from ddoq.storage.run import Run, RunError

ensure_importable()
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel  # noqa: E402

Data = tuple[np.ndarray[Any, Any], list[str]]


def bars(n: int = 48) -> Data:
    """Images of 8 x 8 whose left or right half is bright."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (n, 8, 8)).astype(np.uint8)
    for i in range(n):
        images[i, :, :4] += 150 * (i % 2 == 0)
        images[i, :, 4:] += 150 * (i % 2)
    return images, [("left", "right")[i % 2] for i in range(n)]


SMALLEST = Size(8, 16, 50, 32, 1, 16, 50)


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Two pictures a training, and a smallest size smaller than the real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_training, "PICTURES", 2)
        patch.setitem(SIZES, "tiny", SMALLEST)
        yield


def quick(out: Path, data: Any = None, **options: Any) -> Fitted:
    settings: dict[str, Any] = {"codec_steps": 4, "diffusion_steps": 4, "progress": False, **options}
    return ddoq.fit(bars() if data is None else data, out, **settings)


def result(out: Path) -> dict[str, bytes]:
    """Every file but those that hold times, and the lock."""
    left_out = ("run.json", "run.lock", "log.jsonl")
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in left_out
    }


@pytest.fixture(scope="module")
def epsilon(tmp_path_factory: pytest.TempPathFactory, _quick: None) -> Path:
    """A model of few steps that predicts the noise."""
    out = tmp_path_factory.mktemp("fit") / "epsilon"
    torch.set_num_threads(1)
    quick(out, objective="epsilon", codec_steps=20, diffusion_steps=20)
    return out


# Two steps of the stage are in its checkpoint, and the third in the log.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from ddoq.models.fitting import loop as _training
from ddoq.models.fitting.state import ModelSteps
from ddoq.storage import steps
from ddoq.stages.fit import SIZES
from test_fit import SMALLEST, quick

save, saves = ModelSteps.save, []

def killed(self, path, made_from):
    saves.append(path.name)
    if saves.count(f".{sys.argv[2]}.checkpoint") == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, path, made_from)

ModelSteps.save = killed
SIZES["tiny"] = SMALLEST
torch.set_num_threads(1)
steps.STATE_SECONDS, _training.PICTURES = 0.0, 2
quick(Path(sys.argv[1]), codec_steps=8, diffusion_steps=8)
"""


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_kill_minus_9_then_resume_gives_the_same_bytes(tmp_path: Path) -> None:
    places = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": places}
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    quick(undisturbed, codec_steps=8, diffusion_steps=8)
    for stage, model in (("codec", "codec"), ("diffusion", "diffusion model")):
        command = [sys.executable, "-c", KILLED, str(killed), stage]
        assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
        assert stage not in json.loads((killed / "run.json").read_text())["stages"]
        assert [line["step"] for line in lines(killed) if line["model"] == model] == [1, 2, 3]
    quick(killed, codec_steps=8, diffusion_steps=8)
    assert result(killed) == result(undisturbed)
    assert not [name for name in result(killed) if name.startswith(".")]
    ours, theirs = (json.loads((out / "run.json").read_text())["stages"] for out in (killed, undisturbed))
    assert {name: stage["outputs"] for name, stage in ours.items()} == {
        name: stage["outputs"] for name, stage in theirs.items()
    }
    steps = [(line["model"], line["step"]) for line in lines(killed)]
    assert steps == [(line["model"], line["step"]) for line in lines(undisturbed)]
    assert steps == [(model, step) for model in ("codec", "diffusion model") for step in range(1, 9)]


def test_the_folder_is_diffusers_own(epsilon: Path) -> None:
    names = sorted(path.name for path in epsilon.iterdir() if not path.name.startswith("run."))
    parts = ["ddoq.json", "log.jsonl", "model_index.json", "samples", "scheduler", "transformer", "vae"]
    assert names == parts
    pipeline = DiTPipeline.from_pretrained(epsilon)
    assert pipeline.labels == {"left": 0, "right": 1}
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    assert pipeline.transformer.config["patch_size"] == 2
    assert isinstance(AutoencoderKL.from_pretrained(epsilon, subfolder="vae"), AutoencoderKL)
    transformer = DiTTransformer2DModel.from_pretrained(epsilon, subfolder="transformer")
    assert transformer.config["num_embeds_ada_norm"] == 2
    Run.open(epsilon).verify()


def test_diffusers_samples_what_ddoq_samples(epsilon: Path) -> None:
    """The autoencoder's latents need no shift: DiTPipeline, which knows none, gives the same images."""
    pipeline = DiTPipeline.from_pretrained(epsilon)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    theirs = pipeline([0, 1], guidance_scale=1, generator=generators, num_inference_steps=7, output_type="np").images
    model = open_diffusion(epsilon, ["left", "right"])
    side = model.latent_side  # type: ignore[attr-defined]
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    points = torch.zeros(2, 4, side, side)
    latents = model.sample(points, torch.tensor([0, 1]), generators, strength=1, steps=7, guidance=1)
    ours = open_codec(epsilon).decode(latents).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(ours, theirs[..., :1] if theirs.shape[-1] != 1 else theirs, atol=1e-4)


def test_a_flow_is_sampled_by_ddoq_and_has_no_pipeline_index(tmp_path: Path) -> None:
    quick(tmp_path / "out")
    assert not (tmp_path / "out" / "model_index.json").exists()
    model = open_diffusion(tmp_path / "out", ["right", "left"])
    assert model.labels.tolist() == [1, 0]  # type: ignore[attr-defined]
    assert model.keep(0.25, 1000) == pytest.approx(0.75, abs=0.002)  # type: ignore[attr-defined]


def test_pictures_and_log(epsilon: Path) -> None:
    pictures = sorted(path.name for path in (epsilon / "samples").iterdir())
    steps = ["0000010.png", "0000020.png"]
    assert pictures == [f"{model}-{step}" for model in ("codec", "diffusion") for step in steps]
    with Image.open(epsilon / "samples" / "codec-0000020.png") as picture:
        assert picture.size == (8 * 8, 2 * 8)
    with Image.open(epsilon / "samples" / "diffusion-0000020.png") as picture:
        assert picture.size == (4 * 8, 2 * 8)
    log = lines(epsilon)
    assert [(line["model"], line["step"]) for line in log] == [
        (model, step) for model in ("codec", "diffusion model") for step in range(1, 21)
    ]
    for line in log:
        assert line["images_per_second"] > 0
        assert line["memory"] > 2**20
        assert 0 < line["rate"] <= 8e-3
        assert line["loss"] > 0


def test_the_same_call_again_changes_nothing(epsilon: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in epsilon.rglob("*") if path.is_file() and path.suffix != ".lock"}
    again = quick(epsilon, objective="epsilon", codec_steps=20, diffusion_steps=20)
    after = {path: path.stat().st_mtime_ns for path in epsilon.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert before == after
    assert again.class_names == ("left", "right")
    assert "PSNR" in str(again)
    with pytest.raises(RunError, match=r"fit\.diffusion\.objective: 'epsilon' in the folder, 'flow' now"):
        quick(epsilon, codec_steps=20, diffusion_steps=20)


def test_distill_with_the_fitted_folder(epsilon: Path, tmp_path: Path) -> None:
    small = ddoq.distill(bars(), tmp_path / "run", ipc=2, diffusion=str(epsilon), steps=4, progress=False)
    assert len(small) == 4
    assert small.class_names == ("left", "right")
    images, labels = bars()
    wrong = (images, ["up" if label == "left" else label for label in labels])
    with pytest.raises(ValueError, match="'up'"):
        ddoq.distill(wrong, tmp_path / "wrong", ipc=2, diffusion=str(epsilon), steps=4, progress=False)


def test_sizes_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.zeros((16, 28, 28, 3), np.uint8)
    images[:, :14] = 200
    fitted = quick(
        tmp_path / "out", (images, [*"ab"] * 8), codec_steps=1, diffusion_steps=1, batch_size=2, accumulate=2
    )
    assert (fitted.codec["factor"], fitted.diffusion["patch"], fitted.diffusion["batch_size"]) == (2, 2, 2)
    monkeypatch.setitem(SIZES, "small", Size(8, 4, 3, 32, 1, 5, 2))
    small = quick(tmp_path / "small", size="small", codec_steps=None, diffusion_steps=None)
    assert [small.codec[name] for name in ("base_channels", "batch_size", "steps")] == [8, 4, 3]
    assert [small.diffusion[name] for name in ("width", "depth", "batch_size", "steps")] == [32, 1, 5, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": (np.zeros((15, 8, 8), np.uint8), [0] * 15)}, "15 images are too few"),
        ({"data": (np.zeros((16, 4, 4), np.uint8), [0] * 16)}, r"4 pixels are too small.*image_size=8"),
        ({"image_size": 99}, r"99 pixels leave 99 patches.*image_size=96"),
        ({"image_size": 2048}, r"image_size=512"),
        ({"data": (np.zeros((16, 8, 8), np.uint8), [0, 1] * 8), "class_names": ["a", "b", "c"]}, "'c'"),
        ({"size": "huge"}, "size must be one of .*'tiny'"),
        ({"objective": "noise"}, "objective must be one of 'flow'"),
        ({"precision": "float16"}, "precision must be one of"),
        ({"codec_steps": 0}, "codec_steps must be"),
        ({"diffusion_steps": 1.5}, "diffusion_steps must be"),
        ({"batch_size": -1}, "batch_size must be"),
        ({"accumulate": 0}, "accumulate must be"),
        ({"accumulate": 9, "batch_size": 8}, "accumulate=9 is more"),
        ({"ema": 1.0}, "ema must be"),
        ({"seed": -1}, "seed must be"),
        ({"device": "tpu"}, "device must be"),
    ],
)
def test_what_cannot_be_fitted_is_named_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        quick(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    images, labels = bars()
    np.savez(tmp_path / "bars.npz", images=images, labels=labels)
    line = ["fit", str(tmp_path / "bars.npz"), str(tmp_path / "out"), "--codec-steps", "2", "--diffusion-steps", "2"]
    assert cli.main([*line, "--objective", "velocity", "--no-progress"]) == 0
    assert "2 classes" in capsys.readouterr().out
    assert cli.main([*line, "--objective", "flow", "--no-progress"]) == 1
    assert "another configuration" in capsys.readouterr().err
