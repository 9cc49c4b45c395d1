"""Says where the logs and the table of an evaluation lie."""

from __future__ import annotations

import re
from pathlib import Path

from ddoq.storage.manifest import MANIFEST
from ddoq.storage.run import Run
from ddoq.storage.values import digest

TABLE = "evaluation.json"


def by_test_set(folder: Path, test_set: str) -> Path:
    """Where in a folder for logs those of one test set are, with their table."""
    return folder / f"test-{test_set[:8]}"


def log_name(name: str, images: int, weighting: str, student: str, protocol: str, seed: int) -> str:
    """The file of a training's log; a long protocol is cut short and told apart by its hash.

    >>> log_name("random subset", 100, "uniform", "convnet3", "dc, epochs=30", 0)
    'random_subset-100-uniform-convnet3-dc_epochs_30-seed0.jsonl'
    """
    if len(protocol) > 80:
        protocol = f"{protocol[:70]} {digest(protocol)[:8]}"
    parts = [re.sub(r"[^\w.]+", "_", part) for part in (name, str(images), weighting, student, protocol)]
    return f"{'-'.join(parts)}-seed{seed}.jsonl"


HIDDEN = ".train"  # folder for the logs of a folder of class folders, where it is no class


def log_folder(path: Path) -> Path:
    """`train/` in a run; hidden in a folder of class folders, none of which it is."""
    distilled = (path / MANIFEST).exists() and Run.open(path).kind == "distilled"
    return path / ("train" if distilled else HIDDEN)
