"""What a distillation works with: the data, and the models that are given; models to be fitted come later, and of a
pipeline only what the syntheses need is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ddoq.data.image_data import ImageData, open_data
from ddoq.models.codecs.codec import Codec, open_codec
from ddoq.models.diffusion.model import Diffusion, open_diffusion
from ddoq.models.parts import Parts, Precision, autoencoder_part, open_parts


@dataclass(frozen=True)
class Models:
    """Data, codec and diffusion model; None is one that is to be fitted to the data, or a diffusion model that nothing
    needs. `given`: whether there is one to be had without a fit; `prompted`: whether it takes prompts.
    """

    data: ImageData
    codec: Codec | None
    diffusion: Diffusion | None
    given: bool
    prompted: bool


def open_models(
    data: Any,
    codec: Any,
    settings: Mapping[str, Any],
    *,
    diffuses: bool,
    class_names: Sequence[str] | None,
    precision: Precision,
    device: torch.device,
) -> Models:
    """Open the data and the models that are given, at the size of images that suits them.

    Parameters
    ----------
    data, class_names
        As for `open_data`.
    codec
        As for `open_codec`; "fit"; or "auto", which is the autoencoder of a pipeline given as diffusion, else "fit".
    settings
        Of these "diffusion" (as for `open_diffusion`; "auto" and "fit": none), "image_size" (None: what the diffusion
        model was made for, seen through the codec, where they tell), "posterior", "prompt" and "negative_prompt".
    diffuses
        Whether the diffusion model is needed; of a pipeline that is not, no weights are read.
    """
    given = settings["diffusion"]
    fit = isinstance(given, str) and given in ("auto", "fit")
    parts = None if fit else open_parts(given, "diffusion")
    if isinstance(codec, str) and codec == "auto":
        codec = given if parts is not None and autoencoder_part(parts) is not None else "fit"
    opened = None
    if not (isinstance(codec, str) and codec == "fit"):
        opened = open_codec(codec, device=device, posterior=settings["posterior"], precision=precision)
    size = settings["image_size"]
    source = open_data(data, image_size=size, channels=getattr(opened, "channels", None), class_names=class_names)
    if fit:
        return Models(source, opened, None, given=False, prompted=False)
    model = None
    if parts is not None and not diffuses:
        side, prompted = _latent_side(parts), parts.kind("unet") is not None
    else:
        texts = {name: settings[name] for name in ("prompt", "negative_prompt")}
        model = open_diffusion(given, source.class_names, device, precision=precision, **texts)
        side, prompted = getattr(model, "latent_side", None), hasattr(model, "prompts")
    factor = getattr(opened, "factor", None)
    if size is None and side and factor:
        source = open_data(source, image_size=side * factor)
    return Models(source, opened, model, given=True, prompted=prompted)


def _latent_side(parts: Parts) -> int | None:
    """What `latent_side` of the model would be."""
    for part in ("unet", "transformer"):
        if parts.kind(part) is not None and isinstance(side := parts.config(part).get("sample_size"), int):
            return side
    return None


def check_ipc(source: ImageData, ipc: int) -> None:
    if isinstance(ipc, bool) or not isinstance(ipc, int | np.integer) or ipc < 1:
        raise ValueError(f"ipc must be a positive integer, got {ipc!r}")
    sizes = np.bincount(source.labels, minlength=len(source.class_names))
    smallest = int(sizes.argmin())
    if sizes[smallest] < ipc:
        raise ValueError(
            f"ipc={ipc} is more than the {sizes[smallest]} images of class {source.class_names[smallest]!r}: lower ipc"
        )
    for c, name in enumerate(source.class_names):
        distinct: set[bytes] = set()
        for part in _parts(np.flatnonzero(source.labels == c), max(ipc, 64)):
            distinct.update(image.tobytes() for image in source.images(part))
            if len(distinct) >= ipc:  # nearly always after the first part
                break
        else:
            raise ValueError(f"ipc={ipc} is more than the {len(distinct)} distinct images of class {name!r}: lower ipc")


def _parts(indices: np.ndarray[Any, Any], size: int) -> Iterator[np.ndarray[Any, Any]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
