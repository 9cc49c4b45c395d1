"""The log of a training, one JSON object a line: settings, some epochs, the result, and the sha256 of all before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddoq.machine.environment import environment
from ddoq.storage.files import write_atomic
from ddoq.storage.values import plain

EPOCHS = 20  # written to a log


def write_log(
    path: Path,
    settings: Mapping[str, Any],
    losses: Sequence[float],
    accuracy: float | None,
    steps: int,
    seconds: float,
    checks: Sequence[tuple[int, float]] = (),
) -> None:
    """Write the log of a training that has ended: about EPOCHS of its epochs, all with a test, and its result."""
    step = max(1, len(losses) // EPOCHS)
    tested = {epoch: {"accuracy": right} for epoch, right in checks if epoch < len(losses)}
    shown = [e for e in range(1, len(losses) + 1) if e % step == 0 or e == len(losses) or e in tested]
    lines: list[dict[str, Any]] = [{"settings": plain(settings), "machine": environment()["machine"]}]
    lines += [{"epoch": epoch, "loss": losses[epoch - 1], **tested.get(epoch, {})} for epoch in shown]
    best = max((right for _, right in checks), default=accuracy)
    result = {"accuracy": accuracy, "best": best, "loss": losses[-1], "steps": steps, "seconds": round(seconds, 3)}
    lines += [{"result": result}]
    write_atomic(path, _sealed("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()))


def logged_accuracies(path: Path, settings: Mapping[str, Any]) -> tuple[float, float] | None:
    """The last and the best accuracy in a log that is whole and was written with these settings; None without one."""
    try:
        data = path.read_bytes()
        body = data[: data.rstrip(b"\n").rfind(b"\n") + 1]
        if _sealed(body) != data:
            return None
        first, *_, last = (json.loads(line) for line in body.splitlines())
        accuracies = float(last["result"]["accuracy"]), float(last["result"]["best"])
        return accuracies if first["settings"] == plain(settings) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sealed(body: bytes) -> bytes:
    return body + json.dumps({"sha256": hashlib.sha256(body).hexdigest()}).encode() + b"\n"
