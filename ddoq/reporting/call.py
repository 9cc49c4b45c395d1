"""The call that made a run is written out again from its configuration."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from ddoq.storage.manifest import image_sets, images_stage

USERS = "..."  # stands for a model that the user gave


def flattened(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A configuration as dotted names and values; None is left out.

    >>> list(flattened({"seed": 0, "options": {"steps": 25, "prompt": None}}))
    [('seed', '0'), ('options.steps', '25')]
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def call(manifest: Mapping[str, Any]) -> tuple[str, str] | None:
    """The call of `ddoq.distill` that makes a run, in Python and as a command; None for folders that it did not make.

    Options as by default are left out. A codec or diffusion model of the user's stands as `...`, with its fingerprint.
    """
    from ddoq.methods.catalogue import METHODS
    from ddoq.methods.distill import distill

    method = METHODS.get(manifest["config"].get("method"))
    if method is None:
        return None
    common = {name: parameter.default for name, parameter in inspect.signature(distill).parameters.items()}
    common |= {"weighting": method.weightings[0], "image_size": method.image_size, "output_size": method.output_size}
    ipc, named = {"ipc": None}, {"method": common["method"]}
    settings = {field.name: field.default for field in fields(method.options)}
    values, fingerprints = _values(manifest)
    lines, words = [], []
    for name, default in (ipc | named | settings | common).items():
        value = values.get(name)
        if value is None or (value == default and name != "seed"):
            continue
        if name in fingerprints:
            lines.append(f"    {name}={USERS},  # {fingerprints[name]!s:.100}")
        else:
            lines.append(f"    {name}={_literal(value)},")
        listed = value if isinstance(value, tuple) else (name.upper() if name in fingerprints else value,)
        words.append(" ".join([f"--{name.replace('_', '-')}", *(shlex.quote(str(part)) for part in listed)]))
    python = "\n".join(["import ddoq", "", "ddoq.distill(", "    data,", '    "again",', *lines, ")"])
    return python, " \\\n    ".join(["ddoq distill DATA again", *words])


def _values(manifest: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments that a run was made with, and the fingerprints of the models among them.

    A model is recorded as {"given": fingerprint}, or as {"fit": steps} where it was fitted to the data.
    """
    config, stages = manifest["config"], manifest["stages"]
    values = {name: value for name, value in config.items() if name not in ("data", "options")} | config["options"]
    fingerprints = {}
    for name, model in config["options"].items():
        if isinstance(model, Mapping):
            values |= {name: model.get("given", "auto"), f"{name}_steps": model.get("fit")}
            if values[name] not in ("auto", "identity"):
                fingerprints[name] = values[name]
    control = stages.get(images_stage(manifest, "diffuse"), {}).get("info", {})
    values |= {name: control[name] for name in ("strength", "steps", "guidance") if name in control}
    values["controls"] = tuple(image_sets(manifest)[1:])
    return values, fingerprints


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
