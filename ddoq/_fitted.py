"""A fitted model as a stage of a run folder: trained beside and moved, so that it is whole or made again; what a killed
training had done is kept.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ddoq._training import Journal
from ddoq.files import digest
from ddoq.run import Run


def fitted(
    run: Run,
    stage: str,
    inputs: Mapping[str, Any],
    train: Callable[[Path, Journal], dict[str, Any]],
    place: Path,
    *,
    log: Path | None = None,
    show: Callable[[int, Any], None] | None = None,
) -> Path:
    """Train a model for a run, unless that is done, and give the folder that it lies in.

    Parameters
    ----------
    inputs
        All that decides what is trained.
    train
        Writes the model into the folder that it is given, keeps the journal and returns facts for run.json.
    place
        Where what it wrote is put: the run folder or one in it.
    log, show
        See `Journal`.
    """
    if run.done(stage, inputs):
        return place
    start = time.monotonic()
    work, checkpoint = run.path / f".{stage}.partial", run.path / f".{stage}.checkpoint"
    shutil.rmtree(work, ignore_errors=True)
    info = train(work, Journal(checkpoint, digest(inputs), log, show))
    place.mkdir(exist_ok=True)
    outputs: list[Path] = []
    for entry in sorted(work.iterdir()):
        target = place / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        entry.replace(target)
        outputs += sorted(path for path in target.rglob("*") if path.is_file()) or [target]
    work.rmdir()
    run.record(stage, inputs, outputs, seconds=time.monotonic() - start, info=info)
    checkpoint.unlink(missing_ok=True)
    return place
