"""Points are brought back to images: diffused, decoded, or the nearest real ones.

The points are worked through in class order, in fixed batches. A finished batch lies in the run's work folder until the
last is done, so that a killed run goes on where it stopped; each image has its own random stream, so that the result is
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ddoq.data.image_data import ImageData, open_data
from ddoq.machine.memory import BatchSize, halved
from ddoq.machine.streams import seed_sequence, torch_seed
from ddoq.models.codecs.codec import Codec
from ddoq.models.diffusion.model import Diffusion, check_sampling
from ddoq.models.fingerprint import fingerprint
from ddoq.stages.batches import Images, make_batches, remove_batches, resized
from ddoq.stages.nearest import nearest_images
from ddoq.stages.reencode import reencode, write_reencoded
from ddoq.stages.results import Counts, Style, result_folder, result_stage, write_result
from ddoq.storage.points import Points
from ddoq.storage.run import Run
from ddoq.storage.values import digest

Synthesis = Literal["diffuse", "decode", "nearest"]


@dataclass(frozen=True)
class Sampling:
    """How a diffusion model samples: `strength` is the share of the noise schedule that is run through (None: the
    model's default), `steps` the timesteps of the whole schedule, `guidance` the scale of classifier-free guidance
    (1: none).
    """

    strength: float | None = None
    steps: int = 25
    guidance: float = 2.0


@dataclass(frozen=True)
class ImageModels:
    """The codec that the points are latents of, the diffusion model of "diffuse" and its sampling, and where torch
    computes.
    """

    codec: Codec
    diffusion: Diffusion | None = None
    sampling: Sampling = Sampling()
    device: torch.device | str = "cpu"


def synthesize(
    run: Run,
    data: ImageData,
    models: ImageModels,
    synthesis: Synthesis,
    style: Style,
    *,
    control: bool = False,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = True,
) -> None:
    """Make the images of a run's points and write them with their weights; skipped where done, resumed where begun.

    The images are encoded again and the data counted in their own cells (column `reencoded`); their latents and these
    counts go to a file beside the folder, such as images.safetensors.

    Parameters
    ----------
    run, data
        With the stages encode and quantize done, from these data by the codec of `models`.
    synthesis
        "diffuse": each point noised to a time and denoised under its class, then decoded; "decode": decoded as it is;
        "nearest": distinct real images, matched to the points of their class with the least sum of squared distances
        between latents; their indices in the data are written as `source_index`.
    style
        How the images are written.
    control
        Whether they are a control, or the run's main images.
    seed
        Of the noise: each image has its own stream, by class and position.
    batch_size
        Images at a time. The result depends on it in its last bits. Halved where memory runs out, which is warned of
        and recorded.

    Raises
    ------
    ValueError
        Bad arguments, or results of codec or diffusion that have wrong shapes or are not finite, with the class and
        position.
    """
    name = synthesis if control else None
    models, inputs, info = _planned(run, data, models, synthesis, style, seed, batch_size)
    work = run.path / "work" / result_folder(run, name).name
    with run.stage(result_stage(name), inputs) as stage:
        if not stage.done:
            points = run.points()
            make, columns = _maker(run, data, models, synthesis, style, points, seed)
            key, limit = digest(inputs), BatchSize(batch_size)
            images = make_batches(make, len(points.classes), batch_size, work, key, synthesis, progress)
            sized = images.at_size(data.image_size)
            again = reencode(run, models.codec, sized, points.offsets, seed=seed, limit=limit, device=models.device)
            latents_file = result_folder(run, name).with_suffix(".safetensors")
            latents_file.parent.mkdir(exist_ok=True)
            write_reencoded(latents_file, again)
            info |= {"w2": float(np.sqrt(again.distortion).mean())} | halved([images.facts, limit.facts])
            write_result(
                run,
                stage,
                name,
                images,
                points.classes,
                Counts(points.counts, again.counts),
                style,
                columns=columns,
                outputs=[latents_file],
                info=info,
            )
    remove_batches(work)


def _maker(
    run: Run, data: ImageData, models: ImageModels, synthesis: str, style: Style, points: Points, seed: int
) -> tuple[Callable[[slice], Images], dict[str, Any]]:
    """The function that makes the images of some points, and further columns of metadata.jsonl."""
    if synthesis == "nearest":
        sources = nearest_images(run, points)
        real = open_data(data, image_size=style.output_size)

        def take(batch: slice) -> Images:
            return np.ascontiguousarray(real.images(sources[batch]))

        return take, {"source_index": sources.tolist()}

    def make(batch: slice) -> Images:
        part = _Part(points, batch, run.class_names)
        latents = part.latents(models.device)
        if synthesis == "diffuse":
            latents = _diffused(models, latents, part, seed)
        return resized(_pixels(models.codec.decode(latents), data, part), style.output_size)

    return make, {}


def _planned(
    run: Run, data: ImageData, models: ImageModels, synthesis: str, style: Style, seed: int, batch_size: int
) -> tuple[ImageModels, dict[str, Any], dict[str, Any]]:
    """The models with the strength that is used, all that decides the result, and facts for run.json."""
    inputs: dict[str, Any] = {
        "points": run.output("quantize"),
        "synthesis": synthesis,
        "weighting": [style.weighting, style.class_prior],
        "batch_size": batch_size,
        "data": [run.output("encode"), data.fingerprint, data.image_size, data.channels],
        "codec": fingerprint(models.codec),
        "output_size": style.output_size,
    }
    info: dict[str, Any] = {"synthesis": synthesis, "batch_size": batch_size}
    if synthesis == "diffuse":
        if models.diffusion is None:
            raise ValueError("synthesis 'diffuse' needs a diffusion model")
        sampling, keep = _settled(models.diffusion, models.sampling)
        models = replace(models, sampling=sampling)
        facts = asdict(sampling) | {"keep": keep}
        inputs["diffusion"] = [fingerprint(models.diffusion), seed, facts]
        info |= facts | getattr(models.diffusion, "facts", {})
    return models, inputs, info


def _settled(diffusion: Any, sampling: Sampling) -> tuple[Sampling, float | None]:
    """The sampling that is used, and the share of the point that its strength keeps, where the model can tell."""
    check_sampling(sampling.strength, sampling.steps, sampling.guidance)
    strength = sampling.strength
    if strength is None and hasattr(diffusion, "default_strength"):
        strength = diffusion.default_strength(sampling.steps)
    keep = None
    if strength is not None and hasattr(diffusion, "keep"):
        keep = diffusion.keep(strength, sampling.steps)
    return replace(sampling, strength=strength), keep


@dataclass(frozen=True)
class _Part:
    """Some of the points, with the names of the classes."""

    points: Points
    rows: slice
    names: Sequence[str]

    @property
    def classes(self) -> Tensor:
        return torch.from_numpy(self.points.classes[self.rows])

    @property
    def positions(self) -> list[tuple[int, int]]:
        """Class and position within it of each point."""
        classes, positions = self.points.classes[self.rows], self.points.positions[self.rows]
        return list(zip(classes.tolist(), positions.tolist(), strict=True))

    def latents(self, device: torch.device | str) -> Tensor:
        return torch.from_numpy(self.points.points[self.rows]).to(device)

    def check_finite(self, values: Tensor, what: str) -> None:
        bad = (~values.isfinite().flatten(1).all(1)).nonzero()
        if len(bad):
            c, i = self.positions[int(bad[0])]
            raise ValueError(f"{what} returned NaN or infinity for point {i} of class {self.names[c]!r}")


def _diffused(models: ImageModels, latents: Tensor, part: _Part, seed: int) -> Tensor:
    diffusion, sampling = models.diffusion, models.sampling
    assert diffusion is not None
    streams = [seed_sequence(seed, "synthesize", c, i) for c, i in part.positions]
    sampled = diffusion.sample(
        latents,
        part.classes,
        [torch.Generator().manual_seed(torch_seed(stream)) for stream in streams],
        strength=sampling.strength,
        steps=sampling.steps,
        guidance=sampling.guidance,
    )
    what = f"{type(diffusion).__qualname__}.sample"
    if sampled.shape != latents.shape:
        raise ValueError(f"{what} returned shape {tuple(sampled.shape)} for points of shape {tuple(latents.shape)}")
    part.check_finite(sampled, what)
    return sampled


def _pixels(images: Tensor, data: ImageData, part: _Part) -> Images:
    """Decoded images in [0, 1] as uint8, checked against the data's shape."""
    expected = (len(part.positions), data.channels, data.image_size, data.image_size)
    if tuple(images.shape) != expected:
        raise ValueError(
            f"the codec decodes to images {tuple(images.shape)}, the data's are {expected}: "
            "give an image_size that it can keep (often a multiple of 8), and a codec for as many channels"
        )
    part.check_finite(images, "the codec's decode")
    return (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
