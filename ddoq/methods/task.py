"""A task is what every method of distillation is given; a `Method` says how one is called and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddoq.data.image_data import ImageData
from ddoq.data.weights import WEIGHTINGS, ClassPrior, Weighting
from ddoq.stages.results import Style
from ddoq.storage.run import Run


@dataclass(frozen=True)
class Method:
    """A method of distillation: a dataclass of its options, and the function that makes images by them.

    Attributes
    ----------
    name
        As `distill(method=...)` takes it.
    options
        A frozen dataclass; the section "Parameters" of its docstring has a text for each field.
    make
        Called with a `Task` and such options; it makes the images and writes them into the run folder.
    weightings
        The weightings that its images can have; the first is the default.
    image_size, output_size
        Sides in pixels where the user gives none; None: those of `distill`.
    takes_teacher
        Whether it uses `distill(teacher=...)`.
    note
        A sentence that stands wherever the name shows, such as that its settings are a reconstruction.
    """

    name: str
    options: type[Any]
    make: Callable[[Task, Any], None]
    weightings: tuple[Weighting, ...] = WEIGHTINGS
    image_size: int | None = None
    output_size: int | None = None
    takes_teacher: bool = False
    note: str = ""

    @property
    def made_by(self) -> str:
        """The maker of the images, for their dataset card."""
        label = f"{self.name} ({self.note})" if self.note else self.name
        return "ddoq" if self.name == "ddoq" else f"ddoq with method {label}"


@dataclass(frozen=True)
class Task:
    """The arguments that all methods share, checked.

    Attributes
    ----------
    method
        Which one it is for.
    data
        The opened data set, at `image_size` or at a size of its own choice.
    out
        The run folder, which may not be there yet; see `run`.
    ipc
        Images per class: no class of the data has fewer.
    weighting, class_prior
        How the weights are made of the counts (see `ddoq.data.weights`).
    image_size, output_size
        Sides in pixels that were asked for, of the images that the method works with and of those that are written.
    teacher
        A trained network, or what one is opened from; None for methods that take none.
    seed
        Every random stream is spawned from it, by a text of the stage, class and image.
    device, n_threads, progress
        Where torch computes; threads of the quantiser (None: all); whether progress bars are shown.
    """

    method: Method
    data: ImageData
    out: Path
    ipc: int
    weighting: Weighting
    class_prior: ClassPrior
    image_size: int | None
    output_size: int | None
    teacher: Any
    seed: int
    device: torch.device
    n_threads: int | None
    progress: bool

    def config(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What run.json has as the configuration: all that decides the result.

        `options` are the method's own, as JSON's plain values; models stand there by their fingerprints.
        """
        return {
            "method": self.method.name,
            "data": self.data.fingerprint,
            "image_size": self.data.image_size,
            "channels": self.data.channels,
            "ipc": self.ipc,
            "weighting": self.weighting,
            "class_prior": self.class_prior,
            "output_size": self.output_size,
            "seed": self.seed,
            "options": dict(options),
        }

    @property
    def style(self) -> Style:
        """How the images are written."""
        made_by, note = self.method.made_by, self.method.note
        return Style(self.weighting, self.class_prior, self.output_size, made_by, note)

    def run(self, options: Mapping[str, Any]) -> AbstractContextManager[Run]:
        """Make or resume the run folder for a configuration, and keep other processes out until the block ends."""
        return Run.locked(self.out, self.config(options), self.data.class_names)
