"""A fitted model as a stage of a run folder: trained beside and moved, so that it is whole or made again; what a killed
training had done is kept.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ddoq.machine.memory import first_line, ran_out_of_memory
from ddoq.models.fitting.loop import Journal
from ddoq.storage.run import Run
from ddoq.storage.values import digest


def fitted(
    run: Run,
    stage: str,
    inputs: Mapping[str, Any],
    train: Callable[[Path, Journal], dict[str, Any]],
    place: Path,
    *,
    smaller: str,
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
    smaller
        What to do where memory is too small, for the message.
    log, show
        See `Journal`.

    Raises
    ------
    MemoryError
        Memory is too small, with what to do.
    """
    if run.done(stage, inputs):
        return place
    start = time.monotonic()
    work, checkpoint = run.path / f".{stage}.partial", run.path / f".{stage}.checkpoint"
    shutil.rmtree(work, ignore_errors=True)
    try:
        info = train(work, Journal(checkpoint, digest(inputs), log, show))
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        raise MemoryError(f"fit of the {stage}: {first_line(error)}: {smaller}") from error
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
