"""Train an autoencoder and a diffusion transformer on one's own images, in a folder that `ddoq.distill` opens.

vae/ transformer/ scheduler/     in diffusers' own format
ddoq.json                        the class names, in order
model_index.json                 of a DiTPipeline, where that can sample the model: not of a flow
samples/                         pictures made on the way, by the averaged weights
log.jsonl                        loss, images per second and peak memory on the way
run.json                         configuration, versions, times, and the sha256 of every file
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ddoq.data.image_data import ImageData, open_data
from ddoq.machine.arguments import positive
from ddoq.machine.device import TrainingPrecision, torch_device
from ddoq.machine.streams import seed_sequence
from ddoq.models.codecs.codec import open_codec
from ddoq.models.fitting.autoencoder import fit_codec
from ddoq.models.fitting.dit import Objective, fit_diffusion, new_scheduler
from ddoq.models.fitting.loop import Journal
from ddoq.models.fitting.pictures import Pictures
from ddoq.models.fitting.sizes import SIZES, SizeName, default_size, layout, training_steps
from ddoq.stages.encode import encode
from ddoq.stages.fit_model import fitted
from ddoq.stages.latents import read_all_latents
from ddoq.storage.files import write_atomic
from ddoq.storage.run import Run

FEWEST, SMALLEST = 16, 8  # images, and pixels of their side


@dataclass(frozen=True)
class CodecOptions:
    """How the autoencoder is trained (see `fit_codec`); run.json records it."""

    factor: int
    base_channels: int
    steps: int
    batch_size: int
    precision: TrainingPrecision
    seed: int


@dataclass(frozen=True)
class DiffusionOptions:
    """How the diffusion transformer is trained (see `fit_diffusion`); run.json records it."""

    width: int
    depth: int
    patch: int
    objective: Objective
    steps: int
    batch_size: int
    ema: float | None
    precision: TrainingPrecision
    seed: int


@dataclass(frozen=True)
class FitTask:
    """The images, the size of the models, both recipes, and what changes no result but its last bits.

    `accumulate` is not in the configuration: with more parts a folder may go on where memory was too small.
    """

    data: ImageData
    size: SizeName
    codec: CodecOptions
    diffusion: DiffusionOptions
    accumulate: int
    device: torch.device
    progress: bool

    @property
    def data_facts(self) -> dict[str, Any]:
        """The images, as the configuration has them."""
        return {
            "data": self.data.fingerprint,
            "image_size": self.data.image_size,
            "channels": self.data.channels,
        }

    @property
    def smaller(self) -> str:
        """What takes less memory, in words."""
        return _smaller(self.accumulate, min(self.codec.batch_size, self.diffusion.batch_size), self.size)


@dataclass(frozen=True)
class Fitted:
    """Fitted models: the folder, the class names by label, and facts of both trainings."""

    path: Path
    class_names: tuple[str, ...]
    codec: Mapping[str, Any]
    diffusion: Mapping[str, Any]

    def __str__(self) -> str:
        codec, diffusion = self.codec, self.diffusion
        return (
            f"codec: {codec['parameters']:,} parameters, {codec['steps']:,} steps, PSNR {codec['psnr']:.1f} dB\n"
            f"diffusion model: {diffusion['parameters']:,} parameters, {diffusion['steps']:,} steps, "
            f"loss {diffusion['loss']:.4f}, {len(self.class_names)} classes\n{self.path}"
        )


def fit(
    data: Any,
    out: str | PathLike[str],
    *,
    size: SizeName | None = None,
    objective: Objective = "flow",
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    codec_steps: int | None = None,
    diffusion_steps: int | None = None,
    batch_size: int | None = None,
    accumulate: int = 1,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    ema: float | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> Fitted:
    """Train a codec and a class-conditional diffusion transformer on your images.

    The folder is one that `ddoq.distill(..., diffusion=out)` opens, and its parts are diffusers' AutoencoderKL,
    DiTTransformer2DModel and scheduler. Pictures on the way lie in out/samples, loss, images per second and memory in
    out/log.jsonl. The same call on the same folder goes on where it stopped, after kill -9 too, and ends with the same
    weights; at most a minute of training is lost.

    Parameters
    ----------
    data
        A folder of class folders, an (array, labels) pair, a torch Dataset of (image, label), or a Hugging Face
        `datasets.Dataset`.
    out
        The folder: made if absent, resumed if it was made with the same configuration, refused otherwise.
    size
        "tiny" (width 128, 4 blocks, made for 2 cores and up to 64 pixels), "small" (384, 12) or "base" (768, 12), which
        want a GPU. Patches are of 2 x 2 latents. Default: "base" above 128 pixels from 100,000 images on, "small" above
        64 pixels from 10,000 images on, else "tiny".
    objective
        What the diffusion model predicts: "flow", noise - latent on the straight line between them; "epsilon", the
        noise, or "velocity", on the cosine schedule. diffusers' DiTPipeline samples the last two, with guidance_scale=1
        unless there are 1,000 classes; ddoq all three, with any guidance.
    image_size
        Side in pixels. Default: the images' own if all are equal squares, else the median shorter side (see
        `open_data`).
    class_names
        Names of the classes of an (array, labels) pair, by label.
    codec_steps
        Training steps of the codec; default: 1,200 (tiny), 20,000 (small) or 100,000 (base), at most 300 passes over
        the images, but at least 500 steps.
    diffusion_steps
        Training steps of the diffusion model; default: 4,000, 100,000 or 400,000, within the same bounds.
    batch_size
        Images per step; default: 32, 64, 64 for the codec, 64, 128, 256 for the diffusion model.
    accumulate
        Parts in which the images of a step go through the model: less memory, the same result but for rounding. A call
        on a folder that was stopped may raise it.
    precision
        Of the training: "float32", or "bfloat16" for mixed precision (the weights stay float32). "auto": bfloat16 on a
        GPU that has it.
    ema
        Decay of the averaged weights, which are those that are saved; 0 is none. Default: 0.995 up to 2,000 steps, then
        an average over a tenth of the steps, at most 0.9999.
    seed
        Of first weights, order, noise and dropped labels.
    device
        "auto" (a CUDA GPU if there is one), "cpu", "cuda", or a GPU by number such as "cuda:1".
    progress
        Show progress bars on stderr.

    Returns
    -------
    Fitted
        The folder, the class names and facts of both trainings.

    Raises
    ------
    ValueError, TypeError
        Bad arguments or data, fewer than 16 images, a class without any, a loss that is not finite.
    MemoryError
        A GPU's memory, or the machine's, is too small for a step; says which, and what to change. The steps before are
        kept.
    ddoq.RunError
        The folder belongs to another configuration or process, or a file in it is damaged.

    Examples
    --------
    >>> import ddoq, numpy as np, tempfile
    >>> images = np.random.default_rng(0).integers(0, 256, (16, 8, 8), np.uint8)
    >>> out = tempfile.mkdtemp()
    >>> model = ddoq.fit((images, ["cat", "dog"] * 8), out, codec_steps=2, diffusion_steps=2, progress=False)
    >>> model.class_names, model.codec["steps"], sorted(path.name for path in Path(out).iterdir() if path.is_dir())
    (('cat', 'dog'), 2, ['samples', 'scheduler', 'transformer', 'vae'])
    """
    on = torch_device(device)
    _check_options(size, objective, codec_steps, diffusion_steps, batch_size, accumulate, precision, ema, seed)
    source = open_data(data, image_size=image_size, class_names=class_names)
    _check_images(source)
    factor, patch = layout(source.image_size)
    name = size or default_size(source.image_size, len(source))
    widths = SIZES[name]
    codec_batch = min(batch_size or widths.codec_batch, len(source))
    diffusion_batch = min(batch_size or widths.diffusion_batch, len(source))
    if accumulate > min(codec_batch, diffusion_batch):
        raise ValueError(f"accumulate={accumulate} is more than the images of a step: lower it, or raise batch_size")
    mixed = _mixed(precision, on)
    if codec_steps is None:
        codec_steps = training_steps(widths.codec_steps, codec_batch, len(source))
    if diffusion_steps is None:
        diffusion_steps = training_steps(widths.diffusion_steps, diffusion_batch, len(source))
    codec = CodecOptions(factor, widths.base_channels, codec_steps, codec_batch, mixed, seed)
    diffusion = DiffusionOptions(
        widths.width, widths.depth, patch, objective, diffusion_steps, diffusion_batch, ema, mixed, seed
    )
    task = FitTask(source, name, codec, diffusion, accumulate, on, progress)
    config = {**task.data_facts, "size": name, "fit": {"codec": asdict(codec), "diffusion": asdict(diffusion)}}
    with Run.locked(out, config, source.class_names) as run:
        pictures = Pictures(run.path / "samples", source, seed, on)
        _fit_codec(run, task, pictures)
        _fit_diffusion(run, task, pictures)
        shutil.rmtree(run.path / "latents", ignore_errors=True)
        return Fitted(run.path, source.class_names, run.info("codec"), run.info("diffusion"))


def _fit_codec(run: Run, task: FitTask, pictures: Pictures) -> None:
    options = task.codec

    def train(folder: Path, journal: Journal) -> dict[str, Any]:
        return fit_codec(
            task.data,
            folder / "vae",
            seed=options.seed,
            factor=options.factor,
            base_channels=options.base_channels,
            steps=options.steps,
            batch_size=options.batch_size,
            accumulate=task.accumulate,
            precision=options.precision,
            journal=journal,
            device=task.device,
            progress=task.progress,
        )

    inputs, show = {**task.data_facts, **asdict(options)}, pictures.reconstructions
    fitted(run, "codec", inputs, train, run.path, smaller=task.smaller, log=run.path / "log.jsonl", show=show)


def _fit_diffusion(run: Run, task: FitTask, pictures: Pictures) -> None:
    options, names = task.diffusion, task.data.class_names
    inputs = {"codec": run.output("codec"), **asdict(options)}
    if run.done("diffusion", inputs):
        return
    codec = open_codec(run.path / "vae", device=task.device, precision="float32")
    batch_size = task.codec.batch_size
    encode(run, task.data, codec, device=task.device, seed=options.seed, batch_size=batch_size, progress=task.progress)

    def train(folder: Path, journal: Journal) -> dict[str, Any]:
        latents, labels = read_all_latents(run)
        info = fit_diffusion(
            latents,
            labels,
            len(names),
            folder,
            seed=options.seed,
            class_names=names,
            steps=options.steps,
            batch_size=options.batch_size,
            width=options.width,
            depth=options.depth,
            patch=options.patch,
            objective=options.objective,
            standardise=False,
            ema=options.ema,
            accumulate=task.accumulate,
            precision=options.precision,
            journal=journal,
            device=task.device,
            progress=task.progress,
        )
        if options.objective != "flow":
            write_atomic(folder / "model_index.json", _index(names))
        return info

    def show(step: int, model: Any) -> None:
        pictures.samples(step, model, new_scheduler(options.objective), codec)

    fitted(run, "diffusion", inputs, train, run.path, smaller=task.smaller, log=run.path / "log.jsonl", show=show)
    run.drop("encode")


def _smaller(accumulate: int, batch: int, size: SizeName) -> str:
    """What takes less memory, in words."""
    elsewhere = f"a smaller batch_size{'' if size == 'tiny' else ', size'} or image_size in another folder"
    if accumulate == batch:
        return f"give {elsewhere}"
    return f"call again with accumulate={min(2 * accumulate, batch)}, which goes on in this folder, or give {elsewhere}"


def _mixed(precision: str, device: torch.device) -> TrainingPrecision:
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bfloat16" if precision == "bfloat16" or (precision == "auto" and able) else "float32"


def _check_options(
    size: Any,
    objective: Any,
    codec_steps: Any,
    diffusion_steps: Any,
    batch_size: Any,
    accumulate: Any,
    precision: Any,
    ema: Any,
    seed: Any,
) -> None:
    """Bad options are refused before work starts."""
    for name, value, known in (
        ("size", size, (None, *SIZES)),
        ("objective", objective, ("flow", "epsilon", "velocity")),
        ("precision", precision, ("auto", "float32", "bfloat16")),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    for name, number in (
        ("codec_steps", codec_steps),
        ("diffusion_steps", diffusion_steps),
        ("batch_size", batch_size),
    ):
        if number is not None:
            positive(name, number)
    positive("accumulate", accumulate)
    if ema is not None and not (isinstance(ema, int | float) and 0 <= ema < 1):
        raise ValueError(f"ema must be at least 0 and below 1, got {ema!r}")
    seed_sequence(seed, "codec")


def _check_images(source: ImageData) -> None:
    if len(source) < FEWEST:
        raise ValueError(f"{len(source)} images are too few to fit models to: at least {FEWEST} are needed")
    if source.image_size < SMALLEST:
        raise ValueError(
            f"images of {source.image_size} pixels are too small for an autoencoder: use image_size={SMALLEST} or more"
        )
    counts = np.bincount(source.labels, minlength=len(source.class_names))
    if not counts.all():
        raise ValueError(f"class {source.class_names[int(counts.argmin())]!r} has no images: leave it out")


def _index(class_names: Sequence[str]) -> bytes:
    """model_index.json of a DiTPipeline."""
    import diffusers

    facts = {
        "_class_name": "DiTPipeline",
        "_diffusers_version": diffusers.__version__,
        "id2label": {str(label): name for label, name in enumerate(class_names)},
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    return json.dumps(facts, indent=1, ensure_ascii=False).encode()
