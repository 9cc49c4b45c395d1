"""A trained student in one safetensors file, under hashes: its weights, what it is, how it was made, what came of it.

A file that is there is never overwritten: it is the student that is asked for, or an error says what else it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor, nn

from ddoq.storage.files import RunError
from ddoq.storage.tensors import read_tensors, write_tensors
from ddoq.storage.values import differences, digest, plain

# Settings that change no weight: what the student is tested on and when, and where it was trained.
TESTS = ("protocol", "test_images", "test_set", "test_crop", "check_from")
PLACES = ("versions", "device", "torch_threads", "elsewhere")


def write_checkpoint(path: Path, model: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write a student, with facts for JSON: "student" names it, "settings" are those of its training."""
    facts = plain(facts)
    write_tensors(path, model.state_dict(), digest(facts), facts)


def read_checkpoint(path: Path, advice: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and facts.

    Raises
    ------
    FileNotFoundError
        There is none.
    ValueError
        The file is no student of ddoq's, with advice what to do.
    RunError
        It is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("ddoq", "{}"))
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): {advice}") from error
    if not isinstance(facts, dict) or "student" not in facts:
        raise ValueError(f"{path} does not say which network it is: {advice}")
    try:
        sealed = read_tensors(path)
    except RunError as error:
        raise RunError(f"{path} is damaged: {advice}") from error
    assert sealed is not None
    return sealed


def find_checkpoint(path: Path, settings: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The student that a training with these settings left, whatever it was tested on; None where there is no file.

    RunError, with what differs, for one of other settings, and for a damaged or foreign file.
    """
    if not path.exists():
        return None
    advice = "choose another file, or delete it"
    try:
        tensors, facts = read_checkpoint(path, advice)
    except ValueError as error:
        raise RunError(str(error)) from error
    there, here = (
        {name: value for name, value in settings_of.items() if name not in TESTS + PLACES}
        for settings_of in (facts["settings"], plain(settings))
    )
    changed = [
        "other images, labels or weights" if key == "training_set" else f"{key}: {old!r:.80} there, {new!r:.80} now"
        for key, old, new in differences("", there, here)
    ]
    if changed:
        raise RunError(f"{path} was trained with other settings ({'; '.join(changed)}): {advice}")
    return tensors, facts
