"""The call that made a run, written out again from its configuration."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from ddoq.methods.presets import settle


def flattened(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A configuration as dotted names and values; None is left out.

    >>> list(flattened({"seed": 0, "sampling": {"steps": 25, "prompt": None}}))
    [('seed', '0'), ('sampling.steps', '25')]
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def call(manifest: Mapping[str, Any]) -> tuple[str, str] | None:
    """The call of `ddoq.distill` that makes a run, in Python and as a command; None for what it did not make.

    Options as by default are left out. A codec or diffusion model of the user's stands as `...`, with its fingerprint.
    """
    from ddoq.methods.distill import distill

    config = manifest["config"]
    if "quantizer" not in config:
        return None
    given = {**config, **config["sampling"], **config["quantizer"], "quantizer": config["quantizer"]["method"]}
    control = manifest["stages"].get("synthesize:diffuse", {}).get("info", {})
    given.update({name: control[name] for name in ("strength", "steps", "guidance") if name in control})
    made = [stage.partition(":")[2] for stage in manifest["stages"] if stage.startswith("synthesize:")]
    preset = (config["preset"] or "").partition(" (")[0] or None
    own = {name: config[name].get("given") for name in ("codec", "diffusion")}
    given.update(preset=preset, controls=tuple(made), **{name: value or "auto" for name, value in own.items()})
    given.update({f"{name}_steps": config[name].get("fit") for name in own})
    defaults = {name: parameter.default for name, parameter in inspect.signature(distill).parameters.items()}
    defaults.update({name: value for name, value in settle(preset, {}).items() if name not in own})
    lines, words = [], []
    for name, default in defaults.items():
        value = given.get(name)
        if name not in given or name == "data" or value is None or (value == default and name not in ("ipc", "seed")):
            continue
        foreign = name in own and value not in ("auto", "identity")
        literal = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
        lines.append(f"    {name}=...,  # {value!s:.100}" if foreign else f"    {name}={literal},")
        listed = value if isinstance(value, tuple) else (name.upper() if foreign else value,)
        words.append(" ".join([f"--{name.replace('_', '-')}", *(shlex.quote(str(part)) for part in listed)]))
    python = "\n".join(["import ddoq", "", "ddoq.distill(", "    data,", '    "again",', *lines, ")"])
    return python, " \\\n    ".join(["ddoq distill DATA again", *words])
