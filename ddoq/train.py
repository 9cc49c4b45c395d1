"""Train a student on a weighted data set, under a protocol that is named (`ddoq.protocols`)."""

from __future__ import annotations

import errno
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ddoq._descent import Descent, block
from ddoq._device import deterministic, seeded, torch_device
from ddoq.data import ImageData
from ddoq.distilled import DistilledDataset
from ddoq.files import digest, write_atomic
from ddoq.protocols import ProtocolName, recipe_for
from ddoq.recipe import Recipe as Recipe
from ddoq.run import seed_sequence
from ddoq.students import create_student
from ddoq.targets import Targets, open_targets
from ddoq.training_log import write_log
from ddoq.training_set import HeldOut, Normalise, TrainingSet, open_test


@dataclass(frozen=True)
class TrainResult:
    """A trained student.

    Attributes
    ----------
    accuracy
        Percent of the test images that are right after the last epoch; None without a test set.
    checks
        Epochs, counted from 1, after which the protocol looks at the test set, and the accuracies; the last among them.
    losses
        Mean weighted loss of each epoch.
    seconds
        Time of training and testing.
    recipe
        What it was trained with.
    model
        The student, in evaluation mode, for images normalised by `mean` and `std` (c,).
    """

    accuracy: float | None
    losses: tuple[float, ...]
    seconds: float
    recipe: Recipe
    model: nn.Module
    mean: Tensor
    std: Tensor
    checks: tuple[tuple[int, float], ...] = ()

    @property
    def best(self) -> float | None:
        """The greatest of `checks`, chosen by the test set: for comparison with results that are such."""
        return max((accuracy for _, accuracy in self.checks), default=None)

    def __str__(self) -> str:
        right = "no test set" if self.accuracy is None else f"{self.accuracy:.2f} % of the test images right"
        if len(self.checks) > 1:
            right += f" (best of {len(self.checks)} looks {self.best:.2f} %)"
        recipe = self.recipe
        return (
            f"{recipe.student}, protocol {recipe.protocol}, seed {recipe.seed}: {right} after the last of "
            f"{recipe.epochs} epochs, loss {self.losses[-1]:.4f}, {self.seconds:.0f} s"
        )


def train(
    dataset: DistilledDataset | ImageData,
    student: str = "convnet3",
    *,
    protocol: ProtocolName = "dc",
    teacher: Any = None,
    labels: str | PathLike[str] | None = None,
    test: Any = None,
    seed: int = 0,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: int = 0,
    class_names: Sequence[str] | None = None,
    device: str = "auto",
    log: Path | None = None,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> TrainResult:
    """Train one student, each image's loss multiplied by its weight; accuracy is the last epoch's.

    With a log or a checkpoint, a training that Ctrl-C broke off goes on from its last step when called again, one that
    was killed from its last minute, and ends with the same weights.

    Parameters
    ----------
    dataset
        What `ddoq.load` returns, or `ddoq.open_data` for all images with weight 1. Held in memory; normalised by the
        full data set's mean and deviation.
    student
        "convnet3" or "convnet4", the field's ConvNet; or the name of a timm model, such as "resnet18". "mobilenetv2",
        "swin_tiny", "vit_tiny" and "vit_small" stand for timm's, with patches that suit the images.
    protocol
        "dc" (DC, DSA and DM's evaluation without augmentation), "dsa" (with it), "d4m", "rded", "rd3" (from secondary
        sources), "hard" (Minimax Diffusion's). `ddoq.protocols` has the values and their sources. d4m, rded and rd3
        need soft labels, hard takes none.
    teacher
        For soft labels online: a checkpoint of `ddoq teacher`, a folder with timm's config.json and weights, the name
        of a pretrained timm model, or a torch module; a sequence of them gives the mean of their logits.
    labels
        For soft labels that are stored: the folder that `ddoq label` made.
    test
        A test set: anything `ddoq.open_data` takes. Its classes are matched by name. None: no accuracy.
    seed
        Of the student's first weights, the order of the images and their views: with one seed all data sets have the
        same start.
    epochs
        Passes over the data. Default, here and below: the protocol's.
    batch_size
        Images per step; the last step of an epoch may have fewer. A student with batch statistics takes a single last
        image with the batch before.
    lr
        Learning rate, of which the protocol's schedule takes a share.
    momentum
        Momentum of SGD, first beta of Adam.
    weight_decay
        Weight decay of the optimiser.
    settings
        Any other field of `ddoq.recipe.Recipe` that is to differ from the protocol's, such as {"temperature": 4,
        "mix_weights": "base", "precision": "bfloat16", "channels_last": True, "accumulate": 4}.
    workers
        Processes that make the views ahead, on the CPU; the result does not depend on their number. 0: the views are
        made on the device; those of a GPU may differ in last bits.
    class_names
        Names of the classes of an (array, labels) pair in `test`, by label.
    device
        "auto" (a CUDA GPU if there is one), "cpu", "cuda", or a GPU by number such as "cuda:1".
    log
        A file for settings, some epochs and the result, one JSON object a line; written when training has ended.
    checkpoint
        A file for the student's weights, in safetensors format.
    progress
        Show a progress bar on stderr.

    Returns
    -------
    TrainResult
        Accuracy in percent, losses, the student.

    Raises
    ------
    ValueError
        Unknown student, protocol or device; values that do not fit; classes that do not match; a loss that is not
        finite.
    OSError
        A log or checkpoint that could not be written, found before training.

    Examples
    --------
    >>> import ddoq, numpy as np
    >>> images = np.repeat(np.array([0, 255], np.uint8), 4)[:, None, None] * np.eye(8, dtype=np.uint8)
    >>> data = ddoq.open_data((images, ["blank"] * 4 + ["line"] * 4))
    >>> ddoq.train(data, test=data, epochs=10, progress=False).accuracy
    100.0
    """
    place = torch_device(device)
    for path in (checkpoint, log):
        if path is not None:
            _check_writable(Path(path))
    data = TrainingSet.of(dataset)
    common = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    recipe = recipe_for(protocol, student, data, seed, {**(settings or {}), **common})
    targets, recipe = open_targets(teacher, labels, data, recipe, place)
    tested = None if test is None else open_test(test, data, class_names, side=recipe.test_side(data.size))
    left = checkpoint or log
    state = None if left is None else _state(Path(left))
    result = fit(
        recipe,
        data,
        tested,
        place=place,
        log=None if log is None else Path(log),
        targets=targets,
        workers=workers,
        state=state,
        progress=progress,
    )
    if checkpoint is not None:
        write_atomic(Path(checkpoint), _checkpoint(result, data))
    if state is not None:
        state.unlink(missing_ok=True)
    return result


def fit(
    recipe: Recipe,
    data: TrainingSet,
    test: HeldOut | None,
    *,
    place: torch.device,
    log: Path | None,
    progress: bool,
    targets: Targets | None = None,
    workers: int = 0,
    state: Path | None = None,
) -> TrainResult:
    """`train` on tensors: seed, build, fit, test, log.

    `state` is a file to go on from, which the caller removes; by default it lies beside the log while training lasts.
    """
    if log is not None:
        _check_writable(log)
    own = None if log is None or state is not None else _state(log)
    start = time.monotonic()
    init, order = (int(number) for number in seed_sequence(recipe.seed, "train").generate_state(2))
    settings = recipe.settings(data, test, place, None if targets is None else targets.facts)
    with deterministic(place), seeded(init, place):
        model = create_student(
            recipe.student, n_classes=len(data.class_names), channels=data.channels, image_size=data.size
        ).to(place)
        if recipe.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        descent = Descent(model, recipe, data, order, place, targets)
        descent.run(
            workers=workers,
            test=None if test is None else lambda: _accuracy(model, data, test, place),
            state=state or own,
            made_from=digest(settings),
            progress=progress,
        )
    checks = tuple(descent.checks)
    accuracy = checks[-1][1] if checks else None
    seconds = time.monotonic() - start
    result = TrainResult(accuracy, tuple(descent.losses), seconds, recipe, model, data.mean, data.std, checks)
    if log is not None:
        write_log(log, settings, result.losses, accuracy, seconds, checks)
    if own is not None:
        own.unlink(missing_ok=True)
    return result


def _state(path: Path) -> Path:
    """Where a training's state lies while it is not finished."""
    return path.with_name(f"{path.name}.state")


def _check_writable(path: Path) -> None:
    """Make the folder of a file that training is to leave; OSError if the file could not be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
    except OSError as error:
        raise OSError(error.errno, f"cannot write: {error.strerror}", str(path)) from error


@torch.inference_mode()
def _accuracy(model: nn.Module, data: TrainingSet, test: HeldOut, place: torch.device) -> float:
    """Percent of the test images whose greatest logit is that of their class."""
    normalise = Normalise(data.mean, data.std, place)
    size = block(test.images) if place.type == "cpu" else 1024
    right = torch.zeros((), dtype=torch.int64, device=place)
    for images, labels in zip(torch.split(test.images, size), torch.split(test.labels, size), strict=True):
        right += (model(normalise(images.to(place))).argmax(1) == labels.to(place)).sum()
    return 100 * right.item() / len(test.images)


def _checkpoint(result: TrainResult, data: TrainingSet) -> bytes:
    state = result.model.state_dict()
    tensors = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    facts = {
        "student": result.recipe.student,
        "class_names": list(data.class_names),
        "channels": data.channels,
        "image_size": data.size,
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
    }
    return safetensors.torch.save(tensors, metadata={"ddoq": json.dumps(facts, ensure_ascii=False)})
