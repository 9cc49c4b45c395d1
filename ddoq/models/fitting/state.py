"""The state of a training: AdamW under one learning-rate cycle, averaged weights, checkpoints.

A checkpoint is one safetensors file, written whole or not at all, with all that the rest of a training depends on:
weights, their average, AdamW's moments, both random streams, the indices left of the epoch and the losses. A training
that is killed goes on from it and ends with the same bytes, on the same machine with the same number of threads and
parts of a step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ddoq.machine.interrupts import uninterrupted
from ddoq.machine.memory import ran_out_of_memory
from ddoq.machine.streams import torch_seed
from ddoq.models.fitting.steps import Order, cycle
from ddoq.storage.tensors import below, read_tensors, write_tensors

TrainingPrecision = Literal["float32", "bfloat16"]
Draw = Callable[[np.ndarray[Any, Any], torch.Generator], tuple[Tensor, ...]]


@dataclass(frozen=True)
class FitRecipe:
    """How a codec or a diffusion model is trained.

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


class Training:
    """The state of a training: all that its next step depends on."""

    def __init__(self, model: nn.Module, recipe: FitRecipe, n: int, streams: Sequence[np.random.SeedSequence]) -> None:
        self.model = model
        self.recipe = recipe
        self.averaged = model if recipe.ema is None else copy.deepcopy(model).eval()
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        self.order = Order(n, recipe.batch_size, streams[0])
        self.noise = torch.Generator().manual_seed(torch_seed(streams[1]))
        self.losses: list[float] = []
        self.whole = True  # not where an error came while weights changed

    def step(self, draw: Draw, loss_of: Callable[..., Tensor]) -> None:
        """One step of AdamW; an error before the weights change leaves all that a checkpoint holds as it was."""
        recipe, done = self.recipe, len(self.losses)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate * cycle(done, recipe.steps)
        before = self.order.left, self.order.state, self.noise.get_state()
        try:
            loss = self._gradients(draw, loss_of)
            with uninterrupted():
                self.whole = False
                self.optimizer.step()
                if recipe.ema is not None:
                    _average(self.averaged, self.model, min(recipe.ema, (done + 1) / (done + 10)))
                self.losses.append(loss.item())
                self.whole = True
        except BaseException:
            if len(self.losses) == done:
                with uninterrupted():  # a second Ctrl-C: a checkpoint would hold what is restored by half
                    self.order.left, self.order.state = before[:2]
                    self.noise.set_state(before[2])
            raise

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
        """Write a checkpoint after an error for want of memory, or Ctrl-C; whether that was possible."""
        self.optimizer.zero_grad(set_to_none=True)
        if not (self.whole and self.losses and math.isfinite(self.losses[-1])):
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


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
