"""The loop that trains a student: views, their labels, the weighted loss, a step; what it needs to go on when killed.

The order of the images is a function of the seed, the views one of (seed, epoch, image): of the random streams only
torch's own, which dropout draws from, is part of the state. A state is that between two steps: one is written every
minute, and one at Ctrl-C.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from ddoq.machine.interrupts import uninterrupted
from ddoq.storage.tensors import below, read_tensors, write_tensors
from ddoq.training.loss import WeightedLoss
from ddoq.training.recipe import Recipe
from ddoq.training.training_set import Normalise, TrainingSet
from ddoq.training.views import View, Views, view_batches

if TYPE_CHECKING:
    from ddoq.training.targets import Targets

# Pixels that go through a student at once on a CPU. The ConvNet's activations then stay below 32 MiB, where glibc keeps
# memory instead of giving it back: at 28 x 28 the page faults of larger blocks took a quarter of the time.
BLOCK_PIXELS = 1 << 15
STATE_SECONDS = 60.0  # between two states on disk; what is lost at most


class Descent:
    """A student in training.

    Attributes
    ----------
    losses
        Mean weighted loss of each epoch done.
    checks
        Epochs, counted from 1, after which the student was tested, and the accuracy in percent.
    steps
        Steps of the optimiser done.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        data: TrainingSet,
        order: int,
        place: torch.device,
        targets: Targets | None = None,
    ) -> None:
        self.model, self.recipe, self.data, self.place, self.targets = model, recipe, data, place, targets
        self.order = order
        self.optimizer = _optimizer(model, recipe)
        self.losses: list[float] = []
        self.checks: list[tuple[int, float]] = []
        self.steps = 0
        self.total = torch.zeros((), device=place)  # sum of the images' losses in this epoch
        self.whole = True  # not where an error came while weights changed
        self.buffers = list(model.buffers())  # statistics, which a pass changes before the weights change
        self.kept = [buffer.clone() for buffer in self.buffers]
        # a student without batch statistics may see a batch in blocks: the gradients add up to the same
        self.statistics = any(isinstance(module, _BatchNorm) for module in model.modules())
        self.counts = _batch_counts(len(data.images), recipe.batch_size, self.statistics)
        self.labels, self.weights = data.labels.to(place), data.weights.to(place)
        self.normalise = Normalise(data.mean, data.std, place)
        self.hard = WeightedLoss()
        self.soft = None if targets is None else WeightedLoss(targets.kind, recipe.temperature)

    def run(
        self,
        *,
        workers: int = 0,
        test: Callable[[], float] | None = None,
        state: Path | None = None,
        made_from: str = "",
        progress: bool = True,
    ) -> None:
        """Train to the last epoch, testing where the recipe says so, from a state on disk if there is one.

        Ctrl-C leaves a state of the last whole step, and KeyboardInterrupt says so.
        """
        if state is not None:
            self._resume(state, made_from)
        try:
            self._epochs(workers, test, state, made_from, progress)
        except KeyboardInterrupt as interrupt:
            if state is not None and self.steps and self.whole:
                self._save(state, made_from)
                interrupt.args = (f"{self.steps} of {self.recipe.epochs * len(self.counts)} steps are kept",)
            raise
        self.optimizer.zero_grad()  # the caller's model comes without the last gradients
        self.model.eval()

    def _epochs(
        self, workers: int, test: Callable[[], float] | None, state: Path | None, made_from: str, progress: bool
    ) -> None:
        """The steps and tests that are left."""
        recipe, first, saved = self.recipe, len(self.losses), time.monotonic()
        # with workers the views are made ahead, on the CPU
        views = Views(self.data, recipe, self.place if workers == 0 else torch.device("cpu"))
        batches = view_batches(views, islice(self._plan(), self.steps, None), workers)
        bar = tqdm(
            range(first, recipe.epochs),
            initial=first,
            total=recipe.epochs,
            desc=f"train {recipe.student}",
            unit="epoch",
            leave=False,
            disable=not progress,
        )
        for epoch in bar:
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.lr_at(epoch)
            while self.steps < (epoch + 1) * len(self.counts):
                self._step(next(batches).to(self.place))
                if state is not None and time.monotonic() - saved >= STATE_SECONDS:
                    self._save(state, made_from)
                    saved = time.monotonic()
            loss = self.total.item() / len(self.data.images)
            if not math.isfinite(loss):
                raise ValueError(
                    f"training {recipe.student} stopped: the loss is {loss} in epoch {epoch + 1} of "
                    f"{recipe.epochs} (lr {recipe.lr}, seed {recipe.seed}); lower lr"
                )
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            look = []
            if test is not None and recipe.tests_after(epoch):
                self.model.eval()
                look = [(epoch + 1, test())]
                self.model.train()
            with uninterrupted():
                self.losses.append(loss)
                self.checks += look
                self.total.zero_()

    def _plan(self) -> Iterator[tuple[int, Tensor]]:
        """For each step the epoch of its views, and its images."""
        generator = torch.Generator().manual_seed(self.order)
        for epoch in range(self.recipe.epochs):
            order = torch.randperm(len(self.data.images), generator=generator)
            seen = self.recipe.view_epoch(epoch)
            yield from ((seen, batch) for batch in torch.split(order, self.counts))

    def _step(self, view: View) -> None:
        """One step of the optimiser; an error before the weights change leaves all that a state holds as it was."""
        done, random = self.steps, self._random()
        if self.buffers:
            torch._foreach_copy_(self.kept, self.buffers)
        try:
            total = self._gradients(view)
            with uninterrupted():
                self.whole = False
                self.optimizer.step()
                self.total += total
                self.steps += 1
                self.whole = True
        except BaseException:
            if self.steps == done:
                with uninterrupted():  # a second Ctrl-C: run would keep what is restored by half
                    for buffer, value in zip(self.buffers, self.kept, strict=True):
                        buffer.copy_(value)
                    self._set_random(random)
            raise

    def _gradients(self, view: View) -> Tensor:
        """The gradients of a batch's mean weighted loss are the model's; the sum of its images' losses."""
        total = torch.zeros((), device=self.place)
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
        elif self.place.type == "cpu":
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
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
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

    def _random(self) -> dict[str, Tensor]:
        """The states of torch's random streams."""
        states = {"random": torch.random.get_rng_state()}
        if self.place.type == "cuda":
            states["random.cuda"] = torch.cuda.get_rng_state(self.place)
        return states

    def _set_random(self, states: Mapping[str, Tensor]) -> None:
        torch.random.set_rng_state(states["random"])
        if self.place.type == "cuda":
            torch.cuda.set_rng_state(states["random.cuda"], self.place)

    def _save(self, path: Path, made_from: str) -> None:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items() if value is not None}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        tensors["checks"] = torch.tensor(self.checks, dtype=torch.float64).reshape(-1, 2)
        tensors |= {"total": self.total, "steps": torch.tensor(self.steps), **self._random()}
        write_tensors(path, tensors, made_from, {})

    def _resume(self, path: Path, made_from: str) -> None:
        """Go on from a state, if there is one of this very training."""
        found = read_tensors(path, made_from)
        if found is None:
            return
        tensors = found[0]
        self.model.load_state_dict(below("model.", tensors))
        values: dict[int, dict[str, Tensor]] = {}
        for key, tensor in below("optimizer.", tensors).items():
            number, _, name = key.partition(".")
            values.setdefault(int(number), {})[name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": values})
        self.losses = tensors["losses"].tolist()
        self.checks = [(int(epoch), accuracy) for epoch, accuracy in tensors["checks"].tolist()]
        self.total.copy_(tensors["total"])
        self.steps = int(tensors["steps"])
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
        chosen = set(map(id, decayed))
        others = [p for p in model.parameters() if id(p) not in chosen]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, recipe.lr, (recipe.momentum, 0.999), weight_decay=recipe.weight_decay)
