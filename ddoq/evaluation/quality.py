"""Quality of images beside real ones, in the feature space of a model that the user names.

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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ddoq.data.distilled import DistilledDataset
from ddoq.data.image_data import ImageData, open_data
from ddoq.machine.device import torch_device
from ddoq.models.codecs.codec import open_codec
from ddoq.storage.run import seed_sequence

Floats = NDArray[np.float64]
FID_IMAGES = 2048  # the size of Inception's features; with fewer samples their covariance has no full rank
TIES = 1e-12  # of the mean squared length: squared distances within it are equal, their sums having been rounded


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
    place = torch_device(device)
    given, labels, names = _opened(images)
    real = _opened(open_data(data, image_size=given.shape[-1], channels=given.shape[1]))[0]
    if with_fid:
        check_fid(len(given), len(real))
    extract = _extractor(features, place)
    agreed = None
    if judge is not None:
        agreed = agreement(_computed(judge, given, place, batch_size, "the judge"), labels, names, judge_names)
    x, y = (_computed(extract, part, place, batch_size, "the feature model") for part in (real, given))
    mean, deviation = kid(x, y, seed=seed)
    measured = (mean, deviation, *precision_recall(x, y), *density_coverage(x, y), fid(x, y) if with_fid else None)
    return Quality(len(given), len(real), *measured, agreed)


def kid(
    real: ArrayLike, images: ArrayLike, *, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """KID of features (n, d) and (m, d): mean and deviation over random subsets of both; the mean is unbiased.

    `subset_size` None: 1,000, or half of the smaller set if that is less, so that the deviation sees both.

    Examples
    --------
    >>> kid([[0.0], [1.0]], [[0.0], [2.0]], subset_size=2)  # 1 + 1 - 2 (1 + 1 + 1 + 27) / 4
    (-13.0, 0.0)
    """
    x, y = _features(real, images, 2)
    size = max(2, min(1000, min(len(x), len(y)) // 2)) if subset_size is None else subset_size
    if subsets < 1 or not 2 <= size <= min(len(x), len(y)):
        raise ValueError(f"cannot take {subsets} subsets of {size} from {len(x)} and {len(y)} features")
    stream = np.random.default_rng(seed_sequence(seed, "kid"))
    values = []
    for _ in range(subsets):
        a, b = (part[stream.choice(len(part), size, replace=False)] for part in (x, y))
        values.append(_mmd(a, b))
    return float(np.mean(values)), float(np.std(values))


def _mmd(x: Floats, y: Floats) -> float:
    """Unbiased squared maximum mean discrepancy."""

    def kernel(a: Floats, b: Floats) -> Floats:
        values: Floats = (a @ b.T / a.shape[1] + 1) ** 3
        return values

    def within(a: Floats) -> float:
        values = kernel(a, a)
        return float((values.sum() - np.trace(values)) / (len(a) * (len(a) - 1)))

    return within(x) + within(y) - 2 * float(kernel(x, y).mean())


def precision_recall(real: ArrayLike, images: ArrayLike, k: int = 3) -> tuple[float, float]:
    """Share of the images inside a real ball, and of the real ones inside an image's; balls reach to the k-th
    neighbour.

    Examples
    --------
    >>> precision_recall([[0.0], [1.0], [5.0]], [[1.5], [2.5], [90.0]], k=1)  # real radii 1 1 4, the images' 1 1 87.5
    (0.6666666666666666, 0.6666666666666666)
    """
    x, y = _features(real, images, k + 1)
    return _share_inside(y, x, k), _share_inside(x, y, k)


def density_coverage(real: ArrayLike, images: ArrayLike, k: int = 5) -> tuple[float, float]:
    """Mean number of real balls around an image, over k; share of the real balls with an image inside.

    Examples
    --------
    >>> density_coverage([[0.0], [1.0], [5.0]], [[1.5], [2.5], [90.0]], k=1)  # in 2, 1 and 0 balls
    (1.0, 0.6666666666666666)
    """
    x, y = _features(real, images, k + 1)
    radii, slack = _radii(x, k), _slack(x, y)
    inside, covered = 0, np.zeros(len(x), bool)
    for squares, _ in _squares(y, x):
        hits = squares <= radii + slack
        inside += int(hits.sum())
        covered |= hits.any(axis=0)
    return inside / (k * len(y)), float(covered.mean())


def fid(real: ArrayLike, images: ArrayLike) -> float:
    """Frechet distance of the normal laws with the features' means and covariances; from 2,048 samples of both on.

    With fewer the covariance of the usual 2,048 features has no full rank, and the bias, which falls as one over the
    number, is larger than the differences between methods. KID has no bias.
    """
    x, y = _features(real, images, 2)
    check_fid(len(y), len(x))
    first, second = (np.atleast_2d(np.cov(part, rowvar=False)) for part in (x, y))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    shift = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    return float(shift + np.trace(first) + np.trace(second) - 2 * cross)


def check_fid(images: int, real: int) -> None:
    """ValueError, with the reason, unless there are enough of both."""
    if min(images, real) < FID_IMAGES:
        raise ValueError(
            f"FID needs at least {FID_IMAGES:,} images and as many real ones, not {images:,} and {real:,}: with fewer "
            "the covariance of its features has no full rank and its bias outweighs what it should show; use KID"
        )


def agreement(
    logits: ArrayLike, labels: ArrayLike, class_names: Sequence[str], judge_names: Sequence[str] | None = None
) -> float:
    """Share of the images whose greatest logit is that of their own class.

    Parameters
    ----------
    logits
        (m, C') in the order of `judge_names`.
    labels
        (m,) by `class_names`.
    judge_names
        None: as `class_names`. It may know more classes; ValueError for one that it does not know.

    Examples
    --------
    >>> agreement([[0, 1], [2, 0], [3, 1]], [0, 1, 0], ["cat", "dog"], ["dog", "cat"])
    0.6666666666666666
    """
    known = list(class_names if judge_names is None else judge_names)
    unknown = [name for name in class_names if name not in known]
    if unknown:
        raise ValueError(f"the judge does not know the class {unknown[0]!r}: its classes are {known[:8]}")
    values, own = np.asarray(logits), np.asarray(labels)
    if values.shape != (len(own), len(known)):
        raise ValueError(f"the judge gave logits {values.shape} for {len(own)} images and {len(known)} classes")
    return float((values.argmax(axis=1) == np.array([known.index(name) for name in class_names])[own]).mean())


def _opened(images: Any) -> tuple[Tensor, NDArray[np.int64], tuple[str, ...]]:
    """uint8 images (m, c, h, w), labels, class names."""
    if isinstance(images, DistilledDataset):
        return images.images, images.labels.numpy(), images.class_names
    opened = images if isinstance(images, ImageData) else open_data(images)
    return torch.from_numpy(opened.images(range(len(opened)))), opened.labels, opened.class_names


def _extractor(features: Any, place: torch.device) -> Callable[[Tensor], Tensor]:
    if isinstance(features, str):
        return _timm_features(features, place)
    if all(callable(getattr(features, name, None)) for name in ("encode", "decode")):  # first: a module is callable too
        codec = open_codec(features, device=place)
        return lambda images: codec.encode(images).flatten(1)
    if callable(features):
        call: Callable[[Tensor], Tensor] = features
        return call
    raise TypeError(
        f"features must be a function, the name of a timm model or a codec, got {type(features).__name__}: give a "
        "function of images (b, c, h, w) in [0, 1] to features (b, d)"
    )


def _timm_features(name: str, place: torch.device) -> Callable[[Tensor], Tensor]:
    """Pooled features of a pretrained timm model, for images of any size, grey or RGB."""
    from ddoq.machine.torchvision import ensure_importable

    ensure_importable()
    import timm

    model = timm.create_model(name, pretrained=True, num_classes=0).to(place).eval()
    config = timm.data.resolve_model_data_config(model)
    size = config["input_size"][1:]
    mean, std = (torch.tensor(config[key], device=place).reshape(1, -1, 1, 1) for key in ("mean", "std"))

    def extract(images: Tensor) -> Tensor:
        images = images.expand(-1, 3, -1, -1)
        if images.shape[2:] != size:
            images = torch.nn.functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        found: Tensor = model((images - mean) / std)
        return found

    return extract


@torch.no_grad()
def _computed(
    model: Callable[[Tensor], Tensor], images: Tensor, place: torch.device, batch_size: int, what: str
) -> Floats:
    """float64 (m, d) of a model's answers, batch by batch."""
    parts = []
    for part in torch.split(images, batch_size):
        found = model(part.to(place).float() / 255)
        if found.ndim != 2 or len(found) != len(part):
            raise ValueError(f"{what} gave {tuple(found.shape)} for {len(part)} images: one row for each is needed")
        parts.append(found.double().cpu().numpy())
    values: Floats = np.concatenate(parts)
    if not np.isfinite(values).all():
        raise ValueError(f"{what} gave NaN or infinity for image {int((~np.isfinite(values)).any(axis=1).argmax())}")
    return values


def _features(real: ArrayLike, images: ArrayLike, least: int) -> tuple[Floats, Floats]:
    x, y = (np.asarray(part, np.float64) for part in (real, images))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features must be (n, d) and (m, d), got {x.shape} and {y.shape}")
    if min(len(x), len(y)) < least:
        raise ValueError(f"at least {least} of both are needed, got {len(x)} real and {len(y)} others")
    return x, y


def _squares(rows: Floats, columns: Floats, block: int = 1024) -> Iterator[tuple[Floats, slice]]:
    """Squared distances of blocks of rows to all columns."""
    centre = columns.mean(axis=0)  # far from the origin the products would cancel
    a, b = rows - centre, columns - centre
    lengths = (b**2).sum(axis=1)
    for begin in range(0, len(a), block):
        part = slice(begin, begin + block)
        yield (a[part] ** 2).sum(axis=1)[:, None] + lengths - 2 * a[part] @ b.T, part


def _slack(x: Floats, y: Floats) -> float:
    return TIES * float(((x - x.mean(axis=0)) ** 2).sum(axis=1).mean() + ((y - x.mean(axis=0)) ** 2).sum(axis=1).mean())


def _radii(x: Floats, k: int) -> Floats:
    """Squared distance (n,) to the k-th neighbour beside oneself."""
    radii = np.empty(len(x))
    for squares, part in _squares(x, x):
        radii[part] = np.partition(squares, k, axis=1)[:, k]
    return radii


def _share_inside(x: Floats, balls: Floats, k: int) -> float:
    """Share of x inside a ball around one of the others."""
    radii, slack = _radii(balls, k), _slack(balls, x)
    return float(np.mean(np.concatenate([(squares <= radii + slack).any(axis=1) for squares, _ in _squares(x, balls)])))
