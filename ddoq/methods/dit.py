"""Defines the paper's DiT variant, reconstructed: our own method with other defaults.

Its settings are not published. These are those of MGD3, which samples the same model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ddoq.methods.ddoq import DDOQ, make_images
from ddoq.methods.task import Method


@dataclass(frozen=True)
class DiT(DDOQ):
    """The options of the DiT variant: those of "ddoq", with DiT-XL/2 at 256 pixels and the settings of MGD3."""

    diffusion: Any = "facebook/DiT-XL-2-256"
    steps: int = 50
    guidance: float = 4.0


NOTE = "a reconstruction: the paper's own settings are not published"
METHOD = Method("dit", DiT, make_images, image_size=256, note=NOTE)
