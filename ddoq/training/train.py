"""Trains a student on a weighted data set, under a protocol that is named."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddoq.data.distilled import DistilledDataset
from ddoq.data.image_data import ImageData
from ddoq.machine.device import deterministic, torch_device
from ddoq.machine.streams import seed_sequence, seeded
from ddoq.storage.files import check_writable
from ddoq.storage.values import digest
from ddoq.training.checkpoint import find_checkpoint, write_checkpoint
from ddoq.training.log import write_log
from ddoq.training.loop import StudentSteps, block
from ddoq.training.protocols import FEWEST_STEPS, ProtocolName, changes_of, recipe_for
from ddoq.training.recipe import Recipe as Recipe
from ddoq.training.students import create_student
from ddoq.training.targets import Targets, open_targets
from ddoq.training.training_set import HeldOut, Normalise, TrainingSet, open_test


@dataclass(frozen=True)
class TrainResult:
    """A trained student, its `model`, and what came of it.

    Attributes
    ----------
    model
        The student itself: the torch module, in evaluation mode, on the device that it was trained on. It takes images
        on the scale of [0, 1] less `mean`, divided by `std` (c,), and gives logits in the order of the set's classes.
    accuracy
        Percent of the test images that are right after the last epoch; None without a test set.
    checks
        Epochs, counted from 1, after which the protocol looks at the test set, and the accuracies; the last among them.
    losses
        Mean weighted loss of each epoch.
    steps
        Steps of the optimiser.
    seconds
        Time of training and testing, by this call.
    recipe
        What it was trained with.
    found
        The checkpoint that it was found in, where nothing was trained.
    """

    accuracy: float | None
    losses: tuple[float, ...]
    steps: int
    seconds: float
    recipe: Recipe
    model: nn.Module
    mean: Tensor
    std: Tensor
    checks: tuple[tuple[int, float], ...] = ()
    found: Path | None = None

    @property
    def best(self) -> float | None:
        """The greatest of `checks`, chosen by the test set: for comparison with results that are such."""
        return max((accuracy for _, accuracy in self.checks), default=None)

    def __str__(self) -> str:
        right = "not tested" if self.accuracy is None else f"{self.accuracy:.2f} % of the test images right"
        if len(self.checks) > 1:
            right += f" (best of {len(self.checks)} looks {self.best:.2f} %)"
        recipe = self.recipe
        steps = f"{self.steps} step{'s' * (self.steps != 1)}"
        if self.steps < FEWEST_STEPS:
            steps += f", few: published protocols make {FEWEST_STEPS} and more"
        took = f"{self.seconds:.0f} s" if self.found is None else f"found in {self.found}: nothing was trained"
        return (
            f"{recipe.student}, protocol {recipe.protocol}, seed {recipe.seed}: {right} after the last of "
            f"{recipe.epochs} epochs ({steps}), loss {self.losses[-1]:.4f}, {took}"
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
        sources), "hard" (Minimax Diffusion's). `ddoq.training.protocols` has values and sources. d4m, rded and
        rd3 need soft labels, hard takes none.
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
        Passes over the data. Default, here and below: the protocol's. A few epochs of a few images are too few steps
        for most protocols' rates: the result says how many were made.
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
        Any other field of `ddoq.training.recipe.Recipe` that is to differ from the protocol's, such as
        {"temperature": 4, "mix_weights": "base", "precision": "bfloat16", "channels_last": True, "accumulate": 4}.
    workers
        Processes that make the views ahead, on the CPU; the result does not depend on their number. 0: the views are
        made on the device; those of a GPU may differ in last bits.
    class_names
        Names of the classes of an (array, labels) pair in `test`, by label.
    device
        "auto" (a CUDA GPU if there is one), "cpu", "cuda", or a GPU by number such as "cuda:1".
    log
        A file for settings, some epochs and the result, one JSON object a line; written when training has ended, and
        not where the student was found in `checkpoint`.
    checkpoint
        A file for the student's weights, in safetensors format. One that is there with the same settings is read
        instead of training again, and tested; one with others, or any other file, is an error and left alone.
    progress
        Show a progress bar on stderr.

    Returns
    -------
    TrainResult
        The student as `model`, its accuracy in percent, losses.

    Raises
    ------
    ValueError
        Unknown student, protocol or device; values that do not fit; classes that do not match; a loss that is not
        finite.
    OSError
        A log or checkpoint that could not be written, found before training.
    ddoq.RunError
        A checkpoint that is there and is of other settings (which are named), damaged or no student's.

    Examples
    --------
    >>> import ddoq, numpy as np
    >>> images = np.repeat(np.array([0, 255], np.uint8), 4)[:, None, None] * np.eye(8, dtype=np.uint8)
    >>> data = ddoq.open_data((images, ["blank"] * 4 + ["line"] * 4))
    >>> ddoq.train(data, test=data, epochs=10, progress=False).accuracy
    100.0
    """
    on_device = torch_device(device)
    checkpoint, log = (None if path is None else Path(path) for path in (checkpoint, log))
    check_writable(checkpoint, log)
    data = TrainingSet.of(dataset)
    common = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    recipe = recipe_for(protocol, student, data, seed, changes_of(settings, **common))
    targets, recipe = open_targets(teacher, labels, data, recipe, on_device)
    tested = None if test is None else open_test(test, data, class_names, side=recipe.test_side(data.size))
    if progress and tested is not None and tested.note:
        print(tested.note, file=sys.stderr)
    return fit(
        recipe,
        data,
        tested,
        device=on_device,
        log=log,
        checkpoint=checkpoint,
        targets=targets,
        workers=workers,
        progress=progress,
    )


def fit(
    recipe: Recipe,
    data: TrainingSet,
    test: HeldOut | None,
    *,
    device: torch.device,
    log: Path | None,
    progress: bool,
    checkpoint: Path | None = None,
    targets: Targets | None = None,
    workers: int = 0,
) -> TrainResult:
    """`train` on tensors: seed, build, fit or find, test, write.

    While a training lasts, its state lies beside the file that it is to leave.
    """
    check_writable(checkpoint, log)
    left = checkpoint or log
    state = None if left is None else left.with_name(f"{left.name}.state")
    start = time.monotonic()
    init, order = (int(number) for number in seed_sequence(recipe.seed, "train").generate_state(2))
    settings = recipe.settings(data, test, device, None if targets is None else targets.facts)
    checkpoint_found = None if checkpoint is None else find_checkpoint(checkpoint, settings)
    with deterministic(device), seeded(init, device):
        model = create_student(
            recipe.student, n_classes=len(data.class_names), channels=data.channels, image_size=data.size
        ).to(device)
        if recipe.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        tested = None if test is None else lambda: _accuracy(model, data, test, device)
        if checkpoint_found is None:
            training = StudentSteps(model, recipe, data, order, device, targets)
            training.run(workers=workers, test=tested, state=state, made_from=digest(settings), progress=progress)
            losses, checks, steps = training.losses, training.checks, training.steps
        else:
            losses, checks, steps = _reopened(checkpoint_found, model, settings, tested)
    accuracy = checks[-1][1] if checks else None
    seconds, where = time.monotonic() - start, None if checkpoint_found is None else checkpoint
    rest: dict[str, Any] = {"mean": data.mean, "std": data.std, "checks": tuple(checks), "found": where}
    result = TrainResult(accuracy, tuple(losses), steps, seconds, recipe, model, **rest)
    if log is not None and checkpoint_found is None:
        write_log(log, settings, result.losses, accuracy, steps, seconds, checks)
    if checkpoint is not None and checkpoint_found is None:
        write_checkpoint(checkpoint, model, {**_facts(result, data), "settings": settings})
    if state is not None:
        state.unlink(missing_ok=True)
    return result


def _reopened(
    stored: tuple[Mapping[str, Tensor], Mapping[str, Any]],
    model: nn.Module,
    settings: Mapping[str, Any],
    test: Callable[[], float] | None,
) -> tuple[list[float], list[tuple[int, float]], int]:
    """Losses, looks at the test set and steps of a student that was found, whose weights the model takes over."""
    tensors, facts = stored
    model.load_state_dict(tensors)
    model.eval()
    losses, checks = facts["losses"], [(epoch, accuracy) for epoch, accuracy in facts["checks"]]
    if any(facts["settings"][name] != settings[name] for name in ("test_set", "check_from")):
        checks = [] if test is None else [(len(losses), test())]
    return losses, checks, facts["steps"]


@torch.inference_mode()
def _accuracy(model: nn.Module, data: TrainingSet, test: HeldOut, device: torch.device) -> float:
    """Percent of the test images whose greatest logit is that of their class."""
    normalise = Normalise(data.mean, data.std, device)
    size = block(test.images) if device.type == "cpu" else 1024
    right = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in zip(torch.split(test.images, size), torch.split(test.labels, size), strict=True):
        right += (model(normalise(images.to(device))).argmax(1) == labels.to(device)).sum()
    return 100 * right.item() / len(test.images)


def _facts(result: TrainResult, data: TrainingSet) -> dict[str, Any]:
    """What a checkpoint says of its student."""
    return {
        "student": result.recipe.student,
        "class_names": list(data.class_names),
        "channels": data.channels,
        "image_size": data.size,
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        "losses": result.losses,
        "checks": result.checks,
        "steps": result.steps,
    }
