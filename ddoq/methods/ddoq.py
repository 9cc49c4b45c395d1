"""Distils by optimal quantisation: encode, quantise each class, bring the points back to images.

Source: Tan and Slade, Dataset Distillation as Optimal Quantisation, arXiv 2501.07681. The stages encode, quantize and
synthesize do the work; each is skipped where the run folder has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ddoq.machine.arguments import positive
from ddoq.machine.device import Precision
from ddoq.methods.inputs import Models, check_distinct, open_models
from ddoq.methods.task import Method, Task
from ddoq.models.codecs.autoencoder import Posterior
from ddoq.models.codecs.codec import Codec, open_codec
from ddoq.models.diffusion.model import Diffusion, check_sampling, open_diffusion
from ddoq.models.fingerprint import fingerprint
from ddoq.models.fitting.autoencoder import fit_codec
from ddoq.models.fitting.dit import fit_diffusion
from ddoq.models.fitting.loop import Journal
from ddoq.models.parts import as_dtype
from ddoq.quantization.quantize import quantize_classes
from ddoq.stages.encode import encode
from ddoq.stages.fit_model import fitted
from ddoq.stages.latents import open_reusable, read_all_latents
from ddoq.stages.quantize import quantize_run
from ddoq.stages.synthesize import ImageModels, Sampling, Synthesis, synthesize
from ddoq.storage.manifest import MANIFEST
from ddoq.storage.run import Run

Quantizer = Literal["lloyd", "clvq", "minibatch"]
SYNTHESES = ("diffuse", "decode", "nearest")
SAMPLING = ("strength", "steps", "guidance")  # the options that diffusing alone uses
POINTS = ("init", "n_init", "refine", "max_iter")  # those of the quantiser, beside its method
SMALLER = "give a smaller image_size, or a codec and a diffusion model that ddoq.fit has fitted with accumulate"
BATCH_PIXELS = 2**22  # of a batch by default: 64 images of 256 x 256, 16 of 512 x 512


@dataclass(frozen=True)
class DDOQ:
    """The options of our own method: models, the quantiser, and the way from a point to an image.

    Parameters
    ----------
    codec
        "auto": the autoencoder of the pipeline that is given as `diffusion`, otherwise as "fit"; "fit": a small
        autoencoder trained on the data; "identity": pixels are the latents; a local folder or hub id of a diffusers
        AutoencoderKL or AutoencoderTiny, or of a pipeline that has one, such an object, or any object with
        `encode(images)` and `decode(latents)` (float32 images (b, c, h, w) in [0, 1]).
    diffusion
        "auto", "fit": a small class-conditional DiT trained on the latents, only when a synthesis needs one; a local
        folder or hub id of a diffusers pipeline, or such an object: Stable Diffusion 1.x, 2.x or XL, which are given
        prompts, or DiT, whose labels are matched by name; a folder written by such a fit; or any object with the
        `sample` method of `ddoq.models.diffusion.model.Diffusion`. A hub is contacted only for an id given here or as
        `codec`, or one that is a method's default.
    synthesis
        How a point becomes an image. "diffuse": noised to time t and denoised under its class; "decode": decoded as
        it is (a blurred mean); "nearest": the nearest distinct real image (a strong, cheap control; it publishes
        real data).
    controls
        Further syntheses of the same points, written to `controls/<name>/` for comparison. Adding one later only
        adds it.
    strength
        Share of the noise schedule that "diffuse" runs through: 0 keeps the point, 1 ignores it. None: the one whose
        share kept of the point (sqrt(alpha_bar), or 1 - sigma for flows) is nearest to 0.29 among the times of `steps`
        steps; D4M's strength 0.7 keeps 0.29 under Stable Diffusion's schedule of 1,000 steps. run.json has both.
    steps
        Denoising steps of the whole schedule, of which `strength * steps` are run; docs/results.md measures 25. Like
        strength and guidance refused where nothing is diffused.
    guidance
        Scale of classifier-free guidance, 1 is none; docs/results.md measures 2.
    prompt
        The text that Stable Diffusion is told an image shows, with {} for the class's name; None: "a photo of a {}". A
        WordNet identifier of ImageNet's (n02099601) is spoken as its first synonym (golden retriever).
    negative_prompt
        The text that guidance leads Stable Diffusion away from; None: the model's own, mostly the empty prompt.
    posterior
        The latent of an image: the "mean" of its posterior, or a "sample" of it, the same for any batches.
    quantizer
        Method of `ddoq.quantize`: "lloyd", "clvq" or "minibatch"; init, n_init, refine and max_iter are of "lloyd"
        alone.
    init
        First points of the quantiser: "k-means++" (greedy, as scikit-learn's) or "random" samples.
    n_init
        Starts per class; the one with the least distortion is kept. "auto": as `ddoq.quantize`.
    refine
        Single-point (Hartigan) moves after Lloyd's iterations: "auto", where a class has 15 images per point or more
        (with fewer they overfit); "hartigan", always; "none", never.
    max_iter
        Lloyd iterations at most, per start; 300 as in scikit-learn's KMeans.
    codec_steps
        Training steps of the codec that is fitted; None: chosen from the data's size.
    diffusion_steps
        Training steps of the diffusion model that is fitted; None: chosen from the data's size.
    batch_size
        Images at a time in codec and diffusion model; halved where memory runs out. None: as many as have 4 million
        pixels, at most 64.
    latents
        Another run folder of the same data, codec and batch_size, whose latents are taken over, to the same result,
        where this folder has none. A codec that was fitted there is given with it: codec="OTHER/codec".
    precision
        Of diffusers models: "float32", "bfloat16" or "float16". "auto": of objects their own, of fitted models float32,
        of others bfloat16 on a GPU that has it and float32 elsewhere. Objects that are given are put on `device` and
        in this precision themselves, no copy of them: give a folder where a pipeline is to stay as it is.
    """

    codec: Any = "auto"
    diffusion: Any = "auto"
    synthesis: Synthesis = "diffuse"
    controls: tuple[Synthesis, ...] = ()
    strength: float | None = None
    steps: int = 25
    guidance: float = 2.0
    prompt: str | None = None
    negative_prompt: str | None = None
    posterior: Posterior = "mean"
    quantizer: Quantizer = "lloyd"
    init: Literal["k-means++", "random"] = "k-means++"
    n_init: int | Literal["auto"] = "auto"
    refine: Literal["auto", "hartigan", "none"] = "auto"
    max_iter: int = 300
    codec_steps: int | None = None
    diffusion_steps: int | None = None
    batch_size: int | None = None
    latents: str | PathLike[str] | None = None
    precision: Precision = "auto"


def make_images(task: Task, options: DDOQ) -> None:
    """Distil by quantisation: the run's main images, and those of the controls."""
    syntheses = _syntheses(options)
    _check(options, "diffuse" in syntheses, task.n_threads)
    models = open_models(task, options, diffuses="diffuse" in syntheses)
    if (options.prompt, options.negative_prompt) != _default_prompts(options) and not models.prompted:
        raise ValueError(
            "prompt and negative_prompt are for Stable Diffusion: give its pipeline, folder or id as diffusion"
        )
    task = replace(task, data=models.data)
    check_distinct(task.data, task.ipc)
    batch_size = options.batch_size or max(1, min(64, BATCH_PIXELS // task.data.image_size**2))
    options = replace(options, batch_size=batch_size)
    record = _record(options, models)
    if options.latents is not None and not (task.out / MANIFEST).exists():
        # so that a mistake does not claim the folder, or show after a codec's training
        open_reusable(options.latents, task.config(record))
    with task.run(record) as run:
        _run_stages(run, task, options, models, syntheses)


def _run_stages(run: Run, task: Task, options: DDOQ, models: Models, syntheses: Sequence[Synthesis]) -> None:
    """Encode, quantise and bring back to images, each where it is not done."""
    assert options.batch_size is not None
    codec = models.codec or _fitted_codec(run, task, options)
    encode(
        run,
        task.data,
        codec,
        device=task.device,
        seed=task.seed,
        batch_size=options.batch_size,
        reuse=options.latents,
        progress=task.progress,
    )
    quantize_run(run, _points(options), task.ipc, seed=task.seed, n_threads=task.n_threads, progress=task.progress)
    diffusion = models.diffusion
    if "diffuse" in syntheses and diffusion is None:
        diffusion = _fitted_diffusion(run, task, options)
    sampling = Sampling(options.strength, options.steps, options.guidance)
    for synthesis in syntheses:
        synthesize(
            run,
            task.data,
            ImageModels(codec, diffusion, sampling, task.device),
            synthesis,
            task.style,
            control=synthesis != options.synthesis,
            seed=task.seed,
            batch_size=options.batch_size,
            progress=task.progress,
        )


def _fitted_codec(run: Run, task: Task, options: DDOQ) -> Codec:
    data, device = task.data, task.device
    inputs = {"data": data.fingerprint, "size": data.image_size, "steps": options.codec_steps, "seed": task.seed}

    def train(folder: Path, journal: Journal) -> dict[str, Any]:
        return fit_codec(
            data,
            folder,
            journal=journal,
            seed=task.seed,
            steps=options.codec_steps,
            device=device,
            progress=task.progress,
        )

    folder = fitted(run, "codec", inputs, train, run.path / "codec", smaller=SMALLER)
    return open_codec(folder, device=device, posterior=options.posterior, precision=_own_precision(options))


def _fitted_diffusion(run: Run, task: Task, options: DDOQ) -> Diffusion:
    names, device = task.data.class_names, task.device
    inputs = {"latents": run.output("encode"), "steps": options.diffusion_steps, "seed": task.seed}

    def train(folder: Path, journal: Journal) -> dict[str, Any]:
        latents, labels = read_all_latents(run)
        return fit_diffusion(
            latents,
            labels,
            len(names),
            folder,
            journal=journal,
            seed=task.seed,
            class_names=names,
            steps=options.diffusion_steps,
            device=device,
            progress=task.progress,
        )

    folder = fitted(run, "diffusion", inputs, train, run.path / "diffusion", smaller=SMALLER)
    return open_diffusion(folder, names, device, precision=_own_precision(options))


def _own_precision(options: DDOQ) -> Precision:
    """The precision of models that are fitted to the data."""
    return "float32" if options.precision == "auto" else options.precision


def _record(options: DDOQ, models: Models) -> dict[str, Any]:
    """The options as run.json has them.

    Controls may be added to a run later, and latents of another run change nothing: both are left out, as are the
    diffusion model and its sampling where controls alone use them.
    """
    main = models.diffusion if options.synthesis == "diffuse" else None
    model_hash = "for controls alone" if main is None else fingerprint(main)
    sampling = SAMPLING if options.synthesis == "diffuse" else ()
    plain = (*sampling, "prompt", "negative_prompt", "posterior", "quantizer", *POINTS, "batch_size")
    models_used = {
        "codec": {"fit": options.codec_steps} if models.codec is None else {"given": fingerprint(models.codec)},
        "diffusion": {"given": model_hash} if models.diffusion_given else {"fit": options.diffusion_steps},
        "precision": getattr(main, "facts", {}).get("precision", options.precision),  # "auto" depends on the machine
    }
    return models_used | {name: getattr(options, name) for name in ("synthesis", *plain)}


def _points(options: DDOQ) -> dict[str, Any]:
    """The options of `ddoq.quantize_classes`."""
    return {"method": options.quantizer} | {name: getattr(options, name) for name in POINTS}


def _syntheses(options: DDOQ) -> list[Synthesis]:
    """The main synthesis, then the controls, each once."""
    if isinstance(options.controls, str):
        example = f"({options.controls!r},)"
        raise TypeError(f"controls must be a sequence of names, such as {example}, not a string")
    names = list(dict.fromkeys([options.synthesis, *options.controls]))
    for name in names:
        if name not in SYNTHESES:
            raise ValueError(f"synthesis {name!r} is not known: use 'diffuse', 'decode' or 'nearest'")
    return names


def _check(options: DDOQ, diffuses: bool, n_threads: int | None) -> None:
    """Bad options are refused before work starts: by the functions that will use them, on one sample."""
    quantize_classes(np.zeros((1, 1), np.float32), [0], 1, **_points(options), random_state=0, n_threads=n_threads)
    check_sampling(options.strength, options.steps, options.guidance)
    if options.precision != "auto":
        as_dtype(options.precision)
    for name in ("batch_size", "codec_steps", "diffusion_steps"):
        if (value := getattr(options, name)) is not None:
            positive(name, value)
    defaults = type(options)()
    unused = [name for name in SAMPLING if getattr(options, name) != getattr(defaults, name)]
    if unused and not diffuses:
        raise ValueError(
            f"{', '.join(unused)}: of synthesis='diffuse' alone, and nothing is diffused here; leave {unused[0]} out, "
            "or give controls=('diffuse',) or synthesis='diffuse'"
        )


def _default_prompts(options: DDOQ) -> tuple[str | None, str | None]:
    defaults = type(options)()
    return defaults.prompt, defaults.negative_prompt


METHOD = Method("ddoq", DDOQ, make_images)
