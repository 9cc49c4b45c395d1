"""MNIST and CIFAR-10 (JPEG) through models of one's own: fit, distil, quality, strength, weights.

    python benchmarks/latent_diffusion.py WORK {mnist,cifar10} [--parts fit quality ...]     # resumes

fit        `ddoq.fit` on all training images: a codec and a class-conditional flow, "tiny", in less than 30 (MNIST) or
           60 minutes of 2 cores. Minutes are those of the clock and of the processors: the machine may have other
           work, and OMP_WAIT_POLICY=PASSIVE is set, so that waiting costs no processor time
quality    IPC 10 and 50: diffused, decoded, nearest real and as many random real images beside the test images, in the
           feature space of a judge: agreement, KID, precision, recall, density, coverage. Judges: MNIST, a ConvNet-3
           trained on all training images; CIFAR-10, ResNet-56 of akamaster/pytorch_resnet_cifar10
picture    IPC 10: the diffused images with their weights, docs/weights_<data>.png
strength   IPC 10: agreement, accuracy and W2 to the data (points and diffused images) against strength; 0 is the
           decoded point
weights    IPC 10: points of Lloyd and of D4M's minibatch, diffused, x uniform, density and re-encoded weights:
           accuracy of 2 students on each of 3 distillations, W2 to the data

Protocol of the students: "dc" (ConvNet-3, SGD, no augmentation; `ddoq.train`), MNIST cut to 60 epochs, CIFAR-10 to
60 in bfloat16, last epoch; MNIST is tested on its first 3,000 test images, CIFAR-10 on all 10,000 (JPEG).
Results: results/latent_diffusion.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from cifar_resnet import CLASSES, CifarResNet
from common import ROOT, data_dir, facts, load_result, mnist, peak_memory_gib, refuse_others, save_result, unpack
from PIL import Image
from safetensors import safe_open
from torch import Tensor

import ddoq
from ddoq.data.distilled import DistilledDataset
from ddoq.data.image_data import ImageData, open_data
from ddoq.evaluation.quality import image_quality
from ddoq.reporting.weights_picture import weights_picture
from ddoq.storage.run import Run
from ddoq.training.students import create_student

FIT: dict[str, dict[str, Any]] = {
    "mnist": {"codec_steps": 1_500, "diffusion_steps": 4_500},
    "cifar10": {"codec_steps": 3_000, "diffusion_steps": 7_000},
}
STUDENT: dict[str, dict[str, Any]] = {
    "mnist": {"epochs": 60},
    "cifar10": {"epochs": 60, "settings": {"precision": "bfloat16"}},
}
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
CONTROLS = ("nearest", "decode")
SEEDS, STUDENTS = 3, 2
WEIGHTINGS = ("uniform", "density", "reencoded")


class MnistJudge(torch.nn.Module):
    """ConvNet-3 trained on all training images for 2 epochs, kept in WORK."""

    def __init__(self, work: Path, train: Any) -> None:
        super().__init__()
        path = work / "mnist-judge.safetensors"
        if not path.exists():
            ddoq.train(open_data(train), epochs=2, batch_size=64, checkpoint=path)
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["ddoq"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        self.model = create_student("convnet3", n_classes=10, channels=1, image_size=28)
        self.model.load_state_dict(state)
        self.mean, self.std = (torch.tensor(about[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
        self.eval().requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        found: Tensor = self.model.features((images - self.mean) / self.std).flatten(1)
        return found

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model.classifier(self.features(images))
        return logits


class Job:
    """One data set: its folders in WORK, and its parts of the results, written row by row."""

    def __init__(self, name: str, work: Path) -> None:
        self.name, self.work = name, work
        self.train: Any
        self.test: Any
        if name == "mnist":
            self.train, self.test = mnist()
        else:
            folder = unpack(work / "cifar10", "cifar10/cifar10_jpeg")
            self.train, self.test = folder / "train", folder / "test"

    @cached_property
    def judge(self) -> MnistJudge | CifarResNet:
        if self.name == "mnist":
            return MnistJudge(self.work, self.train)
        return CifarResNet(56, data_dir() / "cifar_resnet" / "resnet56.safetensors")

    @cached_property
    def judge_names(self) -> tuple[str, ...]:
        return CLASSES if self.name == "cifar10" else tuple(map(str, range(10)))

    def facts(self, part: str) -> dict[str, Any]:
        return {**facts(), "command": f"python benchmarks/latent_diffusion.py WORK {self.name} --parts {part}"}

    def lacks(self, part: str, row: str) -> bool:
        """Whether a row is still to be made; SystemExit if the part's others are of another machine or version."""
        own = load_result("latent_diffusion").get(self.name, {})
        if row in own.get(part, {}):
            return False
        if part in own.get("facts", {}):
            refuse_others(own["facts"][part], self.facts(part))
        return True

    def keep(self, part: str, rows: dict[str, Any]) -> None:
        """Write rows of a part, all at once, and the part's facts beside them."""
        result = load_result("latent_diffusion")
        own = result.setdefault(self.name, {})
        own.setdefault("facts", {}).setdefault(part, self.facts(part))
        own.setdefault(part, {}).update(rows)
        save_result("latent_diffusion", result)
        for row, value in rows.items():
            print(f"{self.name}, {part}, {row}: {value}", flush=True)

    def distill(self, label: str, **options: Any) -> tuple[Path, DistilledDataset]:
        out, first = self.work / f"{self.name}-{label}", self.work / f"{self.name}-ipc10"
        if out != first and (first / "latents").exists():
            options["latents"] = first
        return out, ddoq.distill(self.train, out, diffusion=self.work / f"{self.name}-model", **options)

    def quality(self, images: Any) -> dict[str, Any]:
        found = image_quality(
            images, self.test, self.judge.features, judge=self.judge, judge_names=self.judge_names, device="cpu"
        )
        return {key: round(value, 5) if isinstance(value, float) else value for key, value in asdict(found).items()}

    def accuracies(self, out: Path, sets: tuple[str, ...], weightings: tuple[Any, ...], students: int) -> list[Any]:
        chosen = {name: ddoq.load(out, synthesis=name) for name in sets}
        logs = out / "train"
        table = ddoq.evaluate(chosen, self.test, weightings=weightings, seeds=students, logs=logs, **STUDENT[self.name])
        rows: list[Any] = table.to_json()["rows"]
        return rows

    def random(self, ipc: int, seed: int = 0) -> Any:
        """As many random training images per class, for the row beside."""
        data = open_data(self.train)
        stream = np.random.default_rng(seed)
        chosen = [stream.choice(np.flatnonzero(data.labels == c), ipc, replace=False) for c in range(10)]
        return open_data(_part(data, np.concatenate(chosen)))


def _part(data: ImageData, indices: np.ndarray) -> tuple[np.ndarray, list[str]]:
    return data.images(indices), [data.class_names[c] for c in data.labels[indices]]


def fit(job: Job) -> None:
    if not job.lacks("fit", "minutes"):
        return
    out = job.work / f"{job.name}-model"
    fresh, start, used = not out.exists(), time.monotonic(), time.process_time()
    fitted = ddoq.fit(job.train, out, size="tiny", **FIT[job.name])
    stages = Run.open(out).manifest["stages"]
    keep = {
        "minutes": round((time.monotonic() - start) / 60, 1),
        "processor_minutes": round((time.process_time() - used) / 60, 1),  # of both cores together
        "resumed": not fresh,  # then the minutes are those of the last process
        "stage_minutes": {name: round(stage["seconds"] / 60, 1) for name, stage in stages.items()},
        "codec": dict(fitted.codec),
        "diffusion": dict(fitted.diffusion),
        "peak_memory_gib": round(peak_memory_gib(), 2),
    }
    job.keep("fit", keep)


def quality(job: Job) -> None:
    for ipc in (10, 50):
        out, _ = job.distill(f"ipc{ipc}", ipc=ipc, controls=CONTROLS)
        sets = {name: ddoq.load(out, synthesis=name) for name in ("diffuse", "decode", "nearest")}
        for name, images in {**sets, "random real images": job.random(ipc)}.items():
            if job.lacks("quality", f"ipc {ipc}, {name}"):
                job.keep("quality", {f"ipc {ipc}, {name}": job.quality(images)})
        if job.lacks("quality", "all test images, judge"):
            test = open_data(job.test)
            right = 0
            for part in np.array_split(np.arange(len(test)), 20):
                logits = job.judge(torch.from_numpy(test.images(part)).float() / 255)
                names = [job.judge_names[i] for i in logits.argmax(1).tolist()]
                right += sum(name == test.class_names[c] for name, c in zip(names, test.labels[part], strict=True))
            job.keep("quality", {"all test images, judge": {"agreement": right / len(test)}})


def shrink(path: Path) -> None:
    """Round a picture's colours to 64 levels: at most 2 of 255 off, and the noise that PNG cannot pack is less."""
    with Image.open(path) as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    Image.fromarray((np.round(pixels / 255 * 63) / 63 * 255).round().astype(np.uint8)).save(path, optimize=True)


def picture(job: Job) -> None:
    path = ROOT.parent / "docs" / f"weights_{job.name}.png"
    if path.exists() and not job.lacks("picture", "images"):
        return
    out, dataset = job.distill("ipc10", ipc=10, controls=CONTROLS)
    weights_picture(dataset, path)
    shrink(path)
    run = Run.open(out)
    info, config = run.info("synthesize"), run.manifest["config"]
    sampling = {key: info[key] for key in ("images", "strength", "keep", "steps", "guidance")}
    rest = {"weighting": dataset.weighting, "quantizer": config["options"]["quantizer"], "seed": config["seed"]}
    job.keep("picture", {**sampling, **rest})


def distances(out: Path) -> dict[str, float]:
    """Mean W2 over the classes by set and weighting."""
    table = ddoq.weigh(out, progress=False)
    return {f"{row.set}, {row.weighting}": round(row.mean, 5) for row in table.rows}


def strength(job: Job) -> None:
    for value in STRENGTHS:
        if not job.lacks("strength", f"{value}"):
            continue
        out, dataset = job.distill(f"strength{value}", ipc=10, strength=value)
        info = Run.open(out).info("synthesize")
        rows = job.accuracies(out, ("diffuse",), ("density",), STUDENTS)
        row = {
            "keeps": info["keep"],
            "agreement": job.quality(dataset)["agreement"],
            "w2": distances(out),
            "accuracies": rows[0]["accuracies"],
            "protocol": rows[0]["protocol"],
        }
        job.keep("strength", {f"{value}": row})


def weights(job: Job) -> None:
    for seed in range(SEEDS):
        for method in ("lloyd", "minibatch"):
            label = f"{method}, distillation {seed}"
            if not job.lacks("weights", label):
                continue
            out, _ = job.distill(f"{method}{seed}", ipc=10, quantizer=method, seed=seed)
            rows = job.accuracies(out, ("diffuse",), WEIGHTINGS, STUDENTS)
            job.keep("weights", {label: {"rows": rows, "w2": distances(out)}})
        label = f"random real images, {seed}"
        if job.lacks("weights", label):
            accuracies = [
                ddoq.train(job.random(10, seed), test=job.test, seed=student, **STUDENT[job.name]).accuracy
                for student in range(STUDENTS)
            ]
            job.keep("weights", {label: {"accuracies": accuracies}})


PARTS = {"fit": fit, "quality": quality, "picture": picture, "strength": strength, "weights": weights}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for models and runs")
    parser.add_argument("data", choices=FIT)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    job = Job(options.data, options.work)
    for part in options.parts:
        PARTS[part](job)


if __name__ == "__main__":
    main()
