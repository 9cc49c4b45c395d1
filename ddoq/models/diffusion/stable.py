"""Makes a diffusion model for a data set's classes of Stable Diffusion 1.x, 2.x or XL: a prompt for each class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ddoq.machine.device import Precision
from ddoq.machine.extras import need
from ddoq.models.diffusion.partial import denoise
from ddoq.models.diffusion.prompts import prompts
from ddoq.models.diffusion.scheduled import Scheduled, load_scheduler
from ddoq.models.diffusion.texts import TextEncoders
from ddoq.models.parts import Parts, settle_module

PROMPT = "a photo of a {}"


class StableDiffusion(Scheduled):
    """A diffusers.UNet2DConditionModel under prompts as a `Diffusion`; latents (b, channels, h, w).

    Prompts are encoded once, at the first use. XL is told that images have the size of the output and are not cropped,
    which is what diffusers tells it.

    Parameters
    ----------
    unet
        diffusers.UNet2DConditionModel, put on `device` in evaluation mode.
    scheduler
        Any diffusers scheduler with `add_noise` or `scale_noise`.
    texts
        The text encoders.
    class_names
        Of the data set, in order.
    prompt, negative_prompt
        What an image shows, with {} for the class's name, and what guidance leads away from. Without a negative prompt:
        the empty one, or XL's zeros where its configuration says so (`zeros`).
    factor
        Pixels per latent, along a side.
    dtype
        To compute in; None: the model's own.
    """

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        texts: TextEncoders,
        class_names: Sequence[str],
        *,
        prompt: str = PROMPT,
        negative_prompt: str | None = None,
        zeros: bool = False,
        factor: int = 8,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(scheduler)
        self.device = torch.device(device)
        self.unet = settle_module(unet, self.device, dtype)
        self.latent_side: int | None = (
            unet.config["sample_size"] if isinstance(unet.config["sample_size"], int) else None
        )
        self.texts = texts
        self.prompts = prompts(prompt, class_names)
        self.negative_prompt = negative_prompt
        self.zeros = zeros and negative_prompt is None
        self.factor = factor
        self.tokens = [part.tolist() for part in texts.tokens([*self.prompts, negative_prompt or ""])]

    @classmethod
    def of_parts(
        cls,
        parts: Parts,
        class_names: Sequence[str],
        device: torch.device | str = "cpu",
        *,
        prompt: str = PROMPT,
        negative_prompt: str | None = None,
        precision: Precision = "auto",
    ) -> StableDiffusion:
        """Open a pipeline by its parts; ValueError for a UNet that wants to be told more than a prompt."""
        config, whole = parts.config("unet"), parts.facts()
        kind = config.get("addition_embed_type")
        unknown = {
            f"addition_embed_type {kind!r}": kind not in (None, "text_time"),
            "an aesthetic score": whole.get("requires_aesthetics_score"),
            **{f"{key} {config.get(key)!r}": config.get(key) for key in UNKNOWN},
        }
        for what, there in unknown.items():
            if there:
                raise ValueError(f"the UNet of {parts.name} wants {what}, which ddoq has not: use another model")
        scheduler = load_scheduler(parts)
        diffusers = need("diffusers", "Stable Diffusion")

        on_device = torch.device(device)
        dtype = parts.dtype(precision, on_device)
        blocks = parts.config("vae").get("block_out_channels") if parts.kind("vae") else None
        return cls(
            parts.load("unet", diffusers.UNet2DConditionModel, dtype),
            scheduler,
            TextEncoders.of_parts(parts, xl=kind == "text_time", dtype=dtype),
            class_names,
            prompt=prompt,
            negative_prompt=negative_prompt,
            zeros=kind == "text_time" and bool(whole.get("force_zeros_for_empty_prompt", True)),
            factor=2 ** (len(blocks) - 1) if blocks else 8,
            device=on_device,
            dtype=dtype,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Of all weights, schedule and prompts."""
        from ddoq.models.fingerprint import fingerprint

        return fingerprint(self.described(self.unet, self.texts.fingerprint, self.tokens, self.zeros, self.factor))

    @property
    def facts(self) -> dict[str, Any]:
        """What is worth recording of a synthesis with it."""
        return {
            "model": type(self.unet).__name__,
            "prompts": self.prompts,
            "negative_prompt": self.negative_prompt,
            "scheduler": type(self.scheduler).__name__,
            "precision": str(self.unet.dtype).removeprefix("torch."),
        }

    def sample(
        self,
        points: Tensor,
        classes: Tensor,
        generators: Sequence[torch.Generator],
        *,
        strength: float | None = None,
        steps: int = 25,
        guidance: float = 1.0,
    ) -> Tensor:
        """Noise points (b, channels, h, w) and denoise them under the prompts of classes (b,): `Diffusion.sample`."""
        channels = self.unet.config["in_channels"]
        if points.ndim != 4 or points.shape[1] != channels:
            raise ValueError(
                f"this diffusion model takes latents (b, {channels}, h, w), the codec gives {tuple(points.shape)}"
            )
        strength = self.default_strength(steps) if strength is None else strength
        if strength == 0:
            return points.clone()
        under = self._conditions(classes.cpu(), points)
        free = self._conditions(torch.full_like(classes.cpu(), -1), points) if guidance != 1 else {}

        def predict(x: Tensor, t: Tensor, conditional: bool) -> Tensor:
            prediction: Tensor = self.unet(x.to(self.unet.dtype), t, **(under if conditional else free)).sample
            return prediction.float()

        x = points.to(self.device).float()
        return denoise(self.scheduler, predict, x, generators, strength=strength, steps=steps, guidance=guidance)

    def _conditions(self, classes: Tensor, points: Tensor) -> dict[str, Any]:
        """The UNet's arguments for images of these classes; -1 is the negative prompt."""
        hidden, pooled = self._embedded
        conditions: dict[str, Any] = {"encoder_hidden_states": hidden[classes].to(self.device, self.unet.dtype)}
        if pooled is not None:
            height, width = (side * self.factor for side in points.shape[2:])
            times = torch.tensor([[height, width, 0, 0, height, width]]).expand(len(points), -1)
            conditions["added_cond_kwargs"] = {
                "text_embeds": pooled[classes].to(self.device, self.unet.dtype),
                "time_ids": times.to(self.device, self.unet.dtype),
            }
        return conditions

    @cached_property
    def _embedded(self) -> tuple[Tensor, Tensor | None]:
        """Hidden states and pooled embeddings of every class's prompt, and last of the negative one."""
        hidden, pooled = self.texts([*self.prompts, self.negative_prompt or ""], self.device)
        if self.zeros:
            for embedded in (hidden, pooled):
                if embedded is not None:
                    embedded[-1] = 0
        return hidden, pooled


# of a UNet's configuration: what is more than a prompt, or a prompt in another form
UNKNOWN = ("class_embed_type", "time_cond_proj_dim", "encoder_hid_dim_type")
