"""Makes the random streams: one for every stage, class and image, all spawned from the seed that the user gave."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global streams, which initialisation and dropout draw from, and put them back afterwards."""
    index = device.index if device.index is not None or device.type != "cuda" else torch.cuda.current_device()
    with torch.random.fork_rng([] if index is None else [index]):
        torch.default_generator.manual_seed(seed)
        if index is not None:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def seed_sequence(seed: int, stage: str, *key: int) -> np.random.SeedSequence:
    """The random stream of a stage, and of a class or image in it: the same in every version and on every machine.

    Examples
    --------
    >>> seed_sequence(0, "synthesize", 3, 7).generate_state(1)
    array([...], dtype=uint32)
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    number = int.from_bytes(hashlib.sha256(stage.encode()).digest()[:4], "little")
    return np.random.SeedSequence(int(seed), spawn_key=(number, *(int(part) for part in key)))


def torch_seed(stream: np.random.SeedSequence) -> int:
    """Seed of a torch generator from a stream of its own."""
    return int(stream.generate_state(1, np.uint64)[0])
