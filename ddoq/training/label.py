"""Stores soft labels: a teacher's logits of every view that a student will see.

    out/labels.json                  what they were made of, and how
    out/epoch-00000.safetensors ...  logits float16 (n, C); or probabilities float16 and indices (n, k) of the k largest

A view depends on (seed, epoch, image) alone (`views`), so a stored label is that of the very view that a student sees.
A folder with fewer epochs than a student has is a bounded pool, used again and again, as in LPLD.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from ddoq.data.distilled import DistilledDataset
from ddoq.data.image_data import ImageData
from ddoq.machine.device import torch_device
from ddoq.storage.files import RunError, clean, write_atomic
from ddoq.storage.tensors import read_tensors, write_tensors
from ddoq.storage.values import plain
from ddoq.training.protocols import ONLY_HARD, ProtocolName, changes_of, recipe_for
from ddoq.training.recipe import Recipe
from ddoq.training.targets import ABOUT, differences, epoch_file, made_from, read_about, source
from ddoq.training.teacher import open_teacher
from ddoq.training.training_set import TrainingSet
from ddoq.training.views import Views

Store = Literal["float16", "topk"]
BATCH = 256  # images whose views are made at once


def label(
    dataset: DistilledDataset | ImageData,
    teacher: Any,
    out: str | PathLike[str],
    *,
    protocol: ProtocolName = "d4m",
    epochs: int | None = None,
    store: Store = "float16",
    top_k: int = 10,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Path:
    """Store a teacher's soft labels of every view that a protocol's students will see, for `ddoq.train(labels=out)`.

    The size is printed before it starts. Called again, it makes the epochs that are missing or damaged; with more
    epochs, it adds them to those that are there, and with fewer it leaves all that are whole.

    Parameters
    ----------
    dataset
        What `ddoq.load` or `ddoq.open_data` returns.
    teacher
        A checkpoint of `ddoq teacher`, a folder with timm's config.json and weights, the name of a pretrained timm
        model, or a torch module; a sequence of them gives the mean of their logits.
    out
        The folder; made if absent.
    protocol
        Whose views: its crops, flips and mixes.
    epochs
        Of views. Default: the protocol's. Fewer than a student's are used again and again; of more, a student takes
        the first (`settings={"label_epochs": 10}` of `ddoq.train`: no more than 10, again and again).
    store
        "float16": all logits. "topk": the `top_k` largest probabilities at the protocol's temperature and their
        classes; what they leave of 1 is spread evenly over the others.
    top_k
        Probabilities that "topk" keeps.
    seed
        Of the views. Students of any seed train on them.
    settings
        Settings of the protocol that differ, as for `ddoq.train`: only those of the views and the temperature count.
    device
        "auto" (a CUDA GPU if there is one), "cpu", "cuda", or a GPU by number such as "cuda:1".
    progress
        Say the size and show a progress bar on stderr.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        A teacher that does not know a class, or settings that do not fit.
    ddoq.RunError
        The folder holds other labels, or its labels.json is damaged.
    OSError
        Too little room on the disk.

    Examples
    --------
    >>> import ddoq, tempfile
    >>> images, labels = torch.zeros(4, 8, 8, dtype=torch.uint8).numpy(), ["x", "y"] * 2
    >>> data, out = ddoq.open_data((images, labels)), tempfile.mkdtemp()
    >>> teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    >>> folder = ddoq.label(data, teacher, out, epochs=2, progress=False)
    >>> ddoq.train(data, labels=folder, protocol="d4m", epochs=2, progress=False).recipe.protocol
    'd4m, epochs=2'
    """
    on_device = torch_device(device)
    data = TrainingSet.of(dataset)
    recipe = recipe_for(protocol, "convnet3", data, seed, changes_of(settings, epochs=epochs))
    if protocol in ONLY_HARD:
        raise ValueError(f"protocol {protocol!r} trains on hard labels: it has no use for soft ones")
    if store not in ("float16", "topk"):
        raise ValueError(f"store must be 'float16' or 'topk', got {store!r}")
    if not 1 <= top_k <= len(data.class_names) and store == "topk":
        raise ValueError(f"top_k must lie between 1 and the {len(data.class_names)} classes, got {top_k}")
    count = 1 if recipe.still else recipe.epochs
    opened = open_teacher(teacher, data, on_device)
    about = plain(
        {
            **source(recipe, data, store),
            "teacher": opened.name,
            "store": store,
            "top_k": top_k if store == "topk" else None,
            "class_names": data.class_names,
            "epochs": count,
        }
    )
    folder = Path(out)
    promised = _begin(folder, about)
    left = [epoch for epoch in range(count) if not _there(folder, epoch, about, progress)]
    more = max(promised - count, 0) if all(_there(folder, e, about, False) for e in range(count, promised)) else 0
    size = label_bytes(len(data.images), len(data.class_names), len(left), about["top_k"])
    if progress:
        part_stored = f"the {top_k} largest of " if store == "topk" else ""
        how = f"{_readable(size)} in {folder}" if left else f"all are there, in {folder}"
        how += f"; those of {count - len(left)} others are there" if 0 < len(left) < count else ""
        if more:
            how += f"; of {more} further epochs too"
        elif promised > count:
            how += f"; the pool is of {count} epochs now: not all of its {promised} are there"
        print(
            f"soft labels of {len(left) or count} epochs x {len(data.images)} images, "
            f"{part_stored}{len(data.class_names)} classes: {how}",
            file=sys.stderr,
        )
    if size > (free := shutil.disk_usage(folder).free):
        raise OSError(f"the soft labels need {_readable(size)} and {folder} has {_readable(free)}: use store='topk'")
    views = Views(data, recipe, on_device)
    for epoch in tqdm(left, desc="label", unit="epoch", leave=False, disable=not (progress and left)):
        batches = torch.split(torch.arange(len(data.images)), BATCH)  # of any size: a view is the same in all
        logits = torch.cat([opened(views(epoch, batch).images) for batch in batches])
        write_tensors(epoch_file(folder, epoch), _kept(logits, recipe, about), made_from(about), {})
    if count + more != promised:
        _write(folder, about)  # only now: until then a training goes by what was there before
    return folder


def label_bytes(n: int, classes: int, epochs: int, top_k: int | None = None) -> int:
    """Bytes of the labels of n images; the files' heads add less than 1,000 bytes an epoch.

    >>> label_bytes(10_000, 1000, 300), label_bytes(10_000, 1000, 300, 10)   # ImageNet-1K, 10 images per class
    (6000000000, 120000000)
    """
    index = 2 if classes <= 1 << 15 else 4
    return epochs * n * (2 * classes if top_k is None else top_k * (2 + index))


def _kept(logits: Tensor, recipe: Recipe, about: Mapping[str, Any]) -> dict[str, Tensor]:
    if about["store"] == "float16":
        return {"logits": logits.half()}
    probabilities, indices = (logits / recipe.temperature).softmax(1).topk(about["top_k"])
    narrow = torch.int16 if logits.shape[1] <= 1 << 15 else torch.int32
    return {"probabilities": probabilities.half(), "indices": indices.to(narrow)}


def _begin(folder: Path, about: Mapping[str, Any]) -> int:
    """Make the folder, or find it made of the same; the epochs that it says it holds, once they are finished."""
    folder.mkdir(parents=True, exist_ok=True)
    clean(folder)
    if not (folder / ABOUT).exists():
        _write(folder, about)
    about_there = read_about(folder)
    other = [name for name in about if name != "epochs" and about_there.get(name) != about[name]]
    if other:
        raise RunError(f"{folder} holds labels of {differences(about_there, about, other)}: choose another folder")
    promised: int = about_there["epochs"]
    return promised


def _write(folder: Path, about: Mapping[str, Any]) -> None:
    write_atomic(folder / ABOUT, json.dumps(about, indent=1, ensure_ascii=False).encode() + b"\n")


def _there(folder: Path, epoch: int, about: Mapping[str, Any], progress: bool) -> bool:
    """Whether an epoch's labels are there and whole; a damaged file is named, and no hindrance."""
    try:
        return read_tensors(epoch_file(folder, epoch), made_from(about)) is not None
    except RunError:
        if progress:
            print(f"{epoch_file(folder, epoch)} is damaged: its labels are made again", file=sys.stderr)
        return False


def _readable(size: float) -> str:
    """A number of bytes.

    >>> _readable(6e9), _readable(640)
    ('6.0 GB', '640 bytes')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} bytes"
