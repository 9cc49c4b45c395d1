"""Measures image sets by their features: KID, FID, precision and recall, density and coverage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq.data.classes import columns_of
from ddoq.machine.streams import seed_sequence

Floats = NDArray[np.float64]


FID_IMAGES = 2048  # the size of Inception's features; with fewer samples their covariance has no full rank


TIES = 1e-12  # of the mean squared length: squared distances within it are equal, their sums having been rounded


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
    known = class_names if judge_names is None else judge_names
    columns = np.array(columns_of(class_names, known, "the judge"))
    values, classes = np.asarray(logits), np.asarray(labels)
    if values.shape != (len(classes), len(known)):
        raise ValueError(f"the judge gave logits {values.shape} for {len(classes)} images and {len(known)} classes")
    return float((values.argmax(axis=1) == columns[classes]).mean())


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
