"""The format of run.json: it is sealed with a hash, and whatever else is read as one is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddoq.storage.files import RunError as RunError
from ddoq.storage.values import digest

FORMAT = 1  # of run.json; raised when an older ddoq could not read it


MANIFEST, LOCK = "run.json", "run.lock"


class NoRunError(RunError):
    """The folder has no run.json, or another program's."""


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """run.json with the sha256 of all the rest of it."""
    content = {key: manifest[key] for key in manifest if key != "sha256"}
    text = json.dumps({**content, "sha256": digest(content)}, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def read_manifest(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        unusable = f"{path.parent} is not a run folder: cannot read {path} ({error.strerror})"
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise NoRunError(f"{unusable}; make one with ddoq distill") from error
        raise RunError(unusable) from error
    damaged = f"{path} is damaged: put back a copy of it, or start again in another folder"
    try:
        manifest = json.loads(data)
        ours = isinstance(manifest, dict) and not manifest.keys().isdisjoint(("format", "sha256"))
        whole = ours and sealed(manifest) == data
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{damaged} ({error})") from error
    if not ours:
        raise NoRunError(f"{path.parent} is not a ddoq run, its run.json is another program's: choose another folder")
    if not whole:
        raise RunError(damaged)
    if manifest.get("format") != FORMAT:
        raise RunError(
            f"{path} has format {manifest.get('format')!r} and this ddoq reads {FORMAT}: use the ddoq that made it"
        )
    if wrong := _misshapen(manifest):
        raise RunError(f"{damaged} ({wrong} is not what ddoq writes)")
    parsed: dict[str, Any] = manifest
    return parsed


def _misshapen(manifest: Mapping[str, Any]) -> str | None:
    """The first part of run.json that is absent or of another kind than `locked` and `record` write."""
    kinds = {"config": dict, "class_names": list, "versions": dict, "machine": dict, "stages": dict}
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            return key
    if not all(isinstance(name, str) for name in manifest["class_names"]):
        return "class_names"
    kinds = {"inputs": str, "outputs": dict, "output": str, "info": dict}
    for stage, entry in manifest["stages"].items():
        whole = isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in kinds.items())
        if not whole or not all(isinstance(recorded, str) for recorded in entry["outputs"].values()):
            return f"stage {stage!r}"
    return None
