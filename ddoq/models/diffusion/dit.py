"""Makes a class-conditional diffusion model of diffusers' DiTTransformer2DModel and a scheduler.

A folder holds `transformer` and `scheduler` in diffusers' own format, and beside them, where ddoq fitted the model,
ddoq.json: the class names in order, and mean and standard deviation per channel of the latents, which the model sees
standardised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ddoq.data.class_names import label_names
from ddoq.data.classes import match_labels
from ddoq.machine.device import Precision
from ddoq.machine.extras import need
from ddoq.models.diffusion.partial import denoise
from ddoq.models.diffusion.scheduled import Scheduled, load_scheduler
from ddoq.models.parts import Parts, settle_module

FACTS = "ddoq.json"


class DiTDiffusion(Scheduled):
    """A DiT as a `Diffusion`: latents (b, channels, side, side), classes as label indices, the label after the last
    meaning none.

    Parameters
    ----------
    transformer
        DiTTransformer2DModel, put on `device` in evaluation mode; the second half of its channels, if it has twice as
        many as the latents (learned variance), is not used.
    scheduler
        Any diffusers scheduler with `add_noise` or `scale_noise`.
    class_names
        Of the data set, in order.
    names
        The model's labels and their names, synonyms separated by commas, among which the classes are looked up. Without
        them a model of 1,000 labels has ImageNet's, and another must have as many labels as the data set has classes.
    mean, std
        Per channel, of the latents; the model sees (latents - mean) / std.
    dtype
        To compute in; None: the model's own.

    Raises
    ------
    ValueError
        A class that the model does not know, or another number of classes.
    """

    def __init__(
        self,
        transformer: Any,
        scheduler: Any,
        class_names: Sequence[str],
        *,
        names: Mapping[int, str] | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        location: str = "the model",
    ) -> None:
        super().__init__(scheduler)
        self.device = torch.device(device)
        self.transformer = settle_module(transformer, self.device, dtype)
        self.null = int(transformer.config["num_embeds_ada_norm"])
        self.latent_side = int(transformer.config["sample_size"])
        names = label_names(names, self.null)
        if names is None and len(class_names) != self.null:
            raise ValueError(
                f"the diffusion model has {self.null} classes and no names for them, the data have {len(class_names)}"
            )
        labels = list(range(self.null)) if names is None else match_labels(class_names, names, location)
        self.labels = torch.tensor(labels, device=self.device)
        self.mean = torch.tensor(mean, dtype=torch.float32, device=self.device).reshape(1, -1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32, device=self.device).reshape(1, -1, 1, 1)

    @classmethod
    def of_parts(
        cls,
        parts: Parts,
        class_names: Sequence[str],
        device: torch.device | str = "cpu",
        *,
        precision: Precision = "auto",
    ) -> DiTDiffusion:
        """Open a DiT pipeline, or what `fit_diffusion` wrote."""
        scheduler = load_scheduler(parts)
        diffusers = need("diffusers", "a diffusion transformer")

        facts, whole = parts.facts(FACTS), parts.facts()
        names = dict(enumerate(facts.get("class_names") or [])) or whole.get("id2label") or {}
        dtype = parts.dtype(precision, torch.device(device))
        return cls(
            parts.load("transformer", diffusers.DiTTransformer2DModel, dtype),
            scheduler,
            class_names,
            names={int(label): name for label, name in names.items()},
            mean=facts.get("latent_mean", (0.0,)),
            std=facts.get("latent_std", (1.0,)),
            device=device,
            dtype=dtype,
            location=f"{parts.name}/model_index.json",
        )

    @cached_property
    def fingerprint(self) -> str:
        """Of weights, schedule, labels and scale."""
        from ddoq.models.fingerprint import fingerprint

        numbers = (self.labels.tolist(), self.mean.tolist(), self.std.tolist())
        return fingerprint(self.described(self.transformer, *numbers))

    @property
    def facts(self) -> dict[str, Any]:
        """What is worth recording of a synthesis with it."""
        return {
            "model": type(self.transformer).__name__,
            "labels": self.labels.tolist(),
            "scheduler": type(self.scheduler).__name__,
            "precision": str(self.transformer.dtype).removeprefix("torch."),
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
        """Noise points (b, channels, side, side) and denoise them under classes (b,); see `Diffusion.sample`."""
        config = self.transformer.config
        expected = (config["in_channels"], config["sample_size"], config["sample_size"])
        if tuple(points.shape[1:]) != expected:
            raise ValueError(
                f"this diffusion model takes latents of shape {expected}, the codec gives {tuple(points.shape[1:])}"
            )
        strength = self.default_strength(steps) if strength is None else strength
        labels = self.labels[classes.to(self.device)]
        free = torch.full_like(labels, self.null)

        def predict(x: Tensor, t: Tensor, conditional: bool) -> Tensor:
            classes_of_call = labels if conditional else free
            output = self.transformer(
                x.to(self.transformer.dtype), timestep=t.expand(len(x)), class_labels=classes_of_call
            )
            prediction: Tensor = output.sample[:, : x.shape[1]].float()
            return prediction

        if strength == 0:
            return points.clone()
        x = (points.to(self.device).float() - self.mean) / self.std
        x = denoise(self.scheduler, predict, x, generators, strength=strength, steps=steps, guidance=guidance)
        return x * self.std + self.mean
