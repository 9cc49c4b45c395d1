"""Cases of golden.py that train or distil: scikit-learn's digits through every stage, in steps as few as will do.

Left out, since they are not repeatable: times, speeds and memory, wherever they stand; machine and versions, which
golden.json has itself; hashes over lines that hold such.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
from sklearn.datasets import load_digits

import ddoq

Case = tuple[str, Any]  # dotted key, and what came out
Labelled = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]

PASSING = ("seconds", "images_per_second", "memory", "peak_memory", "machine", "versions", "sha256")
ALWAYS: dict[str, Any] = {"device": "cpu", "progress": False}
WEIGHTINGS = ("density", "reencoded", "sqrt", "uniform")
NAMES = [f"digit {c}" for c in range(10)]
CROPS = {"augment": ("crop",)}


def digits() -> tuple[Labelled, Labelled]:
    """400 images to distil and 200 to test on, uint8 (n, 8, 8)."""
    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    return (images[:400], bunch.target[:400]), (images[400:600], bunch.target[400:600])


def runs(work: Path) -> Iterator[Case]:
    """All cases; `work` is an empty folder."""
    train, test = digits()
    yield from _opened(train)
    yield from _fits(train, work)
    yield from _distilled(train, work)
    yield from _loaded(work)
    yield from _trained(train, test, work)
    yield from _evaluated(train, test, work)  # last, since they write into the runs
    yield from _weighed(train, work)


def kept(value: Any) -> Any:
    """JSON without what passes."""
    if isinstance(value, dict):
        return {name: kept(part) for name, part in value.items() if name not in PASSING}
    return [kept(part) for part in value] if isinstance(value, list) else value


def lines(path: Path) -> list[Any]:
    """A log's lines, without what passes; a line of its hash alone is empty then."""
    return [kept(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def tensors(path: Path) -> list[Any]:
    """Names and values of all tensors in a safetensors file."""
    return sorted(safetensors.torch.load_file(path).items())


def files(folder: Path) -> dict[str, Any]:
    """Every file of a folder as bytes, logs apart; of safetensors the tensors too, which heads have no part in."""
    found: dict[str, Any] = {"files": {}, "tensors": {}}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name in ("run.json", "run.lock"):
            continue
        found["files"][name] = lines(path) if name.endswith("log.jsonl") else path.read_bytes()
        if path.suffix == ".safetensors":
            found["tensors"][name] = tensors(path)
    return found


def manifest(folder: Path) -> dict[str, Any]:
    """run.json by its parts."""
    made = json.loads((folder / "run.json").read_bytes())
    stages = {
        name: {part: kept(stage[part]) for part in ("inputs", "output", "info")}
        for name, stage in made["stages"].items()
    }
    return {"config": made["config"], "class_names": made["class_names"], "stages": stages}


def _opened(train: Labelled) -> Iterator[Case]:
    """What `open_data` makes of arrays."""
    images, labels = train
    colour = np.stack([images, 255 - images, images // 2], axis=-1)
    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        "grey": ((images, labels), {}),
        "floats": ((images / 255, labels), {}),
        "colour": ((colour, labels), {"image_size": 12}),
        "names": ((images[:, :7], labels), {"class_names": NAMES, "channels": 3}),
        "items": ([(image, int(label)) for image, label in zip(colour[:50], labels[:50], strict=True)], {}),
    }
    for name, (data, options) in cases.items():
        opened = ddoq.open_data(data, **options)
        facts = {part: getattr(opened, part) for part in ("fingerprint", "class_names", "labels", "image_size")}
        yield f"open_data.{name}", {**facts, "images": opened.images(range(0, len(opened), 9))}


def _fits(train: Labelled, work: Path) -> Iterator[Case]:
    for objective in ("flow", "epsilon"):
        folder = work / f"fit-{objective}"
        steps = {"codec_steps": 8, "diffusion_steps": 8, "batch_size": 16}
        ddoq.fit(train, folder, objective=objective, **steps, **ALWAYS)
        yield f"fit.{objective}", {**files(folder), **manifest(folder)}


def _distilled(train: Labelled, work: Path) -> Iterator[Case]:
    """Run folders, one for each thing that a run may do."""
    images, labels = train
    colour = np.stack([images, 255 - images, images // 2], axis=-1)
    fitted = work / "fitted"
    pixels: dict[str, Any] = {"codec": "identity", "synthesis": "decode"}
    cases: dict[str, dict[str, Any]] = {
        "identity": {**pixels, "controls": ("nearest",), "ipc": 10},
        "other_seed": {**pixels, "controls": ("nearest",), "ipc": 10, "seed": 1},
        "fitted": {"controls": ("decode", "nearest"), "codec_steps": 30, "diffusion_steps": 30},
        "latents": {"codec": fitted / "codec", "latents": fitted, "synthesis": "decode"},
        "sampled": {"codec": fitted / "codec", "posterior": "sample", "synthesis": "decode"},
        "flow": {"diffusion": work / "fit-flow", "strength": 0.5, "steps": 8, "guidance": 1.5},
        "epsilon": {"diffusion": work / "fit-epsilon", "controls": ("decode",), "steps": 10, "batch_size": 20},
        "clvq": {**pixels, "quantizer": "clvq"},
        "minibatch": {**pixels, "quantizer": "minibatch"},
        "reencoded": {**pixels, "weighting": "reencoded", "controls": ("nearest",)},
        "class_prior": {**pixels, "class_prior": "data"},
        "output_size": {**pixels, "output_size": 6, "controls": ("nearest",)},
        "resized": {**pixels, "data": (colour, labels), "image_size": 16, "class_names": NAMES, "weighting": "sqrt"},
        "lloyd": {**pixels, "init": "random", "n_init": 2, "refine": "none", "max_iter": 5, "weighting": "uniform"},
    }
    for name, options in cases.items():
        folder = work / name
        ddoq.distill(**{"data": train, "out": folder, "ipc": 3, "n_threads": 2, **ALWAYS, **options})
        yield f"distill.{name}", {**files(folder), **manifest(folder)}
    opened = ddoq.open_data(work / "identity" / "images")
    yield "open_data.run", {"labels": opened.labels, "images": opened.images(range(len(opened)))}


def _loaded(work: Path) -> Iterator[Case]:
    for run, synthesis in (("identity", None), ("identity", "nearest"), ("fitted", None), ("fitted", "decode")):
        small = ddoq.load(work / run, synthesis=synthesis)
        parts = {name: getattr(small, name) for name in ("images", "labels", "counts", "reencoded", "mean", "std")}
        for weighting in WEIGHTINGS:
            for prior in ("balanced", "data"):
                made = ddoq.load(work / run, synthesis=synthesis, weighting=weighting, class_prior=prior)
                parts[f"weights.{weighting}.{prior}"] = made.weights
        drawn = list(small.sampler(num_samples=50, seed=3))
        yield f"load.{run}.{synthesis or 'main'}", {**parts, "repr": repr(small), "drawn": drawn}


def _result(result: Any, log: Path | None = None) -> dict[str, Any]:
    """A training's result, and its log."""
    found = {name: getattr(result, name) for name in ("accuracy", "losses", "steps", "checks", "mean", "std")}
    found |= {"protocol": result.recipe.protocol, "weights": list(result.model.state_dict().items())}
    return found if log is None else {**found, "log": lines(log)}


def _trained(train: Labelled, test: Labelled, work: Path) -> Iterator[Case]:
    teacher = work / "teacher.safetensors"
    made = ddoq.train_teacher(train, teacher, student="convnet3", epochs=3, settings=CROPS, test=test, **ALWAYS)
    with safetensors.safe_open(teacher, framework="pt") as file:
        facts = kept(json.loads(file.metadata()["ddoq"]))
    facts.pop("made_from")  # a hash over versions too
    yield "teacher", {**_result(made), "facts": facts}
    small = ddoq.load(work / "identity")
    for name, options in {"d4m": {}, "topk": {"store": "topk", "top_k": 3}, "dc": {"protocol": "dc"}}.items():
        folder = work / f"labels-{name}"
        ddoq.label(small, teacher, folder, **{"epochs": 2, **options, **ALWAYS})
        content = {path.name: tensors(path) for path in sorted(folder.glob("*.safetensors"))}
        yield f"label.{name}", {**content, "labels.json": json.loads((folder / "labels.json").read_bytes())}
    halves = {"precision": "bfloat16", "channels_last": True, "accumulate": 2}
    cases: dict[str, dict[str, Any]] = {
        "dc": {},
        "uniform": {"dataset": small.reweighted("uniform"), "batch_size": 20},
        "sqrt": {"dataset": small.reweighted("sqrt", "data"), "batch_size": 20, "lr": 0.02, "momentum": 0.8},
        "other_seed": {"seed": 1, "weight_decay": 0.01},
        "all_images": {"dataset": ddoq.open_data(train)},
        "dc_teacher": {"teacher": teacher},
        "dc_labels": {"labels": work / "labels-dc"},
        "dsa": {"protocol": "dsa"},
        "d4m_teacher": {"protocol": "d4m", "teacher": teacher},
        "d4m_labels": {"protocol": "d4m", "labels": work / "labels-d4m", "epochs": 5},
        "d4m_topk": {"protocol": "d4m", "labels": work / "labels-topk", "settings": {"mix_weights": "base"}},
        "rded": {"protocol": "rded", "teacher": teacher},
        "rd3": {"protocol": "rd3", "teacher": teacher},
        "hard": {"protocol": "hard"},
        "jitter": {"settings": {"augment": ("shuffle", "flip", "jitter", "lighting"), "mix": "mixup", "patches": 2}},
        "bfloat16": {"settings": halves},
        "convnet4": {"dataset": ddoq.load(work / "resized"), "student": "convnet4", "class_names": NAMES},
        "resnet18": {"student": "resnet18", "epochs": 1},
        "vit_tiny": {"student": "vit_tiny", "epochs": 1},
    }
    for name, options in cases.items():
        log = work / f"{name}.jsonl"
        result = ddoq.train(**{"dataset": small, "test": test, "epochs": 2, "log": log, **ALWAYS, **options})
        yield f"train.{name}", _result(result, log)


def _evaluated(train: Labelled, test: Labelled, work: Path) -> Iterator[Case]:
    both = [work / "identity", work / "other_seed"]
    short = {"epochs": 2, "batch_size": 50, "seeds": 2}
    soft = {"protocol": "d4m", "teacher": work / "teacher.safetensors", "labels": work / "labels-d4m"}
    cases: dict[str, dict[str, Any]] = {
        "one": {"run": both[0], "weightings": WEIGHTINGS, "data": train, "gradients": 1, "full_data": True},
        "distillations": {"run": both, "data": train},
        "named": {"run": {"ddoq": both, "folder": work / "fitted" / "controls" / "nearest"}},
        "soft": {"run": {"ddoq": both[0]}, **soft},
    }
    for name, options in cases.items():
        logs = work / f"logs-{name}"
        table = ddoq.evaluate(**{"test": test, "logs": logs, **short, **ALWAYS, **options}).to_json()
        rows = {f"{row['set']}.{row['weighting']}": row for row in table.pop("rows")}
        found = {path.relative_to(logs).as_posix(): lines(path) for path in sorted(logs.rglob("*.jsonl"))}
        yield f"evaluate.{name}", {**table, "rows": rows, "logs": found}


def _weighed(train: Labelled, work: Path) -> Iterator[Case]:
    for name in ("identity", "fitted"):
        folder = work / name
        table = ddoq.weigh(folder, progress=False, device="cpu")
        yield f"weigh.{name}", {**_distances(table), **files(folder / "w2"), "stages": manifest(folder)["stages"]}
    for name, codec in (("pixels", "identity"), ("latents", work / "fitted" / "codec")):
        folder = work / f"theirs-{name}"
        shutil.copytree(work / "output_size" / "images", folder)
        (folder / "metadata.jsonl").unlink()
        table = ddoq.weigh(folder, train, codec=codec, image_size=8, by_index=True, **ALWAYS)
        made = {**_distances(table), **files(folder), **manifest(folder)}
        yield f"weigh.{name}", {**made, "weights": ddoq.load(folder).weights}


def _distances(table: Any) -> dict[str, Any]:
    return {"rows": {f"{row.set}.{row.weighting}": row.per_class for row in table.rows}, "notes": table.notes}
