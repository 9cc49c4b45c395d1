"""Settings of published methods, under one name each.

d4m    suduo94/D4M's own: Stable Diffusion 1.5 at 512 pixels, its MiniBatchKMeans, samples of the posterior, prompt and
negative prompt, written at 224 pixels. With weighting="uniform" it is D4M, with "density" DDOQ on its points.
dit    a reconstruction of the paper's DiT variant, whose settings are not published: those of MGD3, which samples
the same model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Preset = Literal["d4m", "dit"]
NOTES = {"dit": "a reconstruction: the paper's own settings are not published"}
DEFAULTS: dict[str, Any] = {
    "diffusion": "auto",
    "image_size": None,
    "output_size": None,
    "strength": None,
    "steps": 25,
    "guidance": 2.0,
    "prompt": None,
    "negative_prompt": None,
    "posterior": "mean",
    "quantizer": "lloyd",
}
PRESETS: dict[str, dict[str, Any]] = {
    "d4m": {
        "diffusion": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "image_size": 512,
        "output_size": 224,
        "strength": 0.7,
        "steps": 50,
        "guidance": 8.0,
        "prompt": "{}",
        "negative_prompt": "cartoon, anime, painting",
        "posterior": "sample",
        "quantizer": "minibatch",
    },
    "dit": {
        "diffusion": "facebook/DiT-XL-2-256",
        "image_size": 256,
        "steps": 50,
        "guidance": 4.0,
    },
}


def settle(preset: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a call: what was given (not None, and not "auto"), else the preset's, else the default.

    >>> settle("d4m", {"strength": 0.5, "steps": None})["strength"], settle(None, {})["steps"]
    (0.5, 25)
    """
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is not known: use {' or '.join(map(repr, PRESETS))}")
    chosen = {name: value for name, value in given.items() if value is not None and not _is_auto(value)}
    return {**DEFAULTS, **(PRESETS[preset] if preset else {}), **chosen}


def labelled(preset: str | None) -> str | None:
    """A preset's name with what must be said wherever it shows.

    >>> labelled("d4m"), labelled("dit")
    ('d4m', "dit (a reconstruction: the paper's own settings are not published)")
    """
    return f"{preset} ({NOTES[preset]})" if preset in NOTES else preset


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"
