"""The training of codec and diffusion model: parts, averages, resume, Ctrl-C, memory."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_fit import quick
from torch import Tensor, nn

from ddoq.machine.torchvision import ensure_importable
from ddoq.models.fitting import loop as _training
from ddoq.models.fitting.loop import Journal, train
from ddoq.models.fitting.state import FitRecipe
from ddoq.models.fitting.steps import cycle
from ddoq.stages.fit import _smaller
from ddoq.storage import steps
from ddoq.storage.run import RunError

ensure_importable()
from diffusers import AutoencoderKL, DiTTransformer2DModel  # noqa: E402


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
    monkeypatch.setattr(steps, "STATE_SECONDS", 0.0)
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
    monkeypatch.setattr(steps, "STATE_SECONDS", 0.0)
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
        monkeypatch.setattr(steps, "STATE_SECONDS", 0.0 if kept else 60.0)
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


def test_pictures_are_of_the_averaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_training, "PICTURES", 2)
    shown: list[tuple[int, bool, Tensor]] = []

    def show(step: int, model: Any) -> None:
        shown.append((step, model.training, model.weight.detach().clone()))

    model, averaged, _ = fit_line(FitRecipe(20, 7, 0.1, 1e-2, ema=0.9), Journal(tmp_path / "checkpoint", "", show=show))
    assert [step for step, _, _ in shown] == [10, 20]
    assert not any(training for _, training, _ in shown)
    assert model.training
    assert torch.equal(shown[-1][2], averaged.weight)
    assert not torch.equal(shown[-1][2], model.weight)
