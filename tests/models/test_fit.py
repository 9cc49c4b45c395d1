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
from torch import Tensor, nn

import ddoq
from ddoq.cli import main as cli
from ddoq.machine.torchvision import ensure_importable
from ddoq.models.codecs.codec import open_codec
from ddoq.models.diffusion.model import open_diffusion
from ddoq.models.fitting import loop as _training
from ddoq.models.fitting.loop import Journal, train
from ddoq.models.fitting.sizes import SIZES, Size
from ddoq.models.fitting.state import FitRecipe
from ddoq.models.fitting.steps import cycle
from ddoq.stages.fit import Fitted, _smaller
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


@pytest.mark.parametrize("steps", [1, 2, 8, 9, 10, 37])
def test_the_learning_rate_is_that_of_torch(steps: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    share = 0.1 if steps != 9 else 0.1 + 1e-9  # torch divides by zero where the rise takes exactly one step
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=steps + 1, pct_start=share, cycle_momentum=False
    )
    for step in range(steps):
        if steps != 9 or step > 0:
            assert cycle(step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
        optimizer.step()
        schedule.step()


def fit_line(recipe: FitRecipe, journal: Journal | None = None) -> tuple[nn.Linear, nn.Linear, list[float]]:
    """Train a linear map on noisy pairs: the model, the averaged one, the losses."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))

    def draw(indices: np.ndarray[Any, Any], noise: torch.Generator) -> tuple[Tensor, ...]:
        rows = x[torch.from_numpy(indices)]
        return rows, rows.sum(1, keepdim=True) + torch.randn(len(rows), 1, generator=noise) / 10

    def loss_of(rows: Tensor, target: Tensor) -> Tensor:
        return nn.functional.mse_loss(model(rows).float(), target)

    streams = np.random.SeedSequence(0).spawn(2)
    averaged, losses, _ = train("line", model, recipe, 20, streams, draw, loss_of, journal=journal, progress=False)
    return model, averaged, losses


def test_parts_of_a_step_add_up_to_the_step() -> None:
    whole, _, losses = fit_line(FitRecipe(30, 7, 0.1, 1e-2))
    parts, _, parted = fit_line(FitRecipe(30, 7, 0.1, 1e-2, accumulate=3))
    assert losses[-1] < 0.1 * losses[0]
    torch.testing.assert_close(parts.weight, whole.weight)
    assert parted == pytest.approx(losses, rel=1e-4, abs=1e-5)


def test_averaged_weights_are_the_recursion_by_hand() -> None:
    finals = [fit_line(FitRecipe(5, 7, 0.1, 1e-2, ema=0.5))[:2]]
    torch.manual_seed(0)
    average = nn.Linear(3, 1).weight.detach().clone()
    seen: list[Tensor] = []
    optimizer_step = torch.optim.AdamW.step

    def watched(self: Any, *arguments: Any) -> Any:
        done = optimizer_step(self, *arguments)
        seen.append(self.param_groups[0]["params"][0].detach().clone())
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watched)
        fit_line(FitRecipe(5, 7, 0.1, 1e-2, ema=0.5))
    for k, weight in enumerate(seen):
        decay = min(0.5, (k + 1) / (k + 10))
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(finals[0][1].weight, average)
    assert not torch.equal(finals[0][0].weight, finals[0][1].weight)
    model, averaged, _ = fit_line(FitRecipe(5, 7, 0.1, 1e-2, ema=0.0))
    assert torch.equal(model.weight, averaged.weight)


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_resumes_from_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float | None, precision: Any
) -> None:
    monkeypatch.setattr(_training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(_training, "PICTURES", 9)
    recipe = FitRecipe(9, 7, 0.1, 1e-2, ema=ema, precision=precision, accumulate=2)
    whole = fit_line(recipe)
    for stop in range(1, 9):

        def interrupt(step: int, model: Any, stop: int = stop) -> None:
            if step == stop + 1:
                raise KeyboardInterrupt

        place = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            fit_line(recipe, Journal(place, "same", show=interrupt))
        again = fit_line(recipe, Journal(place, "same"))
        assert again[2] == whole[2]
        assert torch.equal(again[0].weight, whole[0].weight)
        assert torch.equal(again[1].weight, whole[1].weight)


def test_a_checkpoint_of_another_training_is_passed_over_and_a_damaged_one_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_training, "CHECKPOINT_SECONDS", 0.0)
    place = tmp_path / "checkpoint"
    whole = fit_line(FitRecipe(5, 7, 0.1, 1e-2), Journal(place, "one"))
    for other in (Journal(place, "another"), None):
        assert fit_line(FitRecipe(5, 7, 0.1, 1e-2), other)[2] == whole[2]
    fit_line(FitRecipe(5, 7, 0.1, 1e-2), Journal(place, "one"))
    content = bytearray(place.read_bytes())
    for at in (3, len(content) // 2, len(content) - 1):
        place.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(RunError, match="checkpoint is damaged: delete it"):
            fit_line(FitRecipe(5, 7, 0.1, 1e-2), Journal(place, "one"))
    place.write_bytes(content[:50])
    with pytest.raises(RunError, match="checkpoint is damaged"):
        fit_line(FitRecipe(5, 7, 0.1, 1e-2), Journal(place, "one"))


def poor(most: int, after: int) -> Any:
    """A mean squared error that memory is too small for beyond so many rows, after so many calls."""
    calls, real = [], nn.functional.mse_loss

    def loss(output: Tensor, target: Tensor) -> Tensor:
        calls.append(len(output))
        if len(output) > most and len(calls) > after:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(output, target)

    return loss


def test_out_of_memory_keeps_the_steps_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, place = FitRecipe(9, 6, 0.1, 1e-2, ema=0.9), tmp_path / "checkpoint"
    whole = fit_line(recipe)
    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "mse_loss", poor(3, after=4))
        with pytest.raises(MemoryError, match=r"in step 5 of 9 of the line \(CUDA out .* GiB\), 4 steps are kept"):
            fit_line(recipe, Journal(place, "same"))
    assert fit_line(recipe, Journal(place, "same"))[2] == whole[2]
    with monkeypatch.context() as patch:  # from the same checkpoint, which nothing has removed
        patch.setattr(nn.functional, "mse_loss", poor(3, after=0))
        parts = fit_line(FitRecipe(9, 6, 0.1, 1e-2, ema=0.9, accumulate=2), Journal(place, "same"))
        assert parts[2][:4] == whole[2][:4]
        assert parts[2] == pytest.approx(whole[2], rel=1e-4, abs=1e-5)
        with pytest.raises(MemoryError, match=r"in step 1 of 9 of the line \(CUDA out .* GiB\)$"):
            fit_line(recipe, Journal(tmp_path / "none", "same"))
    assert not (tmp_path / "none").exists()


def test_ctrl_c_keeps_the_steps_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, place, calls = FitRecipe(9, 6, 0.1, 1e-2, ema=0.9), tmp_path / "checkpoint", []
    whole, loss = fit_line(recipe), nn.functional.mse_loss

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return loss(*arguments, **options)

    monkeypatch.setattr(nn.functional, "mse_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_line(recipe, Journal(place, "same"))
    assert fit_line(recipe, Journal(place, "same"))[2] == whole[2]
    assert len(calls) == 5 + 5  # the four steps before it were not done again


def test_ctrl_c_waits_for_the_step_that_changes_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, place, calls = FitRecipe(9, 6, 0.1, 1e-2, ema=0.9), tmp_path / "checkpoint", []
    whole, step = fit_line(recipe), torch.optim.AdamW.step

    def interrupted(*arguments: Any) -> None:
        step(*arguments)
        calls.append(1)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            fit_line(recipe, Journal(place, "same"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert fit_line(recipe, Journal(place, "same"))[2] == whole[2]
    assert len(calls) == 9  # none was done again


def test_a_step_that_memory_broke_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "checkpoint"
    optimizer_step, calls = torch.optim.AdamW.step, []

    def step(self: Any, *arguments: Any) -> Any:
        calls.append(optimizer_step(self, *arguments))
        if len(calls) == 4:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: ...")

    recipe = FitRecipe(9, 7, 0.1, 1e-2)
    whole = fit_line(recipe)
    for kept in (False, True):
        calls.clear()
        monkeypatch.setattr(_training, "CHECKPOINT_SECONDS", 0.0 if kept else 60.0)
        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", step)
            message = r"can't allocate memory: \.\.\.\)" + ", the last checkpoint is kept" * kept + "$"
            with pytest.raises(MemoryError, match=f"in step 4 of 9 .*{message}"):
                fit_line(recipe, Journal(place, "same"))
        assert place.exists() is kept
    assert fit_line(recipe, Journal(place, "same"))[2] == whole[2]


@pytest.mark.parametrize(
    ("model", "method", "name"),
    [(AutoencoderKL, "encode", "codec"), (DiTTransformer2DModel, "forward", "diffusion")],
)
def test_a_fit_that_ran_out_of_memory_goes_on_in_more_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Any, method: str, name: str
) -> None:
    out, calls, real = tmp_path / "out", [], getattr(model, method)

    def scarce(self: Any, x: Tensor, *arguments: Any, **options: Any) -> Any:
        if torch.is_grad_enabled():
            calls.append(len(x))
        if len(x) > 8 and len(calls) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(self, x, *arguments, **options)

    monkeypatch.setattr(model, method, scarce)
    message = rf"fit of the {name}: out of memory in step 4 of 9 .*, 3 steps are kept: call again with accumulate=2, "
    with pytest.raises(MemoryError, match=message + ".* smaller batch_size or image_size in another folder"):
        quick(out, codec_steps=9, diffusion_steps=9, batch_size=16)
    if name == "diffusion":
        fitted = quick(out, codec_steps=9, diffusion_steps=9, batch_size=16, accumulate=2)
    else:
        with pytest.warns(RuntimeWarning, match="out of memory with"):  # where the PSNR is measured
            fitted = quick(out, codec_steps=9, diffusion_steps=9, batch_size=16, accumulate=2)
    assert calls == [16] * 4 + [8] * 12
    assert (fitted.codec["accumulate"], fitted.diffusion["accumulate"]) == ((2, 2) if name == "codec" else (1, 2))


def test_what_takes_less_memory_is_what_can_still_be_changed() -> None:
    assert _smaller(3, 4, "tiny").startswith("call again with accumulate=4, ")
    assert _smaller(4, 4, "tiny") == "give a smaller batch_size or image_size in another folder"
    assert _smaller(4, 4, "base") == "give a smaller batch_size, size or image_size in another folder"


# Two steps of the stage are in its checkpoint, and the third in the log.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from ddoq.models.fitting import loop as _training
from ddoq.stages.fit import SIZES
from test_fit import SMALLEST, quick

save, saves = _training.Training.save, []

def killed(self, path, made_from):
    saves.append(path.name)
    if saves.count(f".{sys.argv[2]}.checkpoint") == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, path, made_from)

_training.Training.save = killed
SIZES["tiny"] = SMALLEST
torch.set_num_threads(1)
_training.CHECKPOINT_SECONDS, _training.PICTURES = 0.0, 2
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


def test_pictures_are_of_the_averaged_weights(tmp_path: Path) -> None:
    shown: list[tuple[int, bool, Tensor]] = []

    def show(step: int, model: Any) -> None:
        shown.append((step, model.training, model.weight.detach().clone()))

    model, averaged, _ = fit_line(FitRecipe(20, 7, 0.1, 1e-2, ema=0.9), Journal(tmp_path / "checkpoint", "", show=show))
    assert [step for step, _, _ in shown] == [10, 20]
    assert not any(training for _, training, _ in shown)
    assert model.training
    assert torch.equal(shown[-1][2], averaged.weight)
    assert not torch.equal(shown[-1][2], model.weight)


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
    with pytest.raises(ValueError, match=message):
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
