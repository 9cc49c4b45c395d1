"""The main job: strings the stages together, nothing else.

data -> encode -> quantize -> synthesize, over a run folder in which every finished stage is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ddoq.data.distilled import DistilledDataset, load
from ddoq.data.weights import Weighting, class_weights
from ddoq.machine.device import torch_device
from ddoq.machine.streams import seed_sequence
from ddoq.methods.inputs import check_ipc, open_models
from ddoq.methods.presets import Preset, labelled, settle
from ddoq.models.codecs.autoencoder import Posterior
from ddoq.models.codecs.codec import open_codec
from ddoq.models.diffusion.model import check_sampling, open_diffusion
from ddoq.models.fingerprint import fingerprint
from ddoq.models.fitting.autoencoder import fit_codec
from ddoq.models.fitting.dit import fit_diffusion
from ddoq.models.fitting.loop import Journal
from ddoq.models.fitting.steps import check_steps
from ddoq.models.parts import Precision, as_dtype
from ddoq.quantization.quantize import quantize_classes
from ddoq.stages.encode import encode
from ddoq.stages.fit_model import fitted
from ddoq.stages.latents import open_reusable, read_all_latents
from ddoq.stages.quantize import quantize_run
from ddoq.stages.synthesize import synthesize
from ddoq.storage.manifest import MANIFEST
from ddoq.storage.run import Run

if TYPE_CHECKING:
    from os import PathLike

Synthesis = Literal["diffuse", "decode", "nearest"]
SMALLER = "give a smaller image_size, or a codec and a diffusion model that ddoq.fit has fitted with accumulate"
BATCH_PIXELS = 2**22  # of a batch by default: 64 images of 256 x 256, 16 of 512 x 512


def distill(
    data: Any,
    out: str | PathLike[str],
    *,
    ipc: int = 10,
    codec: Any = "auto",
    diffusion: Any = "auto",
    preset: Preset | None = None,
    synthesis: Synthesis = "diffuse",
    controls: Sequence[Synthesis] = (),
    weighting: Weighting = "density",
    class_prior: Literal["balanced", "data"] = "balanced",
    image_size: int | None = None,
    output_size: int | None = None,
    class_names: Sequence[str] | None = None,
    strength: float | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    prompt: str | None = None,
    negative_prompt: str | None = None,
    posterior: Posterior | None = None,
    quantizer: Literal["lloyd", "clvq", "minibatch"] | None = None,
    init: Literal["k-means++", "random"] = "k-means++",
    n_init: int | Literal["auto"] = "auto",
    refine: Literal["auto", "hartigan", "none"] = "auto",
    max_iter: int = 300,
    codec_steps: int | None = None,
    diffusion_steps: int | None = None,
    batch_size: int | None = None,
    latents: str | PathLike[str] | None = None,
    precision: Precision = "auto",
    seed: int = 0,
    n_threads: int | None = None,
    device: str = "auto",
    progress: bool = True,
) -> DistilledDataset:
    """Distil a labelled image data set into `ipc` weighted images per class.

    Every image is encoded; each class's latents are quantised into `ipc` points with the masses of their Voronoi
    cells as weights; the points come back to images. The same call on the same folder resumes where it stopped and
    returns at once when all is done.

    Parameters
    ----------
    data
        A folder of class folders, an (array, labels) pair, a torch Dataset of (image, label), or a Hugging Face
        `datasets.Dataset`.
    out
        The run folder: made if absent, resumed if it was made with the same configuration, refused otherwise.
    ipc
        Images per class; at most the number of distinct images of the smallest class.
    codec
        "auto": the autoencoder of the pipeline that is given as `diffusion`, otherwise as "fit"; "fit": a small
        autoencoder trained on the data; "identity": pixels are the latents; a local folder or hub id of a diffusers
        AutoencoderKL or AutoencoderTiny, or of a pipeline that has one, such an object, or any object with
        `encode(images)` and `decode(latents)` (float32 images (b, c, h, w) in [0, 1]).
    diffusion
        "auto": the preset's, otherwise as "fit"; "fit": a small class-conditional DiT trained on the latents (only when
        a synthesis needs one); a local folder or hub id of a diffusers pipeline, or such an object: Stable Diffusion
        1.x, 2.x or XL, which are given prompts, or DiT, whose labels are matched by name; a folder written by such a
        fit; or any object with the `sample` method of `ddoq.models.diffusion.model.Diffusion`. A hub is contacted only
        for an id given here, as `codec` or by a preset.
    preset
        Other defaults. "d4m": Stable Diffusion 1.5 at 512 pixels written at 224, D4M's prompts, strength 0.7, guidance
        8, 50 steps, sampled posterior and minibatch points (weighting="uniform" makes it D4M). "dit": DiT-XL/2 at 256
        pixels, guidance 4, 50 steps; a reconstruction, since the paper's settings are not published. What is given
        counts more; all is written to run.json.
    synthesis
        How a point becomes an image. "diffuse": noised to time t and denoised under its class; "decode": decoded as
        it is (a blurred mean); "nearest": the nearest distinct real image (a strong, cheap control; it publishes
        real data).
    controls
        Further syntheses of the same points, written to `controls/<name>/` for comparison. Adding one later only
        adds it.
    weighting
        The weights that `metadata.jsonl` and the returned data set carry: "density" is each point's share of its class,
        "reencoded" that of the cell of the image's own latent (the images are encoded again, since decoding and
        diffusion have moved the points), "sqrt" the square root of the first, "uniform" none; the mean is 1.
        `load(out, weighting=...)` gives the others.
    class_prior
        The total of each class's weights: "balanced", the same for all; "data", its share of the images.
    image_size
        Side in pixels. Default: what the diffusion model was made for, if it is given with its autoencoder; else the
        images' own if all are equal squares, else the median shorter side (see `open_data`).
    output_size
        Side in pixels of the images that are written, which are resized to it; default: image_size.
    class_names
        Names of the classes of an (array, labels) pair, by label.
    strength
        Share of the noise schedule that "diffuse" runs through: 0 keeps the point, 1 ignores it. Default: the one whose
        share kept of the point (sqrt(alpha_bar), or 1 - sigma for flows) is nearest to 0.29 among the times of `steps`
        steps; D4M's strength 0.7 keeps 0.29 under Stable Diffusion's schedule of 1,000 steps. run.json has both.
    steps
        Denoising steps of the whole schedule, of which `strength * steps` are run; default: 25. Like strength and
        guidance refused where nothing is diffused.
    guidance
        Scale of classifier-free guidance, 1 is none; default: 2.
    prompt
        What Stable Diffusion is told that an image shows, with {} for the class's name; default: "a photo of a {}". A
        WordNet identifier of ImageNet's (n02099601) is spoken as its first synonym (golden retriever).
    negative_prompt
        What guidance leads Stable Diffusion away from; default: the model's own, mostly the empty prompt.
    posterior
        What an image's latent is: the "mean" of its posterior (default), or a "sample" of it, the same for any batches.
    quantizer
        Method of `ddoq.quantize`: "lloyd" (default), "clvq" or "minibatch"; init, n_init, refine and max_iter are of
        "lloyd" alone.
    init
        First points of the quantiser: "k-means++" (greedy, as scikit-learn's) or "random" samples.
    n_init
        Starts per class; the one with the least distortion is kept. "auto": as `ddoq.quantize`.
    refine
        Single-point (Hartigan) moves after Lloyd's iterations: "auto", where a class has 15 images per point or more
        (with fewer they overfit); "hartigan", always; "none", never.
    max_iter
        Lloyd iterations at most, per start.
    codec_steps
        Training steps of the codec that is fitted; default: chosen from the data's size.
    diffusion_steps
        Training steps of the diffusion model that is fitted; default: chosen from the data's size.
    batch_size
        Images at a time in codec and diffusion model; halved where memory runs out. Default: as many as have 4 million
        pixels, at most 64.
    latents
        Another run folder of the same data, codec and batch_size, whose latents are taken over, to the same result,
        where this folder has none. A codec that was fitted there is given with it: codec="OTHER/codec".
    precision
        Of diffusers models: "float32", "bfloat16" or "float16". "auto": of objects their own, of fitted models float32,
        of others bfloat16 on a GPU that has it and float32 elsewhere. Objects that are given are put on `device` and
        in this precision themselves, no copy of them: give a folder where a pipeline is to stay as it is.
    seed
        One integer; every stage, class and image has its own stream spawned from it.
    n_threads
        Threads of the quantiser; default: all this process may use. The result does not depend on it.
    device
        "auto" (a CUDA GPU if there is one), "cpu" or "cuda".
    progress
        Show progress bars on stderr.

    Returns
    -------
    DistilledDataset
        A torch Dataset of (image, target, weight), read back from the run folder.

    Raises
    ------
    ValueError, TypeError
        Bad arguments or data, with the class, index or file at fault.
    ddoq.RunError
        The folder belongs to another configuration or process, or an artefact is damaged.

    Examples
    --------
    >>> import ddoq, numpy as np, tempfile
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> images = (digits.images * 15).astype(np.uint8)
    >>> out = tempfile.mkdtemp()
    >>> small = ddoq.distill((images, digits.target), out, ipc=5, codec="identity", synthesis="decode", progress=False)
    >>> len(small), small.class_names[3]
    (50, '3')

    References
    ----------
    Tan and Slade, Dataset Distillation as Optimal Quantisation, arXiv 2501.07681.
    """
    settings = settle(
        preset,
        {
            "diffusion": diffusion,
            "image_size": image_size,
            "output_size": output_size,
            "strength": strength,
            "steps": steps,
            "guidance": guidance,
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "posterior": posterior,
            "quantizer": quantizer,
        },
    )
    sampling = {name: settings[name] for name in ("strength", "steps", "guidance")}
    points: dict[str, Any] = {"method": settings["quantizer"], "init": init, "n_init": n_init, "refine": refine}
    points["max_iter"] = max_iter
    _check_options(points, weighting, class_prior, sampling, precision, output_size, batch_size, seed, n_threads)
    check_steps("codec_steps", codec_steps)
    check_steps("diffusion_steps", diffusion_steps)
    place = torch_device(device)
    own: Precision = "float32" if precision == "auto" else precision
    wanted = _wanted(synthesis, controls)
    diffuses = "diffuse" in wanted
    if not diffuses:
        _refuse_sampling({"strength": strength, "steps": steps, "guidance": guidance})
    how: dict[str, Any] = {"class_names": class_names, "precision": precision, "device": place}
    models = open_models(data, codec, settings, diffuses=diffuses, **how)
    source, opened, model = models.data, models.codec, models.diffusion
    if not (prompt is None and negative_prompt is None) and not models.prompted:
        raise ValueError(
            "prompt and negative_prompt are for Stable Diffusion: give its pipeline, folder or id as diffusion"
        )
    check_ipc(source, ipc)
    batch = batch_size or max(1, min(64, BATCH_PIXELS // source.image_size**2))
    main = model if synthesis == "diffuse" else None  # what controls alone need may be added later
    given = "for controls alone" if main is None else fingerprint(main)
    sampled = sampling if synthesis == "diffuse" else {}
    config = {
        "data": source.fingerprint,
        "image_size": source.image_size,
        "channels": source.channels,
        "ipc": ipc,
        "preset": labelled(preset),
        "codec": {"fit": codec_steps} if opened is None else {"given": fingerprint(opened)},
        "diffusion": {"given": given} if models.given else {"fit": diffusion_steps},
        "synthesis": synthesis,
        "weighting": weighting,
        "class_prior": class_prior,
        "sampling": {**sampled, **{name: settings[name] for name in ("prompt", "negative_prompt", "output_size")}},
        "posterior": settings["posterior"],
        "quantizer": points,
        "batch_size": batch,
        "precision": getattr(main, "facts", {}).get("precision", precision),  # "auto" depends on the machine
        "seed": seed,
    }
    if latents is not None and not (Path(out) / MANIFEST).exists():
        open_reusable(latents, config)  # so that a mistake does not claim the folder, or show after a codec's training
    with Run.locked(out, config, source.class_names) as run:
        if opened is None:
            inputs = {"data": source.fingerprint, "size": source.image_size, "steps": codec_steps, "seed": seed}
            options: dict[str, Any] = {"seed": seed, "steps": codec_steps, "device": place, "progress": progress}

            def train(folder: Path, journal: Journal) -> dict[str, Any]:
                return fit_codec(source, folder, journal=journal, **options)

            folder = fitted(run, "codec", inputs, train, run.path / "codec", smaller=SMALLER)
            opened = open_codec(folder, device=place, posterior=settings["posterior"], precision=own)
        encode(run, source, opened, device=place, seed=seed, batch_size=batch, reuse=latents, progress=progress)
        quantize_run(run, points, ipc, seed=seed, n_threads=n_threads, progress=progress)
        if diffuses and model is None:
            inputs = {"latents": run.output("encode"), "steps": diffusion_steps, "seed": seed}
            folder = fitted(
                run,
                "diffusion",
                inputs,
                lambda folder, journal: fit_diffusion(
                    *read_all_latents(run),
                    len(source.class_names),
                    folder,
                    journal=journal,
                    seed=seed,
                    class_names=source.class_names,
                    steps=diffusion_steps,
                    device=place,
                    progress=progress,
                ),
                run.path / "diffusion",
                smaller=SMALLER,
            )
            model = open_diffusion(folder, source.class_names, place, precision=own)
        for name in wanted:
            synthesize(
                run,
                source,
                opened,
                model,
                synthesis=name,
                folder=run.path / ("images" if name == synthesis else f"controls/{name}"),
                seed=seed,
                **sampling,
                output_size=settings["output_size"],
                batch_size=batch,
                device=place,
                progress=progress,
            )
    return load(out)


def _check_options(
    quantizer: dict[str, Any],
    weighting: str,
    class_prior: str,
    sampling: dict[str, Any],
    precision: str,
    output_size: int | None,
    batch_size: int | None,
    seed: int,
    n_threads: int | None,
) -> None:
    """Bad options are refused before work starts: by the functions that will use them, on one sample."""
    quantize_classes(np.zeros((1, 1), np.float32), [0], 1, **quantizer, random_state=0, n_threads=n_threads)
    class_weights(np.ones(1), np.array([0, 1]), weighting, class_prior)
    check_sampling(**sampling)
    if precision != "auto":
        as_dtype(precision)
    for name, value in (("output_size", output_size), ("batch_size", batch_size)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
    seed_sequence(seed, "quantize")


def _refuse_sampling(given: dict[str, Any]) -> None:
    """ValueError for settings of the denoising that nothing would use; None is not given."""
    if names := [name for name, value in given.items() if value is not None]:
        raise ValueError(
            f"{', '.join(names)}: of synthesis='diffuse' alone, and nothing is diffused here; leave {names[0]} out, "
            "or give controls=('diffuse',) or synthesis='diffuse'"
        )


def _wanted(synthesis: str, controls: Sequence[str]) -> list[Any]:
    """The main synthesis, then the controls, each once."""
    if isinstance(controls, str):
        raise TypeError(f"controls must be a sequence of names, such as ({controls!r},), not a string")
    wanted = list(dict.fromkeys([synthesis, *controls]))
    for name in wanted:
        if name not in ("diffuse", "decode", "nearest"):
            raise ValueError(f"synthesis {name!r} is not known: use 'diffuse', 'decode' or 'nearest'")
    return wanted
