"""Finished batches of a synthesis are kept on disk, so that a killed one goes on from there."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ddoq.machine.memory import BatchSize
from ddoq.storage.files import write_atomic
from ddoq.storage.run import RunError

Images = NDArray[np.uint8]


def in_batches(
    make: Callable[[slice], Images], count: int, limit: BatchSize, work: Path, key: str, what: str, progress: bool
) -> Images:
    """Images of all points; each batch is kept in `work` as it is made, and taken from there if it was made from the
    same inputs and is whole. A batch that memory is too small for is made in halves, as are those after it, in a
    resumed run too.
    """
    work.mkdir(parents=True, exist_ok=True)
    parts = []
    with tqdm(total=count, desc=what, unit="image", disable=not progress) as bar:
        for begin in range(0, count, limit.asked):
            size = min(limit.asked, count - begin)
            path = work / f"batch-{begin // limit.asked:06d}.safetensors"
            images = _read_batch(path, key, limit)
            if images is None:
                with torch.no_grad():
                    images = np.concatenate(limit.parts(_after(begin, make), size))
                images = np.ascontiguousarray(images)  # channels last, safetensors would write them in that order
                metadata = {"inputs": key, "sha256": hashlib.sha256(images.tobytes()).hexdigest()}
                metadata |= {name: str(value) for name, value in limit.facts.items()}
                write_atomic(path, safetensors.numpy.save({"images": images}, metadata=metadata))
                bar.update(len(images))
            else:
                bar.update(len(images))
                bar.initial = bar.n  # so that the rate is that of this process
            parts.append(images)
    return np.concatenate(parts)


def _after(begin: int, make: Callable[[slice], Images]) -> Callable[[slice], Images]:
    """`make` for slices counted from `begin`."""
    return lambda part: make(slice(begin + part.start, begin + part.stop))


def remove_batches(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    with suppress(OSError):  # absent, or another synthesis has its batches there
        work.parent.rmdir()


def _read_batch(path: Path, key: str, limit: BatchSize) -> Images | None:
    """Images of a finished batch, after which `limit` is what it was; None if there is none from the same inputs."""
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata, images = file.metadata() or {}, file.get_tensor("images")
    except safetensors.SafetensorError as error:
        raise RunError(f"{path} is damaged ({error}): delete it and run again to make it again") from error
    if metadata.get("inputs") != key:
        return None
    if metadata.get("sha256") != hashlib.sha256(images.tobytes()).hexdigest():
        raise RunError(f"{path} is damaged: delete it and run again to make it again")
    limit.take_over(metadata)
    whole: Images = images
    return whole
