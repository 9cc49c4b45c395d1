"""The manifest run.json is read and written here: it is sealed with a hash, and whatever else is there is refused.

What a manifest says of its folder (its kind, the sets of images in it and their names) is asked here too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ddoq.storage.files import RunError as RunError
from ddoq.storage.values import digest

FORMAT = 2  # of run.json; raised when it could not be read as before
MANIFEST, LOCK = "run.json", "run.lock"

Kind = Literal["distilled", "weighed"]


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
        config = manifest.get("config")
        weighed = isinstance(config, dict) and kind_of(manifest) == "weighed"
        remedy = "delete it and weigh the folder again" if weighed else "distil again into another folder"
        formats = f"format {manifest.get('format')!r} and this ddoq reads {FORMAT}"
        raise RunError(f"{path} has {formats}: {remedy}, or use the ddoq that made it{_version(manifest)}")
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


def _version(manifest: Mapping[str, Any]) -> str:
    versions = manifest.get("versions")
    return f", version {versions['ddoq']}" if isinstance(versions, dict) and "ddoq" in versions else ""


def kind_of(manifest: Mapping[str, Any]) -> Kind:
    """Whether a folder is a run of `ddoq.distill` or one of anybody's images that `ddoq.weigh` gave weights.

    >>> kind_of({"config": {"synthesis": "given", "given": {"image_size": 8, "channels": 1}}})
    'weighed'
    """
    return "weighed" if "given" in manifest["config"] else "distilled"


def main_set(manifest: Mapping[str, Any]) -> str:
    """The name of a run's main images: their synthesis, or the method where it has no syntheses.

    >>> main_set({"config": {"method": "ddoq", "options": {"synthesis": "decode"}}})
    'decode'
    """
    config = manifest["config"]
    name: str = config.get("synthesis") or config.get("options", {}).get("synthesis") or config.get("method", "given")
    return name


def images_stage(manifest: Mapping[str, Any], name: str) -> str:
    """The stage that records a set of images, whether it is done or not.

    >>> run = {"config": {"method": "ddoq", "options": {"synthesis": "decode"}}}
    >>> images_stage(run, "decode"), images_stage(run, "nearest")
    ('synthesize', 'synthesize:nearest')
    """
    if name != main_set(manifest):
        return f"synthesize:{name}"
    return "synthesize" if kind_of(manifest) == "distilled" else "weigh"


def image_sets(manifest: Mapping[str, Any]) -> list[str]:
    """Names of the sets of images that are done, the main one first, then the controls in the order of their making.

    >>> config = {"method": "ddoq", "options": {"synthesis": "decode"}}
    >>> image_sets({"config": config, "stages": {"encode": {}, "synthesize:nearest": {}, "synthesize": {}}})
    ['decode', 'nearest']
    """
    main = main_set(manifest)
    controls = [stage.partition(":")[2] for stage in manifest["stages"] if stage.startswith("synthesize:")]
    return [name for name in (main, *controls) if images_stage(manifest, name) in manifest["stages"]]


def row_name(manifest: Mapping[str, Any], name: str) -> str:
    """The name of a run's set of images in a table beside other runs' sets: the method, for methods but our own.

    The sets of "ddoq" are known by their syntheses; other methods' main images by the method, and their controls by
    both.

    >>> [row_name({"config": {"method": "d4m", "options": {"synthesis": "diffuse"}}}, s) for s in ("diffuse", "decode")]
    ['d4m', 'd4m decode']
    """
    method: str = manifest["config"].get("method", "ddoq")
    return name if method == "ddoq" else method if name == main_set(manifest) else f"{method} {name}"


def method_label(manifest: Mapping[str, Any]) -> str | None:
    """The method that made a run, with its note if it has one; None for the package's own and for other folders.

    >>> stages = {"synthesize": {"info": {"note": "a reconstruction"}}}
    >>> method_label({"config": {"method": "dit"}, "stages": stages})
    'dit (a reconstruction)'
    """
    method: str | None = manifest.get("config", {}).get("method")
    note = manifest.get("stages", {}).get("synthesize", {}).get("info", {}).get("note")
    return None if method in (None, "ddoq") else f"{method} ({note})" if note else method
