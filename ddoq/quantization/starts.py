"""Draws where quantisation starts from: each class has a random stream of its own."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddoq.machine.backend import core
from ddoq.quantization.forms import SKETCH, STREAMING
from ddoq.quantization.options import Init
from ddoq.quantization.problem import Problem

# In Gram form starts are cheap beside the matrix, the cheaper the fewer points, and the best of several is lower where
# the data have clusters. In a sketch seeds are exchanged, which lowers it more than further starts.
STARTS, STARTS_OF_FEW, FEW_POINTS = 4, 8, 16
STARTS_IN_SKETCH, STARTS_IN_SKETCH_OF_FEW = 1, 4


def streams(random_state: object, n_classes: int) -> list[np.random.SeedSequence]:
    """One random stream for each class."""
    if isinstance(random_state, Sequence) and not isinstance(random_state, str):
        if not all(isinstance(seed, np.random.SeedSequence) for seed in random_state):
            raise TypeError("a sequence as random_state must hold a numpy.random.SeedSequence for each class")
        if len(random_state) != n_classes:
            raise ValueError(f"random_state has {len(random_state)} seed sequences for {n_classes} classes")
        return list(random_state)
    if isinstance(random_state, np.random.Generator):
        seed = np.random.SeedSequence(random_state.integers(2**32, size=4, dtype=np.uint32).tolist())
    elif isinstance(random_state, np.random.RandomState):
        seed = np.random.SeedSequence(random_state.randint(2**32, size=4, dtype=np.uint32).tolist())
    elif isinstance(random_state, np.random.SeedSequence):
        seed = random_state
    elif random_state is None:
        seed = np.random.SeedSequence()
    elif isinstance(random_state, Integral) and not isinstance(random_state, bool):
        if random_state < 0:
            raise ValueError(f"random_state must not be negative, but is {random_state}")
        seed = np.random.SeedSequence(int(random_state))
    else:
        kinds = "None, an integer, SeedSequence, Generator or RandomState"
        raise TypeError(f"random_state must be {kinds}, not {random_state!r}")
    return [np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, c)) for c in range(n_classes)]


def starts(
    init: Init, n_starts: NDArray[np.int64], problem: Problem, points: NDArray[Any]
) -> tuple[NDArray[np.float64] | None, NDArray[np.int64] | None, NDArray[Any] | None]:
    """Draw what the core starts from: uniform numbers, sample positions within each class, or points; the rest is None.

    Each class has the draws of as many starts as the class that makes the most of them.
    """
    n_init = int(n_starts.max())
    if not isinstance(init, str):
        start = np.array(init, dtype=points.dtype, order="C")
        if start.shape != points.shape:
            raise ValueError(
                f"init must hold all starting points, shape {points.shape}, but its shape is {start.shape}"
            )
        if not np.isfinite(start).all():
            raise ValueError(f"init[{np.flatnonzero(~np.isfinite(start).all(axis=1))[0]}] has a NaN or infinity")
        if n_init != 1:
            raise ValueError(f"with starting points as init there is one start, but n_init is {n_init}: leave it at 1")
        return None, None, start
    generators = [np.random.Generator(np.random.PCG64(seed)) for seed in problem.seeds]
    if init == "k-means++":
        sizes = [n_init * (1 + (k_c - 1) * core.seed_trials(k_c)) for k_c in problem.k.tolist()]
        draws = [rng.random(size) for rng, size in zip(generators, sizes, strict=True)]
        return np.concatenate(draws), None, None
    if init == "random":
        positions = []
        for c, rng in enumerate(generators):
            mass = problem.weights[problem.class_rows(c)]
            share = mass / mass.sum()
            drawn = np.empty((n_init, problem.k[c]), dtype=np.int64)  # a MemoryError comes here, before the first draw
            for row in drawn:
                row[:] = rng.choice(len(mass), size=problem.k[c], replace=False, p=share)
            positions.append(drawn.ravel())
        return None, np.concatenate(positions), None
    raise ValueError(f'init must be "k-means++", "random" or the starting points, not {init!r}')


def automatic_starts(init: Init, forms: NDArray[np.uint8], k: NDArray[np.int64], on_gpu: bool) -> NDArray[np.int64]:
    """Number (C,) of starts of each class where the user leaves it to ddoq."""
    if not isinstance(init, str):
        return np.ones(len(k), dtype=np.int64)
    few = k <= FEW_POINTS
    n_starts = np.where(few, STARTS_OF_FEW, STARTS)
    if init == "k-means++" and not on_gpu:
        exchanged = np.where(few, STARTS_IN_SKETCH_OF_FEW, STARTS_IN_SKETCH)
        n_starts = np.where(forms == SKETCH, exchanged, n_starts)
    return np.where(forms == STREAMING, 1, n_starts)
