"""Holds what the diffusion models over diffusers' schedulers have in common."""

from __future__ import annotations

import json
from typing import Any

import torch

from ddoq.machine.extras import need
from ddoq.models.diffusion.partial import keep, strength_that_keeps
from ddoq.models.parts import Parts

KEEP = 0.29  # what D4M's strength 0.7 keeps of a point under Stable Diffusion's schedule of 1,000 steps


class Scheduled:
    """A model's scheduler: any of diffusers' with `add_noise` or `scale_noise`; copied for every use.

    ValueError for one that must be told a shift of the times with every size of image.
    """

    def __init__(self, scheduler: Any) -> None:
        _check_shift(scheduler, "of the diffusion model")
        self.scheduler = scheduler

    def default_strength(self, steps: int) -> float:
        """Give the strength whose share kept of the point is nearest to 0.29 among the times of `steps` steps.

        D4M's strength 0.7 keeps 0.29 under Stable Diffusion's schedule of 1,000 steps.
        """
        return strength_that_keeps(self.scheduler, KEEP, steps)

    def keep(self, strength: float, steps: int) -> float:
        """Share of the point that a strength keeps: sqrt(alpha_bar) at the start, or 1 - sigma for flows."""
        return keep(self.scheduler, strength, steps)

    def described(self, module: torch.nn.Module, *more: Any) -> Any:
        """What a fingerprint is taken of: a denoiser, the schedule, and what else decides the results."""
        schedule = {key: value for key, value in self.scheduler.config.items() if not key.startswith("_")}
        return _Described(module, json.dumps([type(self.scheduler).__name__, schedule, *more], default=str))


class _Described:
    def __init__(self, module: torch.nn.Module, description: str) -> None:
        self.module = module
        self.description = description


def load_scheduler(parts: Parts) -> Any:
    """A pipeline's scheduler, of the class that its configuration names."""
    kind = parts.kind("scheduler")
    if kind is None:
        raise FileNotFoundError(f"no scheduler/scheduler_config.json in {parts.name}")
    diffusers = need("diffusers", "a scheduler")
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    scheduler_class = getattr(diffusers, kind, None)
    if not (isinstance(scheduler_class, type) and issubclass(scheduler_class, SchedulerMixin)):
        raise ValueError(
            f"scheduler_config.json in {parts.name} describes {kind!r}, which is no scheduler of diffusers "
            f"{diffusers.__version__}"
        )
    scheduler = parts.load("scheduler", scheduler_class)
    _check_shift(scheduler, f"of {parts.name}")  # before the weights are read
    return scheduler


def _check_shift(scheduler: Any, whose: str) -> None:
    if scheduler.config.get("use_dynamic_shifting"):
        raise ValueError(
            f"the scheduler {whose}, a {type(scheduler).__name__}, has use_dynamic_shifting: its pipeline tells it a "
            "shift mu for every size of image, by a rule that ddoq does not know. Set use_dynamic_shifting to false in "
            "its configuration (scheduler/scheduler_config.json) and shift to exp(mu) for the size of your images"
        )
