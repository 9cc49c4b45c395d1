"""Defines what a diffusion model is, and opens one: a noised point, denoised under its class, becomes a latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ddoq.machine.device import Precision
from ddoq.models.diffusion.partial import check_sampling
from ddoq.models.parts import as_dtype, open_parts

__all__ = ["Diffusion", "check_sampling", "open_diffusion"]


@runtime_checkable
class Diffusion(Protocol):
    """What ddoq asks of a diffusion model.

    `classes` are indices into the class names that it was opened with; how they become labels or prompts is its own
    affair. It may also have `default_strength(steps) -> float`, used and recorded where the user gives no strength,
    and `keep(strength, steps) -> float`, the share of the point that a strength keeps (sqrt(alpha_bar) at the start),
    which is recorded, as is what a dictionary `facts` says of it; and `latent_side`, the side of the latents that it
    was made for.
    """

    def sample(
        self,
        points: Tensor,
        classes: Tensor,
        generators: Sequence[torch.Generator],
        *,
        strength: float | None,
        steps: int,
        guidance: float,
    ) -> Tensor:
        """Noise points (b, *latent_shape) and denoise them under classes (b,) int64; image i draws from generators[i]
        alone.

        strength 0 returns the points, 1 ignores them; guidance 1 is none.
        """
        ...


def open_diffusion(
    diffusion: Any,
    class_names: Sequence[str],
    device: torch.device | str = "cpu",
    *,
    prompt: str | None = None,
    negative_prompt: str | None = None,
    precision: Precision = "auto",
) -> Diffusion:
    """Make a diffusion model for a data set's classes of a folder, a hub id or an object.

    Parameters
    ----------
    diffusion
        A local folder or hub id with a diffusers pipeline, or such a pipeline, known by its parts: Stable Diffusion
        1.x, 2.x and XL (`unet`, `scheduler`, text encoders and tokenizers), DiT (`transformer`, `scheduler`); what
        `fit_diffusion` wrote; a pair (transformer, scheduler); or any object with `sample`, returned as it is.
    class_names
        Of the data set, in order. A DiT's labels are matched by name where it has names (see `match_labels`), otherwise
        the numbers of classes must be equal.
    device
        Where a diffusers model computes.
    prompt, negative_prompt
        Of Stable Diffusion: the template, with {} for the class's name (default "a photo of a {}"), and what guidance
        leads away from.
    precision
        Of a diffusers model. "auto": of an object its own; else bfloat16 on a GPU that has it, float32 on others.

    Raises
    ------
    FileNotFoundError
        The folder, or the file in it that says what it holds, is absent; the hub does not give the id.
    TypeError, ValueError
        Not a diffusion model that ddoq knows, or its classes are not those of the data.
    """
    from ddoq.models.diffusion.dit import DiTDiffusion

    if callable(getattr(diffusion, "sample", None)):
        model: Diffusion = diffusion
        return model
    if isinstance(diffusion, tuple) and len(diffusion) == 2:
        dtype = None if precision == "auto" else as_dtype(precision)
        return DiTDiffusion(*diffusion, class_names, device=device, dtype=dtype)
    parts = open_parts(diffusion, "diffusion")
    if parts is None:
        raise TypeError(
            "diffusion must be 'fit', a folder, a hub id, a diffusers pipeline, a pair (transformer, scheduler) or an "
            f"object with sample; got {type(diffusion).__name__}"
        )
    unet, transformer = parts.kind("unet"), parts.kind("transformer")
    if unet == "UNet2DConditionModel":
        from ddoq.models.diffusion.stable import PROMPT, StableDiffusion

        return StableDiffusion.of_parts(
            parts,
            class_names,
            device,
            prompt=PROMPT if prompt is None else prompt,
            negative_prompt=negative_prompt,
            precision=precision,
        )
    # facebook's DiT is of the class that diffusers once had for all transformers
    if transformer == "DiTTransformer2DModel" or (
        transformer == "Transformer2DModel" and parts.config("transformer").get("norm_type") == "ada_norm_zero"
    ):
        return DiTDiffusion.of_parts(parts, class_names, device, precision=precision)
    if unet is None and transformer is None:
        raise FileNotFoundError(
            f"no unet/config.json and no transformer/config.json in {parts.name}: a diffusion model is what a "
            "diffusers pipeline's save_pretrained writes"
        )
    raise ValueError(
        f"{parts.name} is a pipeline of a {unet or transformer}: ddoq knows Stable Diffusion 1.x, 2.x and XL "
        "(UNet2DConditionModel) and DiT (DiTTransformer2DModel); give an object with sample for another"
    )
