"""A model is fitted as a stage of a run folder: trained beside and moved, so that it is whole or made again.

A checkpoint keeps the steps that a killed training had made.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ddoq.machine.memory import first_line, ran_out_of_memory
from ddoq.models.fitting.loop import Journal
from ddoq.storage.run import Run
from ddoq.storage.values import digest


def fitted(
    run: Run,
    name: str,
    inputs: Mapping[str, Any],
    train: Callable[[Path, Journal], dict[str, Any]],
    folder: Path,
    *,
    smaller: str,
    log: Path | None = None,
    show: Callable[[int, Any], None] | None = None,
) -> Path:
    """Train a model for a run, unless that is done, and give the folder that it lies in.

    Parameters
    ----------
    name
        Of the stage.
    inputs
        All that decides what is trained.
    train
        Writes the model into the folder that it is given, keeps the journal and returns facts for run.json.
    folder
        Where the trained model is put: the run folder or one in it.
    smaller
        What to do where memory is too small, for the message.
    log, show
        See `Journal`.

    Raises
    ------
    MemoryError
        Memory is too small, with what to do.
    """
    with run.stage(name, inputs) as stage:
        if stage.done:
            return folder
        work, checkpoint = run.path / f".{name}.partial", run.path / f".{name}.checkpoint"
        shutil.rmtree(work, ignore_errors=True)
        try:
            stage.info = train(work, Journal(checkpoint, digest(inputs), log, show))
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            raise MemoryError(f"fit of the {name}: {first_line(error)}: {smaller}") from error
        stage.outputs = _moved(work, folder)
    checkpoint.unlink(missing_ok=True)
    return folder


def _moved(work: Path, folder: Path) -> list[Path]:
    """Put what lies in one folder into another, in place of what has the same names; the files that are there then."""
    folder.mkdir(exist_ok=True)
    outputs: list[Path] = []
    for entry in sorted(work.iterdir()):
        target = folder / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        entry.replace(target)
        outputs += sorted(path for path in target.rglob("*") if path.is_file()) or [target]
    work.rmdir()
    return outputs
