"""Denoises partially by any diffusers scheduler: noise the point to time t, then run the tail of the timesteps.

    x_t = sqrt(alpha_bar_t) x + sqrt(1 - alpha_bar_t) noise        (diffusion; for flows (1 - sigma) x + sigma noise)

Timesteps are counted as diffusers' image-to-image pipelines do: floor(steps * strength) of the `steps` timesteps are
run. Different from them, strength 1 starts from noise alone, as text-to-image pipelines do, so that it ignores the
point.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ddoq.machine.arguments import positive

# (noisy latents (b, *latent), timestep (), whether under the class) -> what the scheduler expects of a model
Predict = Callable[[Tensor, Tensor, bool], Tensor]


def check_sampling(strength: float | None, steps: int, guidance: float) -> None:
    """ValueError for a strength outside [0, 1] or too small to run a step, fewer than one step, or a guidance that is
    not a number >= 0.
    """
    positive("steps", steps)
    if not (math.isfinite(guidance) and guidance >= 0):
        raise ValueError(f"guidance must be a finite number of at least 0, got {guidance!r}")
    if strength is None:
        return
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie between 0 (keeps the point) and 1 (ignores it), got {strength!r}")
    if strength > 0 and steps_run(strength, steps) == 0:
        raise ValueError(f"strength {strength} runs none of {steps} steps: raise one of them, or use strength 0")


def steps_run(strength: float, steps: int) -> int:
    """How many of the timesteps are run; forgiving of rounding, so that 0.29 of 100 steps are 29.

    diffusers' image-to-image pipelines take `int(num_inference_steps * strength)`, which is 28 there, since the product
    is 28.999999999999996; but for such products, less than 1e-6 below an integer, the number is the same.

    Examples
    --------
    >>> steps_run(0.29, 100), steps_run(0.7, 50), steps_run(1.0, 25)
    (29, 35, 25)
    """
    return min(math.floor(steps * strength + 1e-6), steps)


@torch.no_grad()
def denoise(
    scheduler: Any,
    predict: Predict,
    points: Tensor,
    generators: Sequence[torch.Generator],
    *,
    strength: float,
    steps: int,
    guidance: float,
) -> Tensor:
    """Noise the points to a time and denoise them.

    Parameters
    ----------
    scheduler
        Any diffusers scheduler with `add_noise` or `scale_noise`; it is copied, not changed.
    predict
        The model. With guidance 1 it is asked only under the class, otherwise also without: u + guidance * (c - u).
    points
        Latents (b, *latent_shape) in the model's scale.
    generators
        One for each point, all its randomness; the result for a point does not depend on the others in the batch.
    strength
        0 returns the points, 1 starts from noise alone.
    steps
        Of the whole schedule.

    Returns
    -------
    Tensor
        (b, *latent_shape).
    """
    check_sampling(strength, steps, guidance)
    if len(generators) != len(points):
        raise ValueError(f"{len(points)} points need as many generators, got {len(generators)}")
    count = steps_run(strength, steps)
    if count == 0:
        return points.clone()
    scheduler, timesteps = _tail(scheduler, count, steps, points.device)
    noise = torch.stack([torch.randn(points.shape[1:], generator=g, device=g.device) for g in generators]).to(points)
    if count == steps:
        x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    else:
        x = _noised(scheduler, points, noise, timesteps[0])
    extra = {"generator": list(generators)} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for t in timesteps:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        output = predict(scaled, t, True)
        if guidance != 1:
            free = predict(scaled, t, False)
            output = free + guidance * (output - free)
        x = scheduler.step(output, t, x, **extra, return_dict=False)[0]
    return x


def keep(scheduler: Any, strength: float, steps: int) -> float:
    """Share of the point at the start of denoising: sqrt(alpha_bar), or 1 - sigma for flows; 1 at strength 0, 0 at
    strength 1.

    Strengths are not comparable across schedules, this is: D4M's strength 0.7 keeps 0.29 of the point under Stable
    Diffusion's schedule of 1,000 steps, and 0.08 under DiT's linear one.

    Examples
    --------
    >>> from ddoq.machine.torchvision import ensure_importable
    >>> ensure_importable()
    >>> from diffusers import DDIMScheduler
    >>> stable = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    >>> round(keep(stable, 0.7, 1000), 2), round(keep(DDIMScheduler(), 0.7, 1000), 2)
    (0.29, 0.08)
    """
    check_sampling(strength, steps, 1)
    count = steps_run(strength, steps)
    if count in (0, steps):
        return 0.0 if count else 1.0
    scheduler, timesteps = _tail(scheduler, count, steps, torch.device("cpu"))
    ones, zeros = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    signal = float(_noised(scheduler, ones, zeros, timesteps[0]))
    if not hasattr(scheduler, "add_noise"):
        return signal
    return signal / math.hypot(
        signal, float(_noised(scheduler, zeros, ones, timesteps[0]))
    )  # some keep the point and scale the noise


def strength_that_keeps(scheduler: Any, share: float, steps: int) -> float:
    """Give the strength between 0 and 1, a multiple of 1 / steps, whose `keep` is nearest to `share`.

    Strength 1 is not among them, since it ignores the point.

    Raises
    ------
    ValueError
        One step, which leaves no strength between.
    """
    if steps < 2:
        raise ValueError(f"steps={steps} leaves no strength between 0 and 1: take at least 2 steps, or give a strength")
    strengths = [count / steps for count in range(1, steps)]
    return min(strengths, key=lambda strength: abs(keep(scheduler, strength, steps) - share))


def _tail(scheduler: Any, count: int, steps: int, device: torch.device) -> tuple[Any, Tensor]:
    """A copy of the scheduler set to the last `count` of `steps` timesteps, and those."""
    if count < steps and scheduler.config.get("skip_prk_steps") is False:
        # PNDM's Runge-Kutta steps come first and are more than one a timestep: a tail of them is no schedule
        scheduler = type(scheduler).from_config(scheduler.config, skip_prk_steps=True)
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps, device=device)
    begin = (steps - count) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    return scheduler, scheduler.timesteps[begin:]


def _noised(scheduler: Any, points: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    times = t.repeat(len(points))
    if hasattr(scheduler, "add_noise"):
        noised: Tensor = scheduler.add_noise(points, noise, times)
    else:
        noised = scheduler.scale_noise(points, times, noise)
    return noised
