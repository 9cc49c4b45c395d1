"""The steps of a training: each is done whole or not at all, and a state on disk holds whole steps alone.

A state is one safetensors file, written whole or not at all: the weights, the optimiser's moments and what the training
itself adds. A training that is killed goes on from it and ends with the same bytes, on the same machine with the same
number of threads.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddoq.machine.interrupts import uninterrupted
from ddoq.machine.memory import ran_out_of_memory
from ddoq.storage.tensors import below, read_tensors, write_tensors

STATE_SECONDS = 60.0  # between two states on disk; what is lost at most


class Steps(ABC):
    """A model and its optimiser, step by step.

    Attributes
    ----------
    model, optimizer
        On their device.
    steps
        Steps done.
    whole
        False where an error came while weights changed: no state is written then.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.steps = 0
        self.whole = True
        self._saved = time.monotonic()

    @abstractmethod
    def snapshot(self) -> Any:
        """All that a state holds and a step changes before it changes the weights, such as random streams."""

    @abstractmethod
    def restore(self, before: Any) -> None:
        """Put a snapshot back."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts that a state holds beside weights and moments."""

    @abstractmethod
    def take_over(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on from these tensors and facts."""

    def step(self, gradients: Callable[[], Tensor], note: Callable[[Tensor], None]) -> None:
        """Do one step; an error before the weights change leaves all that a state holds as it was.

        `gradients` leaves its gradients in the model and returns the loss, which `note` takes once weights are changed.
        """
        done, before = self.steps, self.snapshot()
        try:
            loss = gradients()
            with uninterrupted():
                self.whole = False
                self.optimizer.step()
                note(loss)
                self.steps += 1
                self.whole = True
        except BaseException:
            if self.steps == done:
                with uninterrupted():  # a second Ctrl-C: a state would hold what is restored by half
                    self.restore(before)
            raise

    def save(self, path: Path, made_from: str) -> None:
        """Write a state; `made_from` is a hash of all that the training depends on."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items() if value is not None}
        further, facts = self.state()
        tensors |= {"steps": torch.tensor(self.steps)} | further
        write_tensors(path, tensors, made_from, facts)
        self._saved = time.monotonic()

    def save_when_due(self, path: Path, made_from: str) -> None:
        """Write a state if the last one is a minute old."""
        if time.monotonic() - self._saved >= STATE_SECONDS:
            self.save(path, made_from)

    def rescue(self, path: Path, made_from: str) -> bool:
        """Write a state of the last whole step after Ctrl-C, or when memory ran out; whether that was possible."""
        self.optimizer.zero_grad(set_to_none=True)
        if not (self.whole and self.steps):
            return False
        try:
            self.save(path, made_from)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            return False
        return True

    def resume(self, path: Path, made_from: str) -> None:
        """Go on from a state, if there is one of this very training; RunError if it is damaged."""
        stored = read_tensors(path, made_from)
        if stored is None:
            return
        tensors, facts = stored
        self.model.load_state_dict(below("model.", tensors))
        values: dict[int, dict[str, Tensor]] = {}
        for key, tensor in below("optimizer.", tensors).items():
            number, _, name = key.partition(".")
            values.setdefault(int(number), {})[name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": values})
        self.steps = int(tensors["steps"])
        self.take_over(tensors, facts)
