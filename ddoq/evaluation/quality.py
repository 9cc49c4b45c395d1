"""Measures the quality of images beside real ones, in the feature space of a model that the user names.

    KID                 squared MMD under the kernel (x y / d + 1)^3, unbiased (Binkowski et al., ICLR 2018)
    precision, recall   share of the images in the balls of the real ones, and the other way round; the balls reach to
                        the third neighbour of their own kind (Kynkaanniemi et al., NeurIPS 2019)
    density, coverage   real balls per image over k, and the share of real balls with an image, to the fifth neighbour
                        (Naeem et al., ICML 2020)
    FID                 Frechet distance of two normal laws (Heusel et al., NeurIPS 2017); from 2,048 images on
    agreement           share of the images that a classifier puts into their own class

All numbers depend on the features: compare only where they are the same, and put the same number of random real images
beside. Weights play no part. Balls are closed: an image at exactly the radius is inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddoq.data.distilled import DistilledDataset
from ddoq.data.image_data import ImageData, open_data
from ddoq.evaluation.metrics import Floats, agreement, check_fid, density_coverage, fid, kid, precision_recall
from ddoq.machine.device import torch_device
from ddoq.machine.extras import need
from ddoq.models.codecs.codec import open_codec


@dataclass(frozen=True)
class Quality:
    """What `image_quality` measured; shares lie in [0, 1], None was not asked for or not allowed.

    Examples
    --------
    >>> print(Quality(100, 1000, 0.01, 0.002, 0.9, 0.5, 0.8, 0.4, None, 0.95))
    100 images beside 1,000 real ones: KID 0.0100 ± 0.0020, precision 0.900, recall 0.500, density 0.800, coverage
    0.400, agreement 95.0 %
    """

    images: int
    real: int
    kid: float
    kid_std: float
    precision: float
    recall: float
    density: float
    coverage: float
    fid: float | None
    agreement: float | None

    def __str__(self) -> str:
        parts = [f"KID {self.kid:.4f} ± {self.kid_std:.4f}"]
        parts += [f"{name} {getattr(self, name):.3f}" for name in ("precision", "recall", "density", "coverage")]
        parts += [] if self.fid is None else [f"FID {self.fid:.2f}"]
        parts += [] if self.agreement is None else [f"agreement {100 * self.agreement:.1f} %"]
        return f"{self.images:,} images beside {self.real:,} real ones: {', '.join(parts)}"


def image_quality(
    images: Any,
    data: Any,
    features: Any,
    *,
    judge: Callable[[Tensor], Tensor] | None = None,
    judge_names: Sequence[str] | None = None,
    with_fid: bool = False,
    batch_size: int = 64,
    seed: int = 0,
    device: str = "auto",
) -> Quality:
    """Measure images beside real ones.

    Parameters
    ----------
    images
        What `ddoq.load` returns, or anything `ddoq.open_data` takes.
    data
        Real images, opened at the same size and with the same channels.
    features
        The model whose feature space it is: a function of images float32 (b, c, h, w) in [0, 1] to features (b, d);
        the name of a timm model, whose pretrained weights timm then loads, with the size and normalisation that it
        was trained with; or a codec, for its latents.
    judge
        A classifier: images as above to logits (b, C). None: no agreement.
    judge_names
        The classes of its outputs in order; default: the images' own class names.
    with_fid
        FID too; both sets then need 2,048 images.
    batch_size
        Images per call of the models.
    seed
        Of KID's subsets.
    device
        "auto" (a CUDA GPU if there is one), "cpu" or "cuda": where images are put; the models must be there.

    Returns
    -------
    Quality

    Raises
    ------
    ValueError
        Too few images; features or logits of a wrong shape or not finite; classes that the judge does not know.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> pixels = rng.integers(0, 255, (40, 4, 4), np.uint8), [0, 1] * 20
    >>> found = image_quality(pixels, pixels, lambda images: images.flatten(1), device="cpu")
    >>> found.precision, found.recall, found.coverage, found.kid < 0.01
    (1.0, 1.0, 1.0, True)
    """
    on_device = torch_device(device)
    pixels, labels, names = _opened(images)
    real = _opened(open_data(data, image_size=pixels.shape[-1], channels=pixels.shape[1]))[0]
    if with_fid:
        check_fid(len(pixels), len(real))
    extract = _extractor(features, on_device)
    agreed = None
    if judge is not None:
        agreed = agreement(_computed(judge, pixels, on_device, batch_size, "the judge"), labels, names, judge_names)
    x, y = (_computed(extract, part, on_device, batch_size, "the feature model") for part in (real, pixels))
    mean, deviation = kid(x, y, seed=seed)
    measured = (mean, deviation, *precision_recall(x, y), *density_coverage(x, y), fid(x, y) if with_fid else None)
    return Quality(len(pixels), len(real), *measured, agreed)


def _opened(images: Any) -> tuple[Tensor, NDArray[np.int64], tuple[str, ...]]:
    """uint8 images (m, c, h, w), labels, class names."""
    if isinstance(images, DistilledDataset):
        return images.images, images.labels.numpy(), images.class_names
    opened = images if isinstance(images, ImageData) else open_data(images)
    return torch.from_numpy(opened.images(range(len(opened)))), opened.labels, opened.class_names


def _extractor(features: Any, device: torch.device) -> Callable[[Tensor], Tensor]:
    if isinstance(features, str):
        return _timm_features(features, device)
    if all(callable(getattr(features, name, None)) for name in ("encode", "decode")):  # first: a module is callable too
        codec = open_codec(features, device=device)
        return lambda images: codec.encode(images).flatten(1)
    if callable(features):
        call: Callable[[Tensor], Tensor] = features
        return call
    raise TypeError(
        f"features must be a function, the name of a timm model or a codec, got {type(features).__name__}: give a "
        "function of images (b, c, h, w) in [0, 1] to features (b, d)"
    )


def _timm_features(name: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Pooled features of a pretrained timm model, for images of any size, grey or RGB."""
    timm = need("timm", "a model by name")

    model = timm.create_model(name, pretrained=True, num_classes=0).to(device).eval()
    config = timm.data.resolve_model_data_config(model)
    size = config["input_size"][1:]
    mean, std = (torch.tensor(config[key], device=device).reshape(1, -1, 1, 1) for key in ("mean", "std"))

    def extract(images: Tensor) -> Tensor:
        images = images.expand(-1, 3, -1, -1)
        if images.shape[2:] != size:
            images = torch.nn.functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        features: Tensor = model((images - mean) / std)
        return features

    return extract


@torch.no_grad()
def _computed(
    model: Callable[[Tensor], Tensor], images: Tensor, device: torch.device, batch_size: int, what: str
) -> Floats:
    """float64 (m, d) of a model's answers, batch by batch."""
    parts = []
    for part in torch.split(images, batch_size):
        output = model(part.to(device).float() / 255)
        if output.ndim != 2 or len(output) != len(part):
            raise ValueError(f"{what} gave {tuple(output.shape)} for {len(part)} images: one row for each is needed")
        parts.append(output.double().cpu().numpy())
    values: Floats = np.concatenate(parts)
    if not np.isfinite(values).all():
        raise ValueError(f"{what} gave NaN or infinity for image {int((~np.isfinite(values)).any(axis=1).argmax())}")
    return values
