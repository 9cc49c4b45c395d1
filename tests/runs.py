"""A small run folder, and a full disk, for the tests of run folders."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ddoq.storage.files import write_atomic
from ddoq.storage.image_folder import write_images
from ddoq.storage.run import Run

CONFIG = {"ipc": 10, "quantizer": {"n_init": 1, "init": "k-means++"}, "strength": None}


NAMES = ["cat", "dog"]


@contextlib.contextmanager
def full_disk(limit: int = 1000) -> Iterator[None]:
    """Files may not grow beyond `limit` bytes: a write fails half-way, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "run.lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def make(folder: Path) -> Path:
    """A run with a plain stage, a stage in a sub-folder, and images."""
    with Run.locked(folder, CONFIG, NAMES) as run:
        write_atomic(run.path / "points.bin", bytes(range(256)))
        run.record("quantize", {"seed": 0}, [run.path / "points.bin"], seconds=1.5, info={"w2": 0.5})
        (run.path / "codec").mkdir()
        write_atomic(run.path / "codec" / "weights.bin", b"weights" * 10)
        run.record("codec", {"seed": 0}, [Path("codec/weights.bin")], seconds=2, info={})
        images = np.arange(4 * 16, dtype=np.uint8).reshape(4, 1, 4, 4)
        outputs = write_images(
            run.path / "images", images, np.array([0, 0, 1, 1]), np.ones(4), np.ones(4, int), NAMES, [{}] * 4
        )
        run.record("synthesize", {"seed": 0}, outputs, seconds=3, info={})
    return folder
