"""A distilled data set is a torch Dataset of (image, target, weight), read back from a run folder and verified.

Weights (C classes, M images in all; DESIGN of ddoq, after arXiv 2501.07681):
    density    n_i / n_class x M / C     the mass of the point's Voronoi cell
    reencoded  the same of the cell of the image's own latent, which decoding and diffusion have moved (reencode.py)
    sqrt       sqrt(n_i), rescaled to the same class totals
    uniform    the class total shared evenly
so that every class has the total M / C ("balanced") or M n_class / n ("data"), and the mean is 1. Never renormalised
inside a batch.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, WeightedRandomSampler

from ddoq.data.images import reason, to_pixels
from ddoq.data.weights import WEIGHTINGS, ClassPrior, Weighting, counts_for, image_weights
from ddoq.storage.files import RunError
from ddoq.storage.image_folder import METADATA, class_names_of, read_rows
from ddoq.storage.manifest import MANIFEST, NoRunError, images_stage, main_set, method_label
from ddoq.storage.run import Run


@dataclass(frozen=True, eq=False, repr=False)
class DistilledDataset(Dataset[tuple[torch.Tensor, int, float]]):
    """A small weighted image data set; `dataset[i]` is (image float32 (c, h, w) in [0, 1], target, weight).

    Attributes
    ----------
    images
        uint8 (K, c, h, w).
    labels, counts
        int64 (K,): class index; images of the full set that the image stands for.
    reencoded
        int64 (K,): images of the full set in the cell of the image's own latent; None where nobody counted them.
    weights
        float64 (K,), mean 1: what the loss of each image is multiplied by.
    class_names
        By label.
    mean, std
        float32 (c,): of the pixels of the full data set, in [0, 1].
    manifest
        The run's run.json.
    weighting, class_prior
        How the weights were made of the counts.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> for image, target, weight in DataLoader(ddoq.load("runs/mnist"), batch_size=64):   # doctest: +SKIP
    ...     loss = ddoq.WeightedLoss()(model(image), target, weight)
    """

    images: torch.Tensor
    labels: torch.Tensor
    counts: torch.Tensor
    weights: torch.Tensor
    _: KW_ONLY
    class_names: tuple[str, ...]
    mean: torch.Tensor
    std: torch.Tensor
    manifest: dict[str, Any]
    weighting: str
    class_prior: str
    reencoded: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, float]:
        return self.images[index].float() / 255, int(self.labels[index]), float(self.weights[index])

    def __repr__(self) -> str:
        c, h, w = self.images.shape[1:]
        low, high = float(self.weights.min()), float(self.weights.max())
        label = self.method_label
        return (
            f"DistilledDataset({len(self)} images {c}x{h}x{w}, {len(self.class_names)} classes, "
            f"{self.weighting} weights {low:.3g} to {high:.3g}{f', method {label}' if label else ''})"
        )

    @property
    def method_label(self) -> str | None:
        """The method that made it, with its note if it has one; None for the package's own and for other folders."""
        return method_label(self.manifest)

    @property
    def weightings(self) -> tuple[Weighting, ...]:
        """The weightings that `reweighted` gives: all, or those of a method whose images stand for no cells."""
        stages = self.manifest.get("stages", {})
        limited = stages.get("synthesize", {}).get("info", {}).get("weightings")
        return WEIGHTINGS if limited is None else tuple(limited)

    def offered(self, weightings: Sequence[Weighting]) -> list[Weighting]:
        """Those of some weightings that its images can have; what is no weighting stays, for `reweighted` to refuse."""
        return [name for name in weightings if name in self.weightings or name not in WEIGHTINGS]

    def sampler(self, *, num_samples: int | None = None, seed: int = 0) -> WeightedRandomSampler:
        """Draw images as often as they weigh, for a trainer that takes no weights: a sampler for torch's DataLoader.

        An epoch's expected loss is then the weighted one, at a greater variance than weights in the loss have: use one
        of the two. Images are drawn with replacement, `num_samples` an epoch (default: as many as there are), from a
        stream of `seed` that goes on from epoch to epoch.

        Examples
        --------
        >>> from torch.utils.data import DataLoader
        >>> small = ddoq.load("runs/mnist")                                                   # doctest: +SKIP
        >>> loader = DataLoader(small, batch_size=64, sampler=small.sampler())                # doctest: +SKIP
        """
        generator = torch.Generator().manual_seed(seed)
        return WeightedRandomSampler(self.weights.tolist(), num_samples or len(self), generator=generator)

    def reweighted(self, weighting: Weighting, class_prior: ClassPrior | None = None) -> DistilledDataset:
        """The same images with other weights made from their counts; `class_prior` None keeps the present one.

        ValueError for "reencoded" where the images were not encoded again: `ddoq.weigh` does that to any folder.
        """
        if weighting in WEIGHTINGS and weighting not in self.weightings:
            raise ValueError(
                f"these images have no {weighting!r} weights, since method {self.method_label!r} counts no images of "
                f"the data for them: use {' or '.join(map(repr, self.weightings))}"
            )
        reencoded = None if self.reencoded is None else self.reencoded.numpy()
        counts = counts_for(weighting, self.counts.numpy(), reencoded)
        prior = self.class_prior if class_prior is None else class_prior
        weights = image_weights(counts, self.labels.numpy(), len(self.class_names), weighting, prior)
        return replace(self, weights=torch.from_numpy(weights), weighting=weighting, class_prior=prior)


def load(
    path: str | PathLike[str],
    *,
    synthesis: str | None = None,
    weighting: Weighting | None = None,
    class_prior: ClassPrior | None = None,
) -> DistilledDataset:
    """Read the distilled images of a run folder, after checking every file's hash.

    Parameters
    ----------
    path
        A run folder made by `ddoq.distill`, or a folder of class folders of images, of any origin, to which
        `ddoq.weigh(folder, data)` gave weights; until then it has none, and only `ddoq.evaluate` takes it.
    synthesis
        None: the run's main images. A name such as "decode" or "nearest": those of that control.
    weighting, class_prior
        None: what the run was made with. Otherwise the weights are made again from the counts: nothing is computed
        for it, "reencoded" was counted when the images were made.

    Raises
    ------
    ddoq.RunError
        Not a run, not finished, no such control, or a damaged or missing file, by name.

    Examples
    --------
    >>> import ddoq, tempfile
    >>> images, labels = np.arange(12 * 64, dtype=np.uint8).reshape(12, 8, 8), np.arange(12) % 2
    >>> out = tempfile.mkdtemp()
    >>> _ = ddoq.distill((images, labels), out, ipc=2, codec="identity", synthesis="decode", progress=False)
    >>> ddoq.load(out, weighting="uniform")
    DistilledDataset(4 images 1x8x8, 2 classes, uniform weights 1 to 1)
    """
    run = _open_run(path)
    config = run.config
    stage = images_stage(run.manifest, synthesis or main_set(run.manifest))
    if synthesis is None and not run.has(stage):
        again = "ddoq.distill" if run.kind == "distilled" else "ddoq.weigh"
        raise RunError(f"{run.path} is not finished, it has no images yet: finish it with the same {again}")
    if not run.has(stage):
        raise RunError(
            f"{run.path} has no images of synthesis {synthesis!r}, only {run.syntheses()}: finish it with ddoq.distill"
        )
    run.verify([stage])
    (metadata,) = (path for path in run.outputs(stage) if path.name == METADATA)
    files, rows = zip(*read_rows(metadata), strict=True)
    names = class_names_of(metadata, rows)
    if names != run.class_names:
        raise RunError(f"{metadata} and {run.path / 'run.json'} disagree about the class names")
    reencoded = [row.get("reencoded") for row in rows]
    facts = run.info("data")
    dataset = DistilledDataset(
        torch.from_numpy(np.stack([_pixels(file, config.get("given")) for file in files])),
        torch.tensor([row["label"] for row in rows]),
        torch.tensor([row["count"] for row in rows]),
        torch.tensor([row["weight"] for row in rows], dtype=torch.float64),
        class_names=names,
        mean=torch.tensor(facts["mean"], dtype=torch.float32),
        std=torch.tensor(facts["std"], dtype=torch.float32),
        manifest=run.manifest,
        weighting=config.get("weighting", "density"),
        class_prior=config.get("class_prior", "balanced"),
        reencoded=None if None in reencoded else torch.tensor(reencoded),
    )
    if weighting is None and class_prior is None:
        return dataset
    return dataset.reweighted(weighting or dataset.weighting, class_prior)  # type: ignore[arg-type]


def _open_run(path: str | PathLike[str]) -> Run:
    """The run; NoRunError that says, of a folder with images, what to do with it."""
    try:
        return Run.open(path)
    except NoRunError as error:
        folder = Path(path).absolute()
        control = folder.parent.name == "controls"
        run = folder.parents[1] if control else folder.parent
        if (control or folder.name == "images") and (run / MANIFEST).exists():
            named = f" with synthesis={folder.name!r} (--synthesis)" if control else ""
            raise NoRunError(f"{folder} is a part of the run {run}: give {run}{named}") from error
        if folder.is_dir() and any(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir()):
            raise NoRunError(
                f"{folder} is not a run folder; if it is one of class folders, its images have no weights yet: "
                f"ddoq weigh {folder} --data DATA gives them weights by the full data, and then it can be loaded"
            ) from error
        raise


def _pixels(path: Path, shape: dict[str, int] | None) -> np.ndarray[Any, Any]:
    """An image that ddoq wrote as it is, one of a `given` folder at the size and channels that it was weighed at."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            if shape is not None:
                return to_pixels(image, shape["image_size"], shape["channels"])
            pixels = np.asarray(image)
    except Exception as error:
        raise RunError(f"{path} cannot be read as an image: {reason(error)}") from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
