"""Where do weights help? {D4M's minibatch, Lloyd, Lloyd + Hartigan} points x weights, on five data sets, and teachers.

    python benchmarks/factorial.py WORK [--parts PART ...] [--minutes 90] [--workers 2]    # resumes row by row
    python benchmarks/factorial.py WORK --list                                  # what is done and what is missing

A row is one student's accuracy, or what a distillation's points measure: the weights' coefficient of variation, W2 of
the points (of the decoded images too, where the codec moves them), errors of gradients. Rows come in the order of use:
every cell once, then more distillations, then more students. Minibatch + density is DDOQ as published, minibatch +
uniform is D4M, without diffusion: points are decoded as they are, so that the quantiser and the weights alone differ.
Rows beside: random real images (a draw for each distillation), the nearest real image to each of Lloyd's points.
Accuracies are of the last epoch. IPC 10; 3 distillations, 2 students each; minutes are those of 2 cores (AMD EPYC,
Zen 4) by steps that were timed.

part              minutes  what
digits                  2  rows beside those of ablation.py: nearest real images, IPC 1
mnist                  25  quantised in pixels; ConvNet-3, protocol dc, 60 epochs; the first 3,000 test images
parity                 10  MNIST's even and odd digits, where the digits of each parity have masses 16:8:4:2:1, and 10
                           points a parity stand for them. Accuracy is that in the population of these masses, from
                           that of each digit; beside it stands the accuracy where all digits are equally frequent
cifar10               130  CIFAR-10 (JPEG), hard labels; TAEF2 at 64 px; ConvNet-3, protocol dc, 300 epochs
cifar10-soft          115  the same points, soft labels of ResNet-20; accuracy is by the true labels
cifar10-ipc50          70  four cells, 3 x 1, hard labels
imagenette             80  64 px, TAEF2; resnet18, soft labels of a resnet18 trained on all images, protocol rded with
                           100 epochs, 3 x 1
imagenette-ipc50       15  minibatch, two cells, 3 x 1, 40 epochs
teachers               45  Table 4 in small: teachers resnet18 and mobilenetv2, students resnet18, mobilenetv2 and
                           efficientnet_b0, minibatch points, weights on and off, 3 x 1; the rows of resnet18 by
                           resnet18 are imagenette's
teachers-112       GPU     the same at 112 px and with Swin; IPC 50 by resnet18
teachers-224       GPU     the same at 224 px, by resnet18

The convolutions of ConvNet-3 and resnet18 are in bfloat16, which AVX-512 BF16 makes twice as fast; every protocol's
name in the results says what differs from the published one. `--workers` are processes that share the rows; two of
one thread each (OMP_NUM_THREADS=1) do about a quarter more than one of two threads, and a GPU is busy only with many. A
row says its threads and the machine or GPU, on which the last bits depend. Results: results/factorial.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import safetensors.numpy
import torch
from cifar_resnet import CifarResNet
from common import RESULTS, data_dir, facts, load_result, save_result, waiting
from factorial_data import Images, by_mass, open_images
from factorial_plan import METHODS, RANDOM, Row, missing, parts

import ddoq
from ddoq.cli.demo import BATCH_SIZE, EPOCHS
from ddoq.data.distilled import DistilledDataset
from ddoq.evaluation.gradients import gradient_agreement
from ddoq.reporting.findings import spreads
from ddoq.stages.distances import class_distances
from ddoq.storage.run import Run
from ddoq.training.train_teacher import train_teacher
from ddoq.training.training_set import Normalise

HALF = {"precision": "bfloat16"}
NETTE: dict[str, Any] = {"protocol": "rded", "epochs": 100, "settings": {"check_from": 1.0, "channels_last": True}}
HOW: dict[str, dict[str, Any]] = {
    "digits": {"epochs": EPOCHS, "batch_size": BATCH_SIZE},
    "mnist": {"epochs": 60, "settings": HALF},
    "parity": {"epochs": 60, "settings": HALF},
    "cifar10": {"settings": HALF},
    "imagenette-64": NETTE,
    "imagenette-112": NETTE,
    "imagenette-224": NETTE,
}
EPOCHS_IPC50 = 40  # of ImageNette: as many steps as 100 epochs make at IPC 10
TEACHER_EPOCHS = 20
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FIRST = ("lloyd", 1, 0)  # method, IPC, distillation
# gradients early in training, in batches of IPC images: once the images are learnt by heart theirs is 0, the error 1
GRADIENTS = {"epochs": 6, "every": 2, "images_per_class": 64}


class Study:
    """A data set with its runs, models and logs in WORK."""

    def __init__(self, name: str, work: Path) -> None:
        self.name, self.work = name, work / name
        self.images: Images = open_images(name, work, DEVICE)
        self.opened = cache(self._opened)

    def find(self, row: Row) -> dict[str, Any]:
        if row.points == "teacher":
            return self.train_teacher(row.student)
        return self.accuracy(row) if row.student else self.measures(row)

    def run(self, method: str, ipc: int, distillation: int) -> Path:
        """The folder of a distillation; all have the latents of the first."""
        out, first = (self.work / f"{name}, ipc {k}, {d}" for name, k, d in ((method, ipc, distillation), FIRST))
        if out != first:
            self.run(*FIRST)
        options: dict[str, Any] = {"codec": self.images.codec, "synthesis": "decode", "controls": ("nearest",)}
        options.update(METHODS[method], latents=None if out == first else first, progress=False)
        with waiting(out):
            ddoq.distill(self.images.train, out, ipc=ipc, seed=distillation, **options)
        return out

    def _opened(self, points: str, ipc: int, distillation: int) -> DistilledDataset:
        if points in METHODS:
            return ddoq.load(self.run(points, ipc, distillation))
        small = ddoq.load(self.run("lloyd", ipc, distillation), synthesis="nearest")
        if points == RANDOM:
            small = copy.copy(small)
            train, stream = self.images.train, np.random.default_rng(distillation)
            classes = (np.flatnonzero(train.labels == c) for c in range(len(train.class_names)))
            drawn = [stream.choice(own, ipc, replace=False) for own in classes]
            small.images = torch.from_numpy(train.images(np.concatenate(drawn)))
        return small

    def measures(self, row: Row) -> dict[str, Any]:
        """Means over the classes; of gradients the errors after some epochs."""
        out = self.run(row.points, row.ipc, row.distillation)
        small, run = self.opened(row.points, row.ipc, row.distillation), Run.open(out)
        quantised = safetensors.numpy.load_file(out / "quantization.safetensors")
        offsets, counts = quantised["class_offsets"], quantised["counts"].astype(np.float64)
        masses = {"uniform": np.ones(len(counts)), "density": counts, "sqrt": np.sqrt(counts)}
        w2 = {"points": class_distances(run, "points", quantised["points"], offsets, masses, False)}
        if self.images.codec != "identity":
            made = run.manifest["stages"]["synthesize"]["outputs"]
            (path,) = (name for name in made if name.endswith(".safetensors"))
            images = safetensors.numpy.load_file(out / path)
            masses["reencoded"] = images["counts"].astype(np.float64)
            w2["images"] = class_distances(run, "images", images["latents"], offsets, masses, False)
        spread = {w: [one.variation for one in spreads(small.reweighted(w))] for w in masses}  # type: ignore[arg-type]
        student = "resnet18" if HOW[self.name] is NETTE else "convnet3"
        errors = gradient_agreement(
            small,
            self.images.train,
            student=student,
            weightings=tuple(masses),  # type: ignore[arg-type]
            batch_size=max(2, row.ipc),
            progress=False,
            **GRADIENTS,
        )
        return {
            "variation": {weights: float(np.mean(values)) for weights, values in spread.items()},
            "w2": {of: {w: float(np.mean(values)) for w, values in found.items()} for of, found in w2.items()},
            "gradients": {"epochs": errors.epochs, "errors": errors.errors},
        }

    def accuracy(self, row: Row) -> dict[str, Any]:
        small = self.opened(row.points, row.ipc, row.distillation).reweighted(row.weights)  # type: ignore[arg-type]
        own = copy.deepcopy(HOW[self.name])
        if HOW[self.name] is NETTE:
            own["epochs"] = EPOCHS_IPC50 if row.ipc == 50 else own["epochs"]
            own["settings"].update(precision(row.student))
        name = re.sub(r"[^\w+]+", "-", row.label)
        result = ddoq.train(
            small,
            row.student,
            teacher=self.teacher(row.labels),
            test=None if self.images.digits is not None else self.images.test,
            seed=row.seed,
            log=self.work / "logs" / f"{name}.jsonl",
            progress=False,
            **own,
        )
        found = {"protocol": result.recipe.protocol, "accuracy": result.accuracy}
        if self.images.digits is not None:
            found["by_digit"] = self.by_digit(result)
            found["accuracy"], found["equal"] = by_mass(found["by_digit"]), by_mass(found["by_digit"], (1,) * 5)
        return found

    @torch.inference_mode()
    def by_digit(self, result: ddoq.TrainResult) -> list[float]:
        """Percent of the test images of each digit that are right."""
        test, digits = self.images.test, self.images.digits
        normalise = Normalise(result.mean, result.std, torch.device("cpu"))
        parts = np.array_split(np.arange(len(test)), 100)
        logits = [result.model(normalise(torch.from_numpy(test.images(part)))) for part in parts]
        right = torch.cat(logits).argmax(1).numpy() == test.labels
        return [100 * float(right[digits == digit].mean()) for digit in range(10)]

    def teacher(self, name: str) -> Any:
        if name == "hard":
            return None
        if name == "resnet20":
            return self.resnet20
        self.train_teacher(name)
        return self.work / f"teacher {name}" / "teacher.safetensors"

    @cached_property
    def resnet20(self) -> CifarResNet:
        return CifarResNet(20, data_dir() / "cifar_resnet" / "resnet20.safetensors")

    def train_teacher(self, name: str) -> dict[str, Any]:
        """Once; its accuracy is kept beside it."""
        folder = self.work / f"teacher {name}"
        kept = folder / "accuracy.json"
        with waiting(folder):
            if not kept.exists():
                settings = {"channels_last": True, **precision(name)}
                result = train_teacher(
                    self.images.train,
                    folder / "teacher.safetensors",
                    student=name,
                    test=self.images.test,
                    epochs=TEACHER_EPOCHS,
                    settings=settings,
                    progress=False,
                )
                kept.write_text(json.dumps({"protocol": result.recipe.protocol, "accuracy": result.accuracy}))
        found: dict[str, Any] = json.loads(kept.read_text())
        return found


def precision(name: str) -> dict[str, Any]:
    """bfloat16 wherever it is faster: on a CPU depthwise convolutions are slower in it."""
    return HALF if name == "resnet18" or DEVICE == "cuda" else {}


def keep(row: Row, value: dict[str, Any], seconds: float) -> None:
    """Into the results, with where it was found: other rows may come from another machine."""
    here = facts()
    place = f"{here['cpu']}, {here['cores']} cores, {here['instruction_set']}"
    if DEVICE == "cuda":
        here["gpu"] = torch.cuda.get_device_name()
        place = f"{here['gpu']}, {place}"
    with waiting(RESULTS):
        result = load_result("factorial")
        own = result.setdefault(row.data, {"facts": {}, "rows": {}})
        own["facts"][place] = here
        own["rows"][row.label] = {
            **value,
            "seconds": round(seconds, 1),
            "threads": torch.get_num_threads(),
            "on": place,
        }
        save_result("factorial", result)
    print(f"{row.data}: {row.label}: {value.get('accuracy', value)}, {seconds:.0f} s", flush=True)


@cache
def study(name: str, work: Path) -> Study:
    return Study(name, work)


def find(row: Row, work: Path, end: float) -> None:
    """A row, unless the time is over or another process has found it meanwhile."""
    start = time.time()
    if start < end and missing([row]):
        keep(row, study(row.data, work).find(row), time.time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for images, runs, teachers and logs")
    parser.add_argument("--parts", nargs="*", choices=parts(), default=list(parts()))
    parser.add_argument("--minutes", type=float, default=90, help="after which no other row is begun")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the rows")
    parser.add_argument("--list", action="store_true", help="say what is done and what is missing, and do nothing")
    options = parser.parse_args()
    todo = list[Row]()
    for part in options.parts:
        rows, left = parts()[part], missing(parts()[part])
        print(f"{part}: {len(rows) - len(left)} of {len(rows)} rows done", flush=True)
        todo += left
    if options.list:
        print("\n".join(f"    missing: {row.data}: {row.label}" for row in todo))
        return
    one = partial(find, work=options.work, end=time.time() + 60 * options.minutes)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(one, dict.fromkeys(todo)):
            pass


if __name__ == "__main__":
    main()
