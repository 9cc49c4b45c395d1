"""Trains students on every set with every weighting under one protocol, and tabulates the last epochs.

    sets        random subsets, fresh for each training; the runs' images, by synthesis; folders of images; all images
                of the full data set
    weightings  "uniform", "density", "sqrt", "reencoded"; where they are the same numbers (one image per class), once,
                as "any"
    seeds       of the students; those of the distillations are the runs'

One log per training, `<run>/train/test-<hash>/<set>-<images>-<weighting>-<student>-<protocol>-seed<k>.jsonl`, with the
hash of the test set; in a folder that is no run `.train/`, which is hidden. A log that is whole and was made with the
same settings (the data's hashes, versions, device and threads among them) is read instead of training again. The table
stays beside the logs, as evaluation.json, and gathers the rows of all calls on that test set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ddoq.data.distilled import DistilledDataset
from ddoq.data.weights import Weighting
from ddoq.evaluation.gradients import Agreement, gradient_agreement, log_name as gradient_log_name
from ddoq.evaluation.logs import HIDDEN, TABLE, by_test_set, log_name
from ddoq.evaluation.plan import Compared, Entry, Given, full_entries, open_compared
from ddoq.evaluation.table import ANY, FULL, Evaluation as Evaluation, Row as Row, stored
from ddoq.machine.device import torch_device
from ddoq.training.log import logged_accuracies
from ddoq.training.protocols import FEWEST_STEPS, ProtocolName, changes_of, recipe_for
from ddoq.training.recipe import Recipe
from ddoq.training.students import create_student
from ddoq.training.targets import Folders, Targets, on_views_of, open_targets
from ddoq.training.teacher import Teacher, open_teacher
from ddoq.training.train import fit
from ddoq.training.training_set import HeldOut, TrainingSet, open_test


def evaluate(
    run: Given | Sequence[Given] | Mapping[str, Given | Sequence[Given]],
    test: Any,
    *,
    data: Any = None,
    full_data: bool = False,
    gradients: int | None = None,
    students: Sequence[str] = ("convnet3",),
    weightings: Sequence[Weighting] = ("uniform", "density"),
    seeds: int = 3,
    protocol: ProtocolName = "dc",
    teacher: Any = None,
    labels: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: int = 0,
    class_names: Sequence[str] | None = None,
    logs: Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Evaluation:
    """Train students on distilled sets and tabulate their accuracies on a test set: last epoch, mean, deviation, n.

    Every row names its protocol, with what differs from it. Called again, it reads the trainings that are done.

    The rows of this call are returned. The table in the run, evaluation.json, of which `ddoq report` shows
    the one written last, gathers those of all calls on one test set: a row replaces that of the same images, weighting,
    student and protocol. Weights on are compared with off only where both rows are of the same distillations and seeds.

    Parameters
    ----------
    run
        A run folder, of which the images and every control are rows. Several, made with other seeds or `ipc`: those
        that differ in the seed alone are distillations of one set, over which the table gives intervals. Any folder of
        class folders, which has no weights. Or these (of a run, its images alone) and distilled sets by name:
        `{"lloyd": [run, run], "mine": folder}`.
    test
        A test set: anything `ddoq.open_data` takes. Its classes are matched by name. Images of another size, or grey
        instead of in colour, are converted, and a note says so.
    data
        The full data set. Given: a row of random subsets with as many images per class, drawn anew for each training,
        weights uniform; and with it the improvement over random (IOR).
    full_data
        Also a row of all images of `data`, with the same number of epochs: slow. With it the hard label recovery (HLR).
    gradients
        Also measure, every so many epochs, how far the gradient on each set is from that on `data`, under every
        weighting (`ddoq.evaluation.gradients`): one more training per distillation and student, whose log
        `ddoq.report` draws.
    students
        "convnet3", "convnet4" or names of timm models.
    weightings
        "uniform", "density", "sqrt", "reencoded": a row each. Where they give the same weights, one row, called "any".
    seeds
        Trainings per distillation, with seeds 0, 1, ...
    protocol
        "dc", "dsa", "d4m", "rded", "rd3" or "hard": see `ddoq.training.protocols`. All images of `data` have the
        recipe of the first set.
    teacher
        For soft labels, of the random images too: a checkpoint of `ddoq teacher`, a folder with timm's config.json and
        weights, the name of a pretrained timm model, or a torch module; several are averaged.
    labels
        A folder of `ddoq.label`, or one for each of several sets and distillations, all by one teacher of the same
        views. A set trains on those of its own images. Random images and sets without a folder need `teacher` too,
        the one that made the labels, for whole labels of the same views online: rows of top-k labels, which are not
        whole, have no improvement over random.
    epochs
        Passes over a set. Default, here and below: the protocol's.
    batch_size
        Images per step.
    lr
        Learning rate, of which the protocol's schedule takes a share.
    settings
        Other settings that are to differ from the protocol's, as for `ddoq.train`.
    workers
        Processes that make the views ahead, as for `ddoq.train`.
    class_names
        Names of the classes of (array, labels) pairs in `test` and `data`, by label.
    logs
        Folder for the table and one log per training, those of each distillation in a folder named by its images.
        Default: `train/` in each run folder, `.train/`, which is hidden, in any other, and none for sets in memory.
    device
        "auto" (a CUDA GPU if there is one), "cpu", "cuda", or a GPU by number such as "cuda:1".
    progress
        Show progress bars on stderr.

    Returns
    -------
    Evaluation
        `print` shows the table, `save(path)` writes it as JSON, CSV or LaTeX.

    Raises
    ------
    ValueError
        Classes of which one set lacks one, by name; runs that are not distillations of one set; an unknown student,
        weighting or device; no image to draw; stored labels of other images, or that are missing without a teacher.
    ddoq.RunError
        A damaged or unfinished run.

    Examples
    --------
    >>> runs = ["runs/seed0", "runs/seed1", "runs/seed2"]
    >>> print(ddoq.evaluate(runs, (test_images, test_labels), data=(images, labels)))   # doctest: +SKIP
    """
    if isinstance(students, str) or isinstance(weightings, str):
        raise TypeError("students and weightings are sequences of names, such as ('convnet3',)")
    if seeds < 1 or not students or not weightings:
        raise ValueError(f"nothing to train: seeds={seeds}, students={students}, weightings={weightings}")
    if full_data and data is None:
        raise ValueError("full_data=True needs data, the full data set")
    if gradients is not None and (data is None or gradients < 1):
        raise ValueError("gradients, a number of epochs of at least 1, needs data, the full data set")
    if gradients is not None and protocol != "dc":
        raise ValueError("gradients are measured along protocol 'dc' alone")
    on_device = torch_device(device)
    common = None if logs is None else Path(logs)
    sets = open_compared(run, common)
    first = sets[0].first
    for student in students:  # a wrong name is found now, not after hours
        with torch.random.fork_rng([]):
            create_student(student, n_classes=len(first.class_names), channels=first.channels, image_size=first.size)
    changes = changes_of(settings, epochs=epochs, batch_size=batch_size, lr=lr)
    usual = recipe_for(protocol, students[0], first, 0, changes)
    tested = open_test(test, first, class_names, side=usual.test_side(first.size))
    opened = None if teacher is None else open_teacher(teacher, first, on_device)
    folders = Folders(labels)
    _check_labels(folders, opened, sets, random=data is not None)
    plan = [] if data is None else list(full_entries(sets, data, full_data, class_names, seeds, common))
    plan += [entry for group in sets for entry in group.entries(weightings, seeds)]
    least = min(entry.images for entry in plan)
    plan.sort(key=lambda entry: least if entry.name == FULL else entry.images)
    trainer = Trainer(protocol, changes, opened, folders, first, on_device, workers, progress)
    total = len(students) * sum(len(group) for entry in plan for group in entry.trainings)
    with tqdm(total=total, desc="evaluate", unit="training", disable=not progress) as bar:
        rows = [trainer.row(entry, student, tested, bar) for student in students for entry in plan]
    notes = [*filter(None, [tested.note]), *_notes(sets, plan, weightings)]
    if gradients is not None:
        measure = partial(
            gradient_agreement,
            data=data,
            weightings=weightings,
            every=gradients,
            class_names=class_names,
            device=device,
            epochs=usual.epochs,
            batch_size=usual.batch_size,
            lr=usual.lr,
            progress=progress,
        )
        how = f"batches of {usual.batch_size}, learning rate {usual.lr}"
        notes += [note for name in students for compared in sets for note in _gradients(compared, name, measure, how)]
    recipes = {len(each.first.images): recipe_for(protocol, students[0], each.first, 0, changes) for each in sets}
    notes += _few_steps({entry.images: recipes.get(entry.images, usual) for entry in plan})
    places = [common] if common else dict.fromkeys(f for each in sets for f in each.logs if f is not None)
    evaluation = Evaluation(tuple(rows), len(tested.images), tuple(notes), tested.source)
    for folder in places:
        table = by_test_set(folder, tested.source) / TABLE
        before = stored(table)
        table.parent.mkdir(parents=True, exist_ok=True)
        (evaluation if before is None else evaluation.gathered(before)).save(table)
    return evaluation


@dataclass(frozen=True)
class Trainer:
    """Makes the trainings of rows: the protocol and what differs from it, a teacher or stored labels, the first set.

    All images of the full data have the recipe of the first set.
    """

    protocol: str
    changes: Mapping[str, Any]
    teacher: Teacher | None
    labels: Folders
    first: TrainingSet
    device: torch.device
    workers: int
    progress: bool

    def row(self, entry: Entry, student: str, test: HeldOut, bar: Any) -> Row:
        """Make all trainings of a row."""
        bar.set_postfix_str(f"{entry.name}, {entry.weighting}, {student}")
        accuracies_of = []
        for training in [training for group in entry.trainings for training in group]:
            data = training.data()
            like = self.first if entry.name == FULL else data
            recipe = recipe_for(self.protocol, student, like, training.seed, self.changes)
            targets, recipe = self._targets(recipe, data)
            named = recipe.protocol
            if targets is not None:
                most = targets.facts.get("top_k")
                named += f", teacher {targets.facts['teacher']}" + (f", top {most}" if most else "")
                named += "" if recipe.view_seed is None else f", views of seed {recipe.view_seed}"
            log = None
            if training.logs is not None:
                name = log_name(entry.name, entry.images, entry.weighting, student, named, training.seed)
                log = by_test_set(training.logs, test.source) / name
            accuracies_of.append(self._accuracies(recipe, data, test, targets, log))
            bar.update()
        accuracies, bests = zip(*accuracies_of, strict=True)
        return Row(
            entry.name,
            entry.weighting,
            student,
            named,
            entry.images,
            accuracies,
            distillations=len(entry.trainings),
            labels=recipe.labels,
            bests=bests if recipe.check_from < 1 else (),
            images_hash=entry.images_hash,
        )

    def _targets(self, recipe: Recipe, data: TrainingSet) -> tuple[Targets | None, Recipe]:
        """Stored labels of a set's images; where there are none, the teacher's online, of the same views."""
        folder = self.labels.of.get(data.images_fingerprint) if self.labels.of else None
        if folder is None and self.labels.of:
            recipe = on_views_of(self.labels.about, recipe)
        return open_targets(None if folder else self.teacher, folder, data, recipe, self.device)

    def _accuracies(
        self, recipe: Recipe, data: TrainingSet, test: HeldOut, targets: Targets | None, log: Path | None
    ) -> tuple[float, float]:
        """Last and best accuracy of one training, read from its log if that is whole and of the same settings."""
        if log is not None:
            facts = None if targets is None else targets.facts
            logged = logged_accuracies(log, recipe.settings(data, test, self.device, facts))
            if logged is not None:
                return logged
        result = fit(
            recipe,
            data,
            test,
            device=self.device,
            log=log,
            targets=targets,
            workers=self.workers,
            progress=self.progress,
        )
        assert result.accuracy is not None
        assert result.best is not None
        return result.accuracy, result.best


def _check_labels(folders: Folders, teacher: Teacher | None, sets: Sequence[Compared], random: bool) -> None:
    """ValueError unless every folder of labels is of a set, and every set has its folders or a teacher."""
    if not folders.of:
        return
    if teacher is not None and teacher.name != folders.about["teacher"]:
        raise ValueError(f"the labels are by {folders.about['teacher']}, the teacher is {teacher.name}: give that one")
    lacking = ["random images"] * random
    seen = {fingerprint for compared in sets for fingerprint in compared.fingerprints}
    for fingerprint, folder in folders.of.items():
        if fingerprint not in seen:
            raise ValueError(f"the labels in {folder} are of the images of none of these sets")
    for compared in sets:
        without = sum(fingerprint not in folders.of for fingerprint in compared.fingerprints)
        if 0 < without < len(compared.members):
            raise ValueError(
                f"{without} of {len(compared.members)} distillations of {compared.name!r} have no stored labels: "
                "add them"
            )
        lacking += [f"{compared.name!r}"] * bool(without)
    if lacking and teacher is None:
        remedies = ["leave out data"] * random + ["make them (ddoq label --synthesis)"] * (len(lacking) > random)
        raise ValueError(
            f"there are no stored labels of {', '.join(lacking)}: give teacher too, the one that made the others, or "
            f"{' and '.join(remedies)}"
        )


def _notes(sets: Sequence[Compared], plan: Sequence[Entry], weightings: Sequence[str]) -> list[str]:
    notes = []
    for compared in sets:
        weighted = [member for member in compared.members if isinstance(member, DistilledDataset)]
        notes += [
            f"{compared.name}: method {member.method_label}"
            for member in weighted
            if member.method_label not in (None, compared.name)
        ]
        hidden = [folder for folder in compared.logs if folder is not None and folder.name == HIDDEN]
        notes += [f"{compared.name}: its logs and this table are in {folder.resolve()}" for folder in hidden]
    same = [entry.name for entry in plan if entry.weighting == ANY]
    if same:
        notes.append(f"any: {', '.join(same)} have the same weights under {', '.join(weightings)}; trained once")
    return list(dict.fromkeys(notes))


def _few_steps(recipes: Mapping[int, Recipe]) -> Iterator[str]:
    """Notes of the sets, by their numbers of images, whose students make fewer steps than any published protocol's."""
    for size, recipe in sorted(recipes.items()):
        steps = recipe.epochs * -(-size // recipe.batch_size)
        if steps < FEWEST_STEPS:
            few = f"{steps} steps of {size} images under {recipe.protocol}"
            yield f"{few} are few: published protocols make {FEWEST_STEPS} and more"


def _gradients(compared: Compared, student: str, measure: Callable[..., Agreement], how: str) -> Iterator[str]:
    """Measure the gradients of every distillation that has weights; a note for each."""
    for d, (member, logs) in enumerate(zip(compared.members, compared.logs, strict=True)):
        if isinstance(member, DistilledDataset):
            log = None if logs is None else logs / gradient_log_name(compared.name, len(member), student, 0)
            errors = measure(member, student=student, log=log)
            which = f", distillation {d + 1}" * (len(compared.members) > 1)
            yield f"{compared.name}{which}, {student}, {len(member)} images, {how}: {errors}"
