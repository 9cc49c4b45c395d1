"""From points back to images: diffused, decoded, or the nearest real ones.

Works through fixed batches of the points in class order. A finished batch lies in the run's work folder until the last
is done, so that a killed run goes on where it stopped; each image has its own random stream, so that the result is the
same.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch import Tensor

from ddoq.data.distilled import write_images
from ddoq.data.image_data import ImageData, open_data
from ddoq.data.images import to_pixels
from ddoq.data.weights import ClassPrior, Weighting, class_weights
from ddoq.machine.memory import BatchSize
from ddoq.machine.streams import seed_sequence, torch_seed
from ddoq.models.codecs.codec import Codec
from ddoq.models.diffusion.model import Diffusion, check_sampling
from ddoq.models.fingerprint import fingerprint
from ddoq.stages.batches import Images, in_batches, remove_batches
from ddoq.stages.nearest import nearest_images
from ddoq.stages.points import Points, read_points
from ddoq.stages.reencode import reencode
from ddoq.storage.files import write_atomic
from ddoq.storage.run import Run
from ddoq.storage.values import digest


def synthesize(
    run: Run,
    data: ImageData,
    codec: Codec,
    diffusion: Diffusion | None,
    *,
    synthesis: Literal["diffuse", "decode", "nearest"],
    folder: Path,
    weighting: Weighting,
    class_prior: ClassPrior,
    seed: int,
    strength: float | None = None,
    steps: int = 25,
    guidance: float = 2.0,
    output_size: int | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: bool = True,
    made_by: str = "ddoq",
    note: str = "",
) -> None:
    """Make the images of a run's points and write them with their weights; skipped where done, resumed where begun.

    Stage "synthesize" for the run's main images, "synthesize:<name of the folder>" for controls. The images are encoded
    again and the data counted in their own cells (column `reencoded`); their latents and these counts go to a file
    beside the folder, such as images.safetensors.

    Parameters
    ----------
    run, data, codec
        With the stages encode and quantize done, from these data by this codec.
    diffusion
        Needed by "diffuse".
    synthesis
        "diffuse": each point noised to a time and denoised under its class, then decoded; "decode": decoded as it is;
        "nearest": distinct real images, matched to the points of their class with the least sum of squared distances
        between latents; their indices in the data are written as `source_index`.
    folder
        run.path / "images", or run.path / "controls" / name.
    weighting, class_prior
        The weights that are written (see `class_weights`).
    seed
        Of the noise: each image has its own stream, by class and position.
    strength, steps, guidance
        Of the diffusion: share of the schedule (None: the model's default), timesteps of the whole schedule, guidance
        scale (1: none).
    output_size
        Side of the images that are written, which are resized to it (bicubic, antialiased); default: the data's.
    batch_size
        Images at a time. The result depends on it in its last bits. Halved where memory runs out, which is warned of
        and recorded.
    made_by, note
        The maker of the images, for the dataset card; a sentence on it that stands wherever it shows, for run.json.

    Raises
    ------
    ValueError
        Bad arguments, or results of codec or diffusion that have wrong shapes or are not finite, with the class and
        position.
    """
    stage = "synthesize" if folder == run.path / "images" else f"synthesize:{folder.name}"
    inputs: dict[str, Any] = {
        "points": run.output("quantize"),
        "synthesis": synthesis,
        "weighting": [weighting, class_prior],
        "batch_size": batch_size,
        "data": [run.output("encode"), data.fingerprint, data.image_size, data.channels],
        "codec": fingerprint(codec),
        "output_size": output_size,
    }
    info: dict[str, Any] = {"synthesis": synthesis, "batch_size": batch_size, **({"note": note} if note else {})}
    if synthesis == "diffuse":
        if diffusion is None:
            raise ValueError("synthesis 'diffuse' needs a diffusion model")
        sampling = _sampling(diffusion, strength, steps, guidance)
        inputs["diffusion"] = [fingerprint(diffusion), seed, sampling]
        info.update(sampling, **getattr(diffusion, "facts", {}))
    work = run.path / "work" / folder.name
    if run.done(stage, inputs):
        remove_batches(work)
        return
    start = time.monotonic()
    points = read_points(run.path / "quantization.safetensors")
    extra: list[dict[str, Any]] = [{} for _ in points.classes]
    if synthesis == "nearest":
        sources = nearest_images(run, points)
        extra = [{"source_index": int(source)} for source in sources]
        real = open_data(data, image_size=output_size)

        def make(batch: slice) -> Images:
            return np.ascontiguousarray(real.images(sources[batch]))

    else:
        names = run.manifest["class_names"]

        def make(batch: slice) -> Images:
            latents = torch.from_numpy(points.points[batch]).to(device)
            if synthesis == "diffuse":
                assert diffusion is not None
                latents = _diffuse(diffusion, latents, points, batch, seed, sampling, names)
            return _resized(_pixels(codec.decode(latents), data, points, batch, names), output_size)

    limit = BatchSize(batch_size)
    images = in_batches(make, len(points.classes), limit, work, digest(inputs), synthesis, progress)
    again = reencode(
        run, codec, _resized(images, data.image_size), points.offsets, seed=seed, limit=limit, device=device
    )
    counts = again.counts if weighting == "reencoded" else points.counts
    outputs = write_images(
        folder,
        images,
        points.classes,
        class_weights(counts, points.offsets, weighting, class_prior),
        points.counts,
        run.manifest["class_names"],
        [{"reencoded": int(count), **row} for count, row in zip(again.counts, extra, strict=True)],
        made_by,
    )
    latents = folder.with_suffix(".safetensors")
    write_atomic(latents, safetensors.numpy.save(again.arrays()))
    info.update(images=len(images), w2=float(np.sqrt(again.distortion).mean()), **limit.facts)
    run.record(stage, inputs, [*outputs, latents], seconds=time.monotonic() - start, info=info)
    remove_batches(work)


def _sampling(diffusion: Any, strength: float | None, steps: int, guidance: float) -> dict[str, Any]:
    """The settings that are used, with the share of the point that the strength keeps, where the model can tell."""
    check_sampling(strength, steps, guidance)
    if strength is None and hasattr(diffusion, "default_strength"):
        strength = diffusion.default_strength(steps)
    kept = diffusion.keep(strength, steps) if strength is not None and hasattr(diffusion, "keep") else None
    return {"strength": strength, "keep": kept, "steps": steps, "guidance": guidance}


def _diffuse(
    diffusion: Diffusion,
    latents: Tensor,
    points: Points,
    batch: slice,
    seed: int,
    sampling: dict[str, Any],
    names: list[str],
) -> Tensor:
    where = list(zip(points.classes[batch].tolist(), points.positions[batch].tolist(), strict=True))
    streams = [seed_sequence(seed, "synthesize", c, i) for c, i in where]
    sampled = diffusion.sample(
        latents,
        torch.from_numpy(points.classes[batch]),
        [torch.Generator().manual_seed(torch_seed(stream)) for stream in streams],
        strength=sampling["strength"],
        steps=sampling["steps"],
        guidance=sampling["guidance"],
    )
    what = f"{type(diffusion).__qualname__}.sample"
    if sampled.shape != latents.shape:
        raise ValueError(f"{what} returned shape {tuple(sampled.shape)} for points of shape {tuple(latents.shape)}")
    _check_finite(sampled, what, where, names)
    return sampled


def _pixels(images: Tensor, data: ImageData, points: Points, batch: slice, names: list[str]) -> Images:
    """Decoded images in [0, 1] as uint8, checked against the data's shape."""
    where = list(zip(points.classes[batch].tolist(), points.positions[batch].tolist(), strict=True))
    expected = (len(where), data.channels, data.image_size, data.image_size)
    if tuple(images.shape) != expected:
        raise ValueError(
            f"the codec decodes to images {tuple(images.shape)}, the data's are {expected}: "
            "give an image_size that it can keep (often a multiple of 8), and a codec for as many channels"
        )
    _check_finite(images, "the codec's decode", where, names)
    return (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def _resized(images: Images, size: int | None) -> Images:
    """Images at another side, as `ddoq.data.images` resizes those of a data set."""
    if size is None or size == images.shape[-1]:
        return images
    return np.stack([to_pixels(image.transpose(1, 2, 0), size, len(image)) for image in images])


def _check_finite(values: Tensor, what: str, where: list[tuple[int, int]], names: list[str]) -> None:
    bad = (~values.isfinite().flatten(1).all(1)).nonzero()
    if len(bad):
        c, i = where[int(bad[0])]
        raise ValueError(f"{what} returned NaN or infinity for point {i} of class {names[c]!r}")
