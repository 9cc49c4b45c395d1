"""The data and the models that are given to our own method are opened here; those to be fitted come later.

Of a pipeline only the parts that the syntheses need are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ddoq.data.image_data import ImageData, open_data
from ddoq.machine.device import Precision
from ddoq.methods.task import Task
from ddoq.models.codecs.autoencoder import Posterior
from ddoq.models.codecs.codec import Codec, open_codec
from ddoq.models.diffusion.model import Diffusion, open_diffusion
from ddoq.models.parts import Parts, autoencoder_part, open_parts


class ModelOptions(Protocol):
    """The options that say which models there are, as in `ddoq.methods.ddoq.DDOQ`."""

    @property
    def codec(self) -> Any: ...
    @property
    def diffusion(self) -> Any: ...
    @property
    def prompt(self) -> str | None: ...
    @property
    def negative_prompt(self) -> str | None: ...
    @property
    def posterior(self) -> Posterior: ...
    @property
    def precision(self) -> Precision: ...


@dataclass(frozen=True)
class Models:
    """The data at the size of the models, codec and diffusion model.

    A codec of None is to be fitted to the data; so is a diffusion model, unless nothing needs one. `diffusion_given`:
    whether there is a diffusion model to be had without a fit; `prompted`: whether it takes prompts.
    """

    data: ImageData
    codec: Codec | None
    diffusion: Diffusion | None
    diffusion_given: bool
    prompted: bool


def open_models(task: Task, options: ModelOptions, *, diffuses: bool) -> Models:
    """Open the models that are given, and the data at the size and channels that suit them.

    Without `task.image_size` the size is the one that the diffusion model was made for, seen through the codec, where
    they tell. `diffuses`: whether the diffusion model is needed; of a pipeline that is not, no weights are read.
    """
    name = options.diffusion
    fit = isinstance(name, str) and name in ("auto", "fit")
    parts = None if fit else open_parts(name, "diffusion")
    codec = options.codec
    if isinstance(codec, str) and codec == "auto":
        codec = name if parts is not None and autoencoder_part(parts) is not None else "fit"
    opened = None
    if not (isinstance(codec, str) and codec == "fit"):
        opened = open_codec(codec, device=task.device, posterior=options.posterior, precision=options.precision)
    data = open_data(task.data, channels=getattr(opened, "channels", None))
    if fit:
        return Models(data, opened, None, diffusion_given=False, prompted=False)
    model = None
    if parts is not None and not diffuses:
        side, prompted = _latent_side(parts), parts.kind("unet") is not None
    else:
        model = open_diffusion(
            name,
            data.class_names,
            task.device,
            prompt=options.prompt,
            negative_prompt=options.negative_prompt,
            precision=options.precision,
        )
        side, prompted = getattr(model, "latent_side", None), hasattr(model, "prompts")
    factor = getattr(opened, "factor", None)
    if task.image_size is None and side and factor:
        data = open_data(data, image_size=side * factor)
    return Models(data, opened, model, diffusion_given=True, prompted=prompted)


def _latent_side(parts: Parts) -> int | None:
    """The attribute `latent_side` that the model would have."""
    for part in ("unet", "transformer"):
        if parts.kind(part) is not None and isinstance(side := parts.config(part).get("sample_size"), int):
            return side
    return None


def check_distinct(data: ImageData, ipc: int) -> None:
    """ValueError for a class with fewer distinct images than points; names the class."""
    for c, name in enumerate(data.class_names):
        distinct: set[bytes] = set()
        for part in _parts(np.flatnonzero(data.labels == c), max(ipc, 64)):
            distinct.update(image.tobytes() for image in data.images(part))
            if len(distinct) >= ipc:  # nearly always after the first part
                break
        else:
            raise ValueError(f"ipc={ipc} is more than the {len(distinct)} distinct images of class {name!r}: lower ipc")


def _parts(indices: np.ndarray[Any, Any], size: int) -> Iterator[np.ndarray[Any, Any]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
