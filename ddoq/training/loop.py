"""The loop that trains a student: views, their labels, the weighted loss, a step; what it needs to go on when killed.

The order of the images is a function of the seed, the views one of (seed, epoch, image): of the random streams only
torch's own, which dropout draws from, is part of the state. A state is that between two steps: one is written every
minute, and one at Ctrl-C.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from ddoq.machine.interrupts import uninterrupted
from ddoq.storage.steps import Steps
from ddoq.training.loss import WeightedLoss
from ddoq.training.recipe import Recipe
from ddoq.training.training_set import Normalise, TrainingSet
from ddoq.training.views import View, Views, view_batches

if TYPE_CHECKING:
    from ddoq.training.targets import Targets

# Pixels that go through a student at once on a CPU. The ConvNet's activations then stay below 32 MiB, where glibc keeps
# memory instead of giving it back: at 28 x 28 the page faults of larger blocks took a quarter of the time.
BLOCK_PIXELS = 1 << 15


class StudentSteps(Steps):
    """A student in training.

    Attributes
    ----------
    losses
        Mean weighted loss of each epoch done.
    checks
        Epochs, counted from 1, after which the student was tested, and the accuracy in percent.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        data: TrainingSet,
        order: int,
        device: torch.device,
        targets: Targets | None = None,
    ) -> None:
        super().__init__(model, _optimizer(model, recipe))
        self.recipe, self.data, self.device, self.targets = recipe, data, device, targets
        self.order = order
        self.losses: list[float] = []
        self.checks: list[tuple[int, float]] = []
        self.total = torch.zeros((), device=device)  # sum of the images' losses in this epoch
        self.buffers = list(model.buffers())  # statistics, which a pass changes before the weights change
        self.buffers_before = [buffer.clone() for buffer in self.buffers]
        # a student without batch statistics may see a batch in blocks: the gradients add up to the same
        self.statistics = any(isinstance(module, _BatchNorm) for module in model.modules())
        self.counts = _batch_counts(len(data.images), recipe.batch_size, self.statistics)
        self.labels, self.weights = data.labels.to(device), data.weights.to(device)
        self.normalise = Normalise(data.mean, data.std, device)
        self.hard = WeightedLoss()
        self.soft = None if targets is None else WeightedLoss(targets.kind, recipe.temperature)

    def run(
        self,
        *,
        workers: int = 0,
        test: Callable[[], float] | None = None,
        after_epoch: Callable[[int], None] | None = None,
        state: Path | None = None,
        made_from: str = "",
        progress: bool = True,
    ) -> None:
        """Train to the last epoch, testing where the recipe says so, from a state on disk if there is one.

        `after_epoch` is called with the number of epochs done. Ctrl-C leaves a state of the last whole step, and
        KeyboardInterrupt says so.
        """
        if state is not None:
            self.resume(state, made_from)
        try:
            for epoch, batches in self._epochs(workers, progress):
                for view in batches:
                    self.step(partial(self._gradients, view.to(self.device)), self._note)
                    if state is not None:
                        self.save_when_due(state, made_from)
                self._end(epoch, test)
                if after_epoch is not None:
                    after_epoch(epoch + 1)
        except KeyboardInterrupt as interrupt:
            if state is not None and self.rescue(state, made_from):
                interrupt.args = (f"{self.steps} of {self.recipe.epochs * len(self.counts)} steps are kept",)
            raise
        self.optimizer.zero_grad()  # the caller's model comes without the last gradients
        self.model.eval()

    def _epochs(self, workers: int, progress: bool) -> Iterator[tuple[int, Iterator[View]]]:
        """The epochs that are left, each with the views of the steps that are left of it, at its learning rate."""
        recipe, first = self.recipe, len(self.losses)
        # with workers the views are made ahead, on the CPU
        views = Views(self.data, recipe, self.device if workers == 0 else torch.device("cpu"))
        batches = view_batches(views, islice(self._plan(), self.steps, None), workers)
        with tqdm(
            initial=first,
            total=recipe.epochs,
            desc=f"train {recipe.student}",
            unit="epoch",
            leave=False,
            disable=not progress,
        ) as bar:
            for epoch in range(first, recipe.epochs):
                for group in self.optimizer.param_groups:
                    group["lr"] = recipe.lr_at(epoch)
                yield epoch, islice(batches, (epoch + 1) * len(self.counts) - self.steps)
                bar.set_postfix(loss=f"{self.losses[-1]:.3f}", refresh=False)
                bar.update()

    def _end(self, epoch: int, test: Callable[[], float] | None) -> None:
        """End an epoch: its loss, and a look at the test set where the recipe has one."""
        recipe, loss = self.recipe, self.total.item() / len(self.data.images)
        if not math.isfinite(loss):
            raise ValueError(
                f"training {recipe.student} stopped: the loss is {loss} in epoch {epoch + 1} of "
                f"{recipe.epochs} (lr {recipe.lr}, seed {recipe.seed}); lower lr"
            )
        checks = []
        if test is not None and recipe.tests_after(epoch):
            self.model.eval()
            checks = [(epoch + 1, test())]
            self.model.train()
        with uninterrupted():
            self.losses.append(loss)
            self.checks += checks
            self.total.zero_()

    def _plan(self) -> Iterator[tuple[int, Tensor]]:
        """For each step the epoch of its views, and its images."""
        generator = torch.Generator().manual_seed(self.order)
        for epoch in range(self.recipe.epochs):
            order = torch.randperm(len(self.data.images), generator=generator)
            seen = self.recipe.view_epoch(epoch)
            yield from ((seen, batch) for batch in torch.split(order, self.counts))

    def _gradients(self, view: View) -> Tensor:
        """The gradients of a batch's mean weighted loss are the model's; the sum of its images' losses."""
        total = torch.zeros((), device=self.device)
        self.optimizer.zero_grad()
        for part in self._parts(view):
            loss = self._loss(part) * (len(part) / len(view))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach() * len(view)
        return total

    def _parts(self, view: View) -> Iterator[View]:
        """A batch in the parts that go through the student."""
        size = -(-len(view) // self.recipe.accumulate)
        if self.statistics:
            size = max(2, size)
        elif self.device.type == "cpu":
            size = min(size, block(view.images))
        counts = _batch_counts(len(view), size, self.statistics)
        begin = 0
        for count in counts:
            yield view.part(begin, begin + count)
            begin += count

    def _loss(self, view: View) -> Tensor:
        """Mean weighted loss of some images: the divisor is their number, never the sum of their weights."""
        images = self.normalise(view.images)
        if self.recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            logits = self.model(images)
        weights = self.weights[view.index]
        share, partner = view.share, view.partner
        if share is not None and self.recipe.mix_weights == "mixed":
            weights = share * weights + (1 - share) * self.weights[partner]
        if self.targets is not None and self.soft is not None:
            loss: Tensor = self.soft(logits, self.targets(view), weights)
            return loss
        loss = self.hard(logits, self.labels[view.index], weights if share is None else weights * share)
        if share is not None:
            loss = loss + self.hard(logits, self.labels[partner], weights * (1 - share))
        return loss

    def _note(self, total: Tensor) -> None:
        self.total += total

    def snapshot(self) -> dict[str, Tensor]:
        """The states of torch's random streams; the buffers are copied beside."""
        if self.buffers:
            torch._foreach_copy_(self.buffers_before, self.buffers)
        states = {"random": torch.random.get_rng_state()}
        if self.device.type == "cuda":
            states["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def restore(self, before: dict[str, Tensor]) -> None:
        """Put buffers and streams back."""
        for buffer, value in zip(self.buffers, self.buffers_before, strict=True):
            buffer.copy_(value)
        self._set_random(before)

    def _set_random(self, states: Mapping[str, Tensor]) -> None:
        torch.random.set_rng_state(states["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states["random.cuda"], self.device)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Losses, looks at the test set, the running total and the random streams."""
        tensors = {"losses": torch.tensor(self.losses, dtype=torch.float64), "total": self.total}
        tensors["checks"] = torch.tensor(self.checks, dtype=torch.float64).reshape(-1, 2)
        return tensors | self.snapshot(), {}

    def take_over(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on from them."""
        self.losses = tensors["losses"].tolist()
        self.checks = [(int(epoch), accuracy) for epoch, accuracy in tensors["checks"].tolist()]
        self.total.copy_(tensors["total"])
        self._set_random(tensors)


def block(images: Tensor) -> int:
    """Images that go through a network at once on a CPU."""
    return max(1, BLOCK_PIXELS // (images.shape[-1] * images.shape[-2]))


def _batch_counts(n: int, size: int, statistics: bool) -> list[int]:
    """Images of each batch; a single last image, which has no batch statistics, joins the batch before.

    >>> _batch_counts(9, 4, False), _batch_counts(9, 4, True)
    ([4, 4, 1], [4, 5])
    """
    counts = [size] * (n // size) + ([n % size] if n % size else [])
    if statistics and len(counts) > 1 and counts[-1] == 1:
        counts[-2:] = [counts[-2] + 1]
    return counts


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser; with `decay_1d` off only weights of two dimensions and more decay."""
    groups: list[dict[str, object]] = [{"params": list(model.parameters())}]
    if not recipe.decay_1d:
        decayed = [p for name, p in model.named_parameters() if "weight" in name and p.ndim > 1]
        decayed_ids = set(map(id, decayed))
        others = [p for p in model.parameters() if id(p) not in decayed_ids]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, recipe.lr, (recipe.momentum, 0.999), weight_decay=recipe.weight_decay)
