"""Trains every fitted model in one loop, and keeps checkpoints, a log and pictures on the way.

A training that memory is too small for leaves a checkpoint of its last whole step, and may go on in more parts.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ddoq.machine.device import deterministic
from ddoq.machine.memory import first_line, ran_out_of_memory
from ddoq.models.fitting.state import Draw, FitRecipe, ModelSteps
from ddoq.models.fitting.steps import check_loss, cycle
from ddoq.storage.files import write_atomic
from ddoq.storage.values import digest

LINES, PICTURES = 100, 10  # of a training, in its log and on the way


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


def train(
    what: str,
    model: nn.Module,
    recipe: FitRecipe,
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
    training = ModelSteps(model, recipe, n, streams)
    made_from = ""
    if journal is not None:
        decisive = {name: value for name, value in asdict(recipe).items() if name != "accumulate"}
        made_from = digest({"format": 2, "from": journal.made_from, "recipe": decisive, "torch": torch.__version__})
        training.resume(journal.checkpoint, made_from)
        _forget(journal.log, what, len(training.losses))
    begin, start = len(training.losses), time.monotonic()
    try:
        _go_on(what, training, draw, loss_of, journal, made_from, progress)
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        reason = first_line(error)
    except KeyboardInterrupt:
        if journal is not None:
            training.rescue(journal.checkpoint, made_from)
        raise
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
    training: ModelSteps,
    draw: Draw,
    loss_of: Callable[..., Tensor],
    journal: Journal | None,
    made_from: str,
    progress: bool,
) -> None:
    """The steps that are left."""
    model, recipe, losses, steps = training.model, training.recipe, training.losses, training.recipe.steps
    noted = time.monotonic()
    noted_at = len(losses)
    with (
        deterministic(next(model.parameters()).device),
        tqdm(total=steps, initial=noted_at, desc=f"fit {what}", unit="step", disable=not progress) as bar,
    ):
        while (done := len(losses)) < steps:
            training.next_step(draw, loss_of)
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
            training.save_when_due(journal.checkpoint, made_from)
            noted += time.monotonic() - pause


def _due(done: int, steps: int, times: int) -> bool:
    """Whether to act after this step: so many times, evenly, and at the end."""
    return done % max(1, steps // times) == 0 or done == steps


def _note(log: Path, what: str, training: ModelSteps, speed: float) -> None:
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
    lines = []
    for text in log.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line["model"] != what or line["step"] <= done:
            lines.append(text + "\n")
    write_atomic(log, "".join(lines).encode())
