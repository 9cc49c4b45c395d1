"""Holds what the fits of codec and diffusion share: the order of images, the learning rate, a check of the loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_loss(loss: float, model: str, step: int, steps: int) -> None:
    """ValueError if the training has diverged."""
    if not math.isfinite(loss):
        raise ValueError(
            f"the training of the {model} diverged at step {step} of {steps}: its loss is {loss}. "
            f"Try another seed or number of steps, or give a {model} of your own"
        )


class Order:
    """Batches of indices without end, each epoch in a new random order, the remainder carried over.

    Examples
    --------
    >>> order = Order(3, 2, np.random.SeedSequence(0))
    >>> np.sort(np.concatenate([order.next() for _ in range(3)])).tolist()
    [0, 0, 1, 1, 2, 2]
    """

    def __init__(self, n: int, batch: int, seed: np.random.SeedSequence) -> None:
        self.n, self.batch = n, batch
        self.left = np.empty(0, np.int64)
        self._random = np.random.Generator(np.random.PCG64(seed))

    def next(self) -> NDArray[np.int64]:
        """Give the next batch (batch,)."""
        while len(self.left) < self.batch:
            self.left = np.concatenate([self.left, self._random.permutation(self.n)])
        batch, self.left = self.left[: self.batch], self.left[self.batch :]
        return batch

    @property
    def state(self) -> dict[str, Any]:
        """Of the random stream, for JSON; it goes with `left`."""
        return dict(self._random.bit_generator.state)

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._random.bit_generator.state = state


def cycle(step: int, steps: int) -> float:
    """Learning rate at a step (from 0), as a share of the highest: up from 1/25 in a tenth of the steps, then down to
    nothing, both along a cosine.

    >>> round(cycle(0, 100), 3), round(cycle(9, 100), 2), round(cycle(99, 100), 3)
    (0.04, 1.0, 0.0)
    """
    top = (steps + 1) / 10 - 1
    low, share = (1 / 25, step / top) if 0 <= step < top else (1 / 250_000, 1 - (step - top) / (steps - top))
    return low + (1 - low) * (1 - math.cos(math.pi * share)) / 2
