"""The latents of a run are found and read here, those of one class or of all, and taken over from another run."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from ddoq.storage.files import RunError, share
from ddoq.storage.run import Run
from ddoq.storage.tensors import Array, read_facts
from ddoq.storage.values import differences, digest


def open_reusable(path: str | PathLike[str], config: Mapping[str, Any]) -> Run:
    """Open a run whose latents are to be taken over by a run of configuration `config`.

    Raises
    ------
    RunError
        The folder is no run or has no latents, or the configurations show that the latents differ; names why.
    """
    other = Run.open(path)
    if not any((other.path / "latents").glob("shard-*.safetensors")):
        raise RunError(f"{other.path} has no latents to take over: give a run folder that ddoq distill made")
    theirs, config = (settings | settings.get("options", {}) for settings in (other.manifest["config"], dict(config)))
    keys = ["data", "image_size", "channels", "batch_size"]
    codec, codec_here = theirs.get("codec", {}), config.get("codec", {})
    # A codec that was fitted may be given to another run. Runs that distill has not made may hold text here.
    if list(codec) == list(codec_here):
        keys += ["codec", "seed"] if "fit" in codec_here else ["codec"]
    old, new = ({key: source[key] for key in keys if key in source} for source in (theirs, config))
    if differing := [f"{key}: {a!r:.200} there, {b!r:.200} here" for key, a, b in differences("", old, new)]:
        raise RunError(f"the latents of {other.path} are not those of this run ({'; '.join(differing)})")
    return other


def read_latents(run: Run, class_index: int) -> tuple[Array, Array]:
    """Latents of one class and their indices in the data set, without reading other classes.

    Returns
    -------
    float16 (n, d), int64 (n,)
        d is the product of the latent shape, which `run.info("encode")["latent_shape"]` gives.

    Raises
    ------
    RunError
        A shard is missing or damaged, by name.
    """
    info, sizes = run.info("encode"), run.info("data")["class_sizes"]
    stop = sum(sizes[: class_index + 1])
    start = stop - sizes[class_index]
    latents, indices = [], []
    for number in range(start // info["shard_size"], (stop - 1) // info["shard_size"] + 1):
        first = number * info["shard_size"]
        rows = slice(max(start - first, 0), min(stop - first, info["shard_size"]))
        path = shard_path(run, number)
        try:
            with safetensors.safe_open(path, framework="numpy") as shard:
                latents.append(shard.get_slice("latents")[rows])
                indices.append(shard.get_slice("indices")[rows])
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}): delete it and run again to remake it") from error
    rows_of_class = np.concatenate(latents)
    if len(rows_of_class) != stop - start:
        raise RunError(
            f"{run.path / 'latents'} has {len(rows_of_class)} rows of class {class_index}, not {stop - start}"
        )
    return rows_of_class.reshape(len(rows_of_class), -1), np.concatenate(indices)


def read_all_latents(run: Run) -> tuple[Array, Array]:
    """Latents (n, *latent_shape) float16 and labels (n,), class by class."""
    shape = run.info("encode")["latent_shape"]
    parts = [read_latents(run, c)[0] for c in range(len(run.class_names))]
    labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return np.concatenate(parts).reshape(-1, *shape), labels


def shard_path(run: Run, number: int) -> Path:
    return run.path / "latents" / f"shard-{number:05d}.safetensors"


def take_over(source: Path, path: Path, made_from: str) -> dict[str, Any] | None:
    """Share another run's shard and give its facts; None if it is absent, RunError if damaged or of other inputs."""
    if not source.exists():
        return None
    facts = read_facts(source, made_from)
    if facts is None:
        raise RunError(
            f"{source} was made from other images, by another codec or with other settings: its latents cannot be "
            "taken over (a codec that the other run has fitted must be given, as its folder `codec`)"
        )
    share(source, path)
    return facts


def latent_info(facts: list[dict[str, Any]], shard_size: int) -> dict[str, Any]:
    """What later stages need to know, from the metadata of all shards."""
    shapes = {tuple(shard["latent_shape"]) for shard in facts}
    if len(shapes) != 1:
        raise ValueError(f"the codec gave latents of different shapes: {sorted(shapes)}")
    return {
        "latent_shape": list(shapes.pop()),
        "shard_size": shard_size,
        "pixels": digest([shard["pixels"] for shard in facts]),
    }
