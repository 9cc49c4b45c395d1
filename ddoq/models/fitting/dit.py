"""Train a class-conditional DiT on latents: diffusers' DiTTransformer2DModel with DDIMScheduler, or that of flows,
saved in their own format.

Velocity or noise on the cosine schedule, or a straight flow; mean squared error; the label is dropped for one image in
ten, for classifier-free guidance; the saved weights are an exponential moving average. The number of steps depends on
the configuration alone, so that the same seed gives the same bytes on the same machine with the same number of threads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddoq.machine.arguments import positive
from ddoq.machine.device import TrainingPrecision
from ddoq.machine.extras import need
from ddoq.machine.streams import seed_sequence, torch_seed
from ddoq.models.diffusion.dit import FACTS
from ddoq.models.fitting.loop import Journal, train
from ddoq.models.fitting.state import FitRecipe
from ddoq.storage.files import write_atomic

Objective = Literal["flow", "epsilon", "velocity"]
LABEL_DROPOUT = 0.1
LEARNING_RATE = 2e-3
HEAD_SIZE = 32
# training by default: so many tokens, or each image so many times, whichever is less, but at least so many steps
TOKEN_BUDGET, EPOCHS, MIN_STEPS = 4.2e6, 25, 500


def fit_diffusion(
    latents: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    n_classes: int,
    folder: Path,
    *,
    seed: int,
    class_names: Sequence[str] | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    width: int = 128,
    depth: int = 4,
    patch: int | None = None,
    objective: Objective = "velocity",
    standardise: bool = True,
    ema: float | None = None,
    accumulate: int = 1,
    precision: TrainingPrecision = "float32",
    journal: Journal | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Train a class-conditional DiT on latents and save it in `folder` as `transformer`, `scheduler` and ddoq.json.

    Parameters
    ----------
    latents
        (n, channels, side, side), float16 or float32; standardised per channel for the model, by numbers kept in
        ddoq.json.
    labels
        (n,), from 0 to n_classes - 1.
    folder
        Made if absent.
    seed
        Of the weights, the order, times, noise and dropped labels.
    class_names
        In order; the model is then matched to other data sets by name.
    steps
        Training steps; default: as many as see 4.2 million tokens (86,000 images at a latent side of 7) or each image
        25 times, whichever is less, but at least 500.
    batch_size, width, depth
        Images per step, channels (a multiple of 32) and blocks of the transformer. The learning rate falls with the
        width.
    patch
        Side of a patch, which divides the latents'; default: 1 up to a side of 8, see `patch_size`.
    objective
        What the model predicts: "velocity" or "epsilon" on the cosine schedule, or "flow", noise - latent on the
        straight line between them.
    standardise
        Without it the model sees the latents as they are.
    ema
        Decay of the averaged weights, see `default_ema`.
    accumulate, precision, journal
        See `ddoq.models.fitting.loop`: parts of a step, "bfloat16" for mixed precision, checkpoints and log.

    Returns
    -------
    dict
        steps, batch_size, accumulate, width, depth, patch, parameters, loss (last tenth of training, mean),
        images_per_second.

    Examples
    --------
    >>> import tempfile
    >>> latents, labels = np.random.default_rng(0).normal(size=(8, 1, 2, 2)), np.arange(8) % 2
    >>> folder = Path(tempfile.mkdtemp())
    >>> facts = fit_diffusion(latents, labels, 2, folder, seed=0, steps=2, width=32, depth=1, progress=False)
    >>> sorted(path.name for path in folder.iterdir())
    ['ddoq.json', 'scheduler', 'transformer']
    """
    _check(latents, labels, n_classes, steps, width)
    channels, side = latents.shape[1], latents.shape[2]
    patch = patch or patch_size(side)
    batch = min(batch_size, len(latents))
    steps = steps or _default_steps(len(latents), batch, side // patch)
    mean, std = _scale(latents) if standardise else (torch.zeros(1, channels, 1, 1), torch.ones(1, channels, 1, 1))
    streams = seed_sequence(seed, "diffusion").spawn(3)
    model = _new_dit(channels, side, patch, n_classes, width, depth, torch_seed(streams[0])).to(device)
    scheduler = new_scheduler(objective)

    def draw(indices: NDArray[np.integer[Any]], noise: torch.Generator) -> tuple[Tensor, ...]:
        x = torch.from_numpy(np.asarray(latents[indices], dtype=np.float32))
        y = torch.from_numpy(labels[indices].astype(np.int64))
        u, e = _times(len(x), noise), torch.randn(x.shape, generator=noise)
        dropped = torch.rand(len(x), generator=noise) < LABEL_DROPOUT
        x, e, u = ((x - mean) / std).to(device), e.to(device), u.to(device)
        return *_noised(scheduler, objective, x, e, u), torch.where(dropped, n_classes, y).to(device)

    def loss_of(noised: Tensor, t: Tensor, target: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(model(noised, timestep=t, class_labels=y).sample.float(), target)

    recipe = FitRecipe(
        steps,
        batch,
        LEARNING_RATE * 128 / width,
        1e-2,
        betas=(0.9, 0.99),
        ema=default_ema(steps) if ema is None else ema,
        accumulate=accumulate,
        precision=precision,
    )
    model.eval()  # in training mode every block would drop labels by itself, from the global generator
    averaged, losses, speed = train(
        "diffusion model",
        model,
        recipe,
        len(latents),
        streams[1:],
        draw,
        loss_of,
        journal=journal,
        progress=progress,
    )
    averaged.save_pretrained(folder / "transformer", safe_serialization=True)
    scheduler.save_pretrained(folder / "scheduler")
    _write_facts(folder / FACTS, mean, std, class_names)
    return {
        "steps": steps,
        "batch_size": batch,
        "accumulate": accumulate,
        "width": width,
        "depth": depth,
        "patch": patch,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": float(np.mean(losses[-max(1, steps // 10) :])),
        "images_per_second": round(speed, 1),
    }


def _default_steps(n: int, batch: int, tokens_along: int) -> int:
    """Steps that see so many tokens, or each image so many times, whichever is less."""
    images = min(TOKEN_BUDGET / tokens_along**2, EPOCHS * n)
    return max(MIN_STEPS, round(images / batch))


def _write_facts(path: Path, mean: Tensor, std: Tensor, class_names: Sequence[str] | None) -> None:
    """Write what a diffusers folder does not hold: the latents' scale and the class names."""
    facts: dict[str, Any] = {"latent_mean": mean.flatten().tolist(), "latent_std": std.flatten().tolist()}
    if class_names is not None:
        facts["class_names"] = list(class_names)
    write_atomic(path, json.dumps(facts, indent=1, ensure_ascii=False).encode())


def default_ema(steps: int) -> float:
    """Give the decay of the averaged weights: 0.995 up to 2,000 steps, for more an average over a tenth of them.

    >>> default_ema(500), default_ema(20_000), default_ema(400_000)
    (0.995, 0.9995, 0.9999)
    """
    return max(0.995, min(0.9999, 1 - 10 / steps))


def patch_size(side: int) -> int:
    """Give the side of a patch: 1 up to a latent side of 8, then the smallest divisor that leaves at most 16 patches a
    side.
    """
    if side <= 8:
        return 1
    return next(patch for patch in range(1, side + 1) if side % patch == 0 and side // patch <= 16)


def _check(latents: Any, labels: Any, n_classes: int, steps: int | None, width: int) -> None:
    if latents.ndim != 4 or latents.shape[2] != latents.shape[3]:
        raise ValueError(
            f"a DiT needs square latents (n, channels, side, side), got {latents.shape}: "
            "give a diffusion model of your own"
        )
    if labels.shape != (len(latents),) or len(labels) == 0:
        raise ValueError(f"{len(latents)} latents need as many labels, got shape {labels.shape}")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels must lie in 0 to {n_classes - 1}, got {labels.min()} to {labels.max()}")
    if steps is not None:
        positive("steps", steps)
    if width < HEAD_SIZE or width % HEAD_SIZE:
        raise ValueError(f"width must be a multiple of {HEAD_SIZE}, got {width}")


def _scale(latents: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, (1, channels, 1, 1), of at most 16,384 latents spread over the data."""
    some = np.asarray(latents[:: math.ceil(len(latents) / 16384)], dtype=np.float64)
    mean = some.mean(axis=(0, 2, 3))
    std = np.maximum(some.std(axis=(0, 2, 3)), 1e-6)
    return (torch.from_numpy(mean).float().reshape(1, -1, 1, 1), torch.from_numpy(std).float().reshape(1, -1, 1, 1))


def new_scheduler(objective: Objective) -> Any:
    """DDIM on the cosine schedule, or Euler's method for flows.

    What is predicted of an image that is all but noise says nothing of the image where it is the noise: "epsilon"
    leaves the last steps of the schedule out.
    """
    diffusers = need("diffusers", "the diffusion model that is fitted")

    if objective == "flow":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    return diffusers.DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="epsilon" if objective == "epsilon" else "v_prediction",
        clip_sample=False,
        timestep_spacing="leading" if objective == "epsilon" else "trailing",
        steps_offset=1 if objective == "epsilon" else 0,
    )


def _noised(scheduler: Any, objective: Objective, x: Tensor, e: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Noised latents, their times as the model is told them, and what it is to predict, at shares u of the schedule."""
    total = scheduler.config.num_train_timesteps
    if objective == "flow":
        sigma = u.reshape(-1, 1, 1, 1)
        return x + sigma * (e - x), u * total, e - x
    t = (u * total).long().clamp(max=total - 1)
    return scheduler.add_noise(x, e, t), t, e if objective == "epsilon" else scheduler.get_velocity(x, e, t)


def _new_dit(channels: int, side: int, patch: int, n_classes: int, width: int, depth: int, seed: int) -> Any:
    """A DiT whose blocks start as the identity and whose output starts at zero, as in its paper (diffusers leaves this
    to whoever trains).
    """
    diffusers = need("diffusers", "the diffusion model that is fitted")

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = diffusers.DiTTransformer2DModel(
            num_attention_heads=width // HEAD_SIZE,
            attention_head_dim=HEAD_SIZE,
            in_channels=channels,
            out_channels=channels,
            num_layers=depth,
            sample_size=side,
            patch_size=patch,
            num_embeds_ada_norm=n_classes,
        )
    for module in (*(block.norm1.linear for block in model.transformer_blocks), model.proj_out_1, model.proj_out_2):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    return model


def _times(count: int, noise: torch.Generator) -> Tensor:
    """Times spread evenly over [0, 1] with one random shift, in random order: less noise in the loss than independent
    ones.
    """
    times = (torch.arange(count) + torch.rand(1, generator=noise)) / count
    return times[torch.randperm(count, generator=noise)]
