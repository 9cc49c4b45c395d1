"""The training loop of every fitted model: AdamW under one learning-rate cycle, averaged weights, checkpoints, a log.

A checkpoint is one safetensors file, written whole or not at all, with all that the rest of a training depends on:
weights, their average, AdamW's moments, both random streams, the indices left of the epoch and the losses. A training
that is killed goes on from it and ends with the same bytes, on the same machine with the same number of threads and
parts of a step. One that memory is too small for leaves a checkpoint of its last whole step, and may go on in more
parts.
"""

from __future__ import annotations

import copy
import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from ddoq._fit import Order, check_loss, cycle, torch_seed
from ddoq._memory import first_line, ran_out_of_memory
from ddoq._tensors import below, read_tensors, write_tensors
from ddoq.files import digest, write_atomic

CHECKPOINT_SECONDS = 60.0  # between two checkpoints; what is lost at most
TrainingPrecision = Literal["float32", "bfloat16"]
Draw = Callable[[np.ndarray[Any, Any], torch.Generator], tuple[Tensor, ...]]
LINES, PICTURES = 100, 10  # of a training, in its log and on the way


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    `rate` is the highest learning rate; `ema` the decay of the averaged weights, shorter at the start, None for none.
    The images of a step go through the model in `accumulate` parts, which changes nothing but memory and rounding.
    """

    steps: int
    batch_size: int
    rate: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    ema: float | None = None
    accumulate: int = 1
    precision: TrainingPrecision = "float32"

    def __post_init__(self) -> None:
        if not 1 <= self.accumulate <= self.batch_size:
            raise ValueError(f"accumulate must lie between 1 and the {self.batch_size} images of a step")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, got {self.ema!r}")


@dataclass(frozen=True)
class Journal:
    """What a training leaves on the way.

    Parameters
    ----------
    checkpoint
        The file; removed by the caller when what was trained is saved.
    made_from
        A hash of what the training depends on beside its recipe; a checkpoint of another is passed over, one of another
        `accumulate` is not.
    log
        JSON lines: model, step, loss and images_per_second since the line before, rate, memory (peak, in bytes; of the
        GPU where there is one).
    show
        Called ten times with the steps done and the averaged model, in evaluation mode.
    """

    checkpoint: Path
    made_from: str
    log: Path | None = None
    show: Callable[[int, Any], None] | None = None


class Training:
    """The state of a training: all that its next step depends on."""

    def __init__(self, model: nn.Module, recipe: Recipe, n: int, streams: Sequence[np.random.SeedSequence]) -> None:
        self.model = model
        self.recipe = recipe
        self.averaged = model if recipe.ema is None else copy.deepcopy(model).eval()
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        self.order = Order(n, recipe.batch_size, streams[0])
        self.noise = torch.Generator().manual_seed(torch_seed(streams[1]))
        self.losses: list[float] = []
        self.whole = True  # not where an error came while the weights changed

    def step(self, draw: Draw, loss_of: Callable[..., Tensor]) -> None:
        """One step of AdamW; an error before the weights change leaves all that a checkpoint holds as it was."""
        recipe, done = self.recipe, len(self.losses)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate * cycle(done, recipe.steps)
        before = self.order.left, self.order.state, self.noise.get_state()
        try:
            loss = self._gradients(draw, loss_of)
        except Exception:
            self.order.left, self.order.state = before[:2]
            self.noise.set_state(before[2])
            raise
        self.whole = False
        self.optimizer.step()
        if recipe.ema is not None:
            _average(self.averaged, self.model, min(recipe.ema, (done + 1) / (done + 10)))
        self.losses.append(loss.item())
        self.whole = True

    def _gradients(self, draw: Draw, loss_of: Callable[..., Tensor]) -> Tensor:
        """Draw a batch and give its loss; its gradients, clipped, are those of the model."""
        recipe = self.recipe
        batch = draw(self.order.next(), self.noise)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=batch[0].device)
        for part in zip(*(torch.tensor_split(tensor, recipe.accumulate) for tensor in batch), strict=True):
            with torch.autocast(part[0].device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                loss = loss_of(*part) * (len(part[0]) / len(batch[0]))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        return total

    def save(self, path: Path, made_from: str) -> None:
        """Write a checkpoint."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.averaged is not self.model:
            tensors |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            moments = self.optimizer.state[parameter]
            tensors |= {f"{key}.{name}": moments[key] for key in ("exp_avg", "exp_avg_sq")}
        tensors |= {"noise": self.noise.get_state(), "left": torch.from_numpy(self.order.left)}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        write_tensors(path, tensors, made_from, {"order": self.order.state})

    def rescue(self, path: Path, made_from: str) -> bool:
        """Write a checkpoint after an error for want of memory; whether that was possible."""
        self.optimizer.zero_grad(set_to_none=True)
        if not (self.whole and self.losses):
            return False
        try:
            self.save(path, made_from)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            return False
        return True

    def resume(self, path: Path, made_from: str) -> None:
        """Go on from a checkpoint, if there is one of this very training; RunError if it is damaged."""
        found = read_tensors(path, made_from)
        if found is None:
            return
        tensors, facts = found
        self.model.load_state_dict(below("model.", tensors))
        if self.averaged is not self.model:
            self.averaged.load_state_dict(below("averaged.", tensors))
        self.losses = tensors["losses"].tolist()
        for name, parameter in self.model.named_parameters():
            moments = {key: tensors[f"{key}.{name}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = {"step": torch.tensor(float(len(self.losses))), **moments}
        self.noise.set_state(tensors["noise"])
        self.order.left, self.order.state = tensors["left"].numpy(), facts["order"]


def train(
    what: str,
    model: nn.Module,
    recipe: Recipe,
    n: int,
    streams: Sequence[np.random.SeedSequence],
    draw: Draw,
    loss_of: Callable[..., Tensor],
    *,
    journal: Journal | None = None,
    progress: bool = True,
) -> tuple[Any, list[float], float]:
    """Train a model and give the averaged one, the loss of every step, and this process's images per second.

    Parameters
    ----------
    what
        The model's name, in messages.
    model
        On its device; trained in place.
    n
        Images; a step takes recipe.batch_size of them.
    streams
        Of the order of the images and of the noise.
    draw
        All that a step sees, from the images' indices and the noise: tensors with a row for each image.
    loss_of
        The loss of some of these rows, a mean over them.

    Raises
    ------
    ValueError
        A loss that is not finite.
    MemoryError
        Memory is too small, with the step; the steps done are kept in a checkpoint where they can be.
    """
    training = Training(model, recipe, n, streams)
    made_from = ""
    if journal is not None:
        decisive = {name: value for name, value in asdict(recipe).items() if name != "accumulate"}
        made_from = digest({"from": journal.made_from, "recipe": decisive, "torch": torch.__version__})
        training.resume(journal.checkpoint, made_from)
        _forget(journal.log, what, len(training.losses))
    begin, start = len(training.losses), time.monotonic()
    try:
        _go_on(what, training, draw, loss_of, journal, made_from, progress)
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        reason = first_line(error)
    else:
        speed = (recipe.steps - begin) * recipe.batch_size / (time.monotonic() - start)
        return training.averaged, training.losses, speed
    # not in the handler, whose error holds what was allocated
    done = len(training.losses)
    message = f"out of memory in step {min(done + 1, recipe.steps)} of {recipe.steps} of the {what} ({reason})"
    if journal is not None and training.rescue(journal.checkpoint, made_from):
        message += f", {done} steps are kept"
    elif journal is not None and journal.checkpoint.exists():
        message += ", the last checkpoint is kept"
    raise MemoryError(message)


def _go_on(
    what: str,
    training: Training,
    draw: Draw,
    loss_of: Callable[..., Tensor],
    journal: Journal | None,
    made_from: str,
    progress: bool,
) -> None:
    """The steps that are left."""
    model, recipe, losses, steps = training.model, training.recipe, training.losses, training.recipe.steps
    saved = noted = time.monotonic()
    noted_at = len(losses)
    with (
        _deterministic(next(model.parameters()).device),
        tqdm(total=steps, initial=noted_at, desc=f"fit {what}", unit="step", disable=not progress) as bar,
    ):
        while (done := len(losses)) < steps:
            training.step(draw, loss_of)
            done += 1
            check_loss(losses[-1], what, done, steps)
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
            if journal is None:
                continue
            if journal.log is not None and _due(done, steps, LINES):
                speed = (done - noted_at) * recipe.batch_size / (time.monotonic() - noted)
                _note(journal.log, what, training, speed)
                noted, noted_at = time.monotonic(), done
            pause = time.monotonic()
            if journal.show is not None and _due(done, steps, PICTURES):
                mode = model.training
                journal.show(done, training.averaged.eval())
                model.train(mode)
            if time.monotonic() - saved >= CHECKPOINT_SECONDS:
                training.save(journal.checkpoint, made_from)
                saved = time.monotonic()
            noted += time.monotonic() - pause


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Have a GPU add up in one order, so that a resumed training ends with the same bytes; a CPU does anyway."""
    # The fused kernels of attention add up the gradients in no fixed order. Without them the scores take memory, which
    # these models can spare: 64 tokens an image at 32, 64 or 128 pixels, 256 at 256; `accumulate` makes do with less.
    attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cuda" else nullcontext()
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True), attention:
        yield


def _due(done: int, steps: int, times: int) -> bool:
    """Whether to act after this step: so many times, evenly, and at the end."""
    return done % max(1, steps // times) == 0 or done == steps


def _note(log: Path, what: str, training: Training, speed: float) -> None:
    """Add a line to the log."""
    done, recipe = len(training.losses), training.recipe
    device = next(training.model.parameters()).device
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    every = max(1, recipe.steps // LINES)
    line = {
        "model": what,
        "step": done,
        "steps": recipe.steps,
        "loss": float(np.mean(training.losses[(done - 1) // every * every :])),
        "rate": recipe.rate * cycle(done - 1, recipe.steps),
        "images_per_second": round(speed, 1),
        "memory": memory,
    }
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _forget(log: Path | None, what: str, done: int) -> None:
    """Take the lines of steps that will be done again, and a line that is not whole, out of a log."""
    if log is None or not log.exists():
        return
    kept = []
    for text in log.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line["model"] != what or line["step"] <= done:
            kept.append(text + "\n")
    write_atomic(log, "".join(kept).encode())


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
