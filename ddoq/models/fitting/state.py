"""Trains a codec or a diffusion model step by step, by a recipe."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddoq.machine.device import TrainingPrecision
from ddoq.machine.streams import torch_seed
from ddoq.models.fitting.steps import Order, cycle
from ddoq.storage.steps import Steps
from ddoq.storage.tensors import below

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


class ModelSteps(Steps):
    """The training of a codec or a diffusion model: AdamW under one learning-rate cycle, and averaged weights."""

    def __init__(self, model: nn.Module, recipe: FitRecipe, n: int, streams: Sequence[np.random.SeedSequence]) -> None:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        super().__init__(model, optimizer)
        self.recipe = recipe
        self.averaged = model if recipe.ema is None else copy.deepcopy(model).eval()
        self.order = Order(n, recipe.batch_size, streams[0])
        self.noise = torch.Generator().manual_seed(torch_seed(streams[1]))
        self.losses: list[float] = []

    def next_step(self, draw: Draw, loss_of: Callable[..., Tensor]) -> None:
        """Do one step of AdamW."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate * cycle(self.steps, self.recipe.steps)
        self.step(lambda: self._gradients(draw, loss_of), self._note)

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

    def _note(self, loss: Tensor) -> None:
        if self.recipe.ema is not None:
            _average(self.averaged, self.model, min(self.recipe.ema, (self.steps + 1) / (self.steps + 10)))
        self.losses.append(loss.item())

    def snapshot(self) -> Any:
        """The order of the images and the noise."""
        return self.order.left, self.order.state, self.noise.get_state(), len(self.losses)

    def restore(self, before: Any) -> None:
        """Put them back."""
        self.order.left, self.order.state = before[:2]
        self.noise.set_state(before[2])
        del self.losses[before[3] :]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The averaged weights, the order, the noise and the losses."""
        tensors = {"noise": self.noise.get_state(), "left": torch.from_numpy(self.order.left)}
        if self.averaged is not self.model:
            tensors |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        return tensors, {"order": self.order.state}

    def take_over(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on from them."""
        if self.averaged is not self.model:
            self.averaged.load_state_dict(below("averaged.", tensors))
        self.losses = tensors["losses"].tolist()
        self.noise.set_state(tensors["noise"])
        self.order.left, self.order.state = tensors["left"].numpy(), facts["order"]

    def rescue(self, path: Path, made_from: str) -> bool:
        """Write a state of the last whole step, unless the training has diverged."""
        return bool(self.losses) and math.isfinite(self.losses[-1]) and super().rescue(path, made_from)


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
