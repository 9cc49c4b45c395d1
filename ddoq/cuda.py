"""The public `ddoq.cuda` tells whether an NVIDIA GPU can be used, and if not, why."""

from __future__ import annotations

from ddoq.machine.gpu import is_available, why_not

__all__ = ["is_available", "why_not"]
