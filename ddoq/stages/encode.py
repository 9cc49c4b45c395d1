"""Stage "encode": every image's latent, in shards that are whole or absent.

    latents/shard-00000.safetensors   latents float16 (m, *latent_shape), labels int64 (m,), indices int64 (m,)

Rows go class by class, within a class in the order of the data set (`indices`), so that a class is read without the
others. Batches start anew in each shard: they, and so the bits, do not depend on where an earlier process stopped. A
shard's metadata is one JSON text (its order would otherwise be random) with the hash of what it was made from, of its
pixels and of its content.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from tqdm import tqdm

from ddoq.data.image_data import ImageData
from ddoq.machine.memory import BatchSize
from ddoq.models.codecs.codec import Codec, fingerprint
from ddoq.models.fitting.steps import torch_seed
from ddoq.storage.files import RunError, digest, share, write_atomic
from ddoq.storage.run import Run, differences, seed_sequence

Array = np.ndarray[Any, Any]


def encode(
    run: Run,
    data: ImageData,
    codec: Codec,
    *,
    device: torch.device | str,
    seed: int = 0,
    batch_size: int = 64,
    shard_size: int = 1024,
    reuse: str | PathLike[str] | None = None,
    progress: bool = True,
) -> None:
    """Encode every image of a data set into the run folder; finished shards of an earlier process are kept.

    Parameters
    ----------
    run
        Opened by `Run.locked`.
    codec
        Its `encode` takes float32 (b, c, h, w) in [0, 1].
    seed
        Of a codec that samples its posterior: each image has its own stream, by index.
    batch_size
        Images per call of the codec; part of the result, since sums round differently at other sizes. Halved where
        memory runs out, which is warned of and recorded.
    shard_size
        Images per file, and what is lost at most when the process is killed.
    reuse
        Another run folder, whose shards of the same inputs are taken over; those that it lacks are made.

    Raises
    ------
    ValueError
        A latent is NaN, infinite or beyond float16; names the image.
    RunError
        A shard is damaged, or the folder to reuse has none or has those of other inputs.

    Examples
    --------
    >>> import tempfile
    >>> from ddoq.models.codecs.codec import open_codec
    >>> from ddoq.data.image_data import open_data
    >>> data = open_data((np.zeros((6, 8, 8), np.uint8), ["cat", "dog"] * 3))
    >>> with Run.locked(tempfile.mkdtemp(), {}, data.class_names) as run:
    ...     encode(run, data, open_codec("identity"), device="cpu", progress=False)
    >>> latents, indices = read_latents(run, 1)
    >>> latents.shape, indices
    ((3, 64), array([1, 3, 5]))
    """
    inputs = {
        "data": data.fingerprint,
        "image_size": data.image_size,
        "channels": data.channels,
        "codec": fingerprint(codec),
        "batch_size": batch_size,
        "shard_size": shard_size,
    }
    if getattr(codec, "posterior", "mean") == "sample":
        inputs["seed"] = seed
    if run.done("encode", inputs):
        return
    start = time.monotonic()
    folder = run.path / "latents"
    folder.mkdir(exist_ok=True)
    order = np.argsort(data.labels, kind="stable")
    parts = [order[i : i + shard_size] for i in range(0, len(order), shard_size)]
    paths = [_shard_path(run, number) for number in range(len(parts))]
    for stale in set(folder.glob("shard-*.safetensors")) - set(paths):
        stale.unlink()
    facts = []
    limit = BatchSize(batch_size)
    other = None if reuse is None else open_reusable(reuse, run.manifest["config"])
    with tqdm(total=len(order), desc="encode", unit="image", disable=not progress) as bar:
        for path, indices in zip(paths, parts, strict=True):
            made_from = digest([inputs, indices])
            kept = _read_whole(path, made_from) if path.exists() else None
            if kept is None and other is not None and (theirs := other.path / "latents" / path.name).exists():
                kept = _take_over(theirs, path, made_from)
            if kept is None:
                kept = _encode_shard(path, made_from, data, codec, indices, device, seed, limit, bar)
            else:
                bar.update(len(indices))
                bar.initial = bar.n  # so that the rate is that of this process
                limit.take_over(kept)
            facts.append(kept)
    run.record(
        "encode",
        inputs,
        paths,
        seconds=time.monotonic() - start,
        info={**_info(facts, data, shard_size), **limit.facts},
    )


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
    theirs = other.manifest["config"]
    keys = ["data", "image_size", "channels", "batch_size"]
    codec, given = theirs.get("codec", {}), config.get("codec", {})
    # A codec that was fitted may be given to another run. Runs that distill has not made may hold text here.
    if list(codec) == list(given):
        keys += ["codec", "seed"] if "fit" in given else ["codec"]
    old, new = ({key: source[key] for key in keys if key in source} for source in (theirs, config))
    if found := [f"{key}: {a!r:.200} there, {b!r:.200} here" for key, a, b in differences("", old, new)]:
        raise RunError(f"the latents of {other.path} are not those of this run ({'; '.join(found)})")
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
    info = run.info("encode")
    ends = np.cumsum(info["class_sizes"])
    stop = int(ends[class_index])
    start = stop - info["class_sizes"][class_index]
    latents, indices = [], []
    for number in range(start // info["shard_size"], (stop - 1) // info["shard_size"] + 1):
        first = number * info["shard_size"]
        rows = slice(max(start - first, 0), min(stop - first, info["shard_size"]))
        path = _shard_path(run, number)
        try:
            with safetensors.safe_open(path, framework="numpy") as shard:
                latents.append(shard.get_slice("latents")[rows])
                indices.append(shard.get_slice("indices")[rows])
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}): delete it and run again to remake it") from error
    found = np.concatenate(latents)
    if len(found) != stop - start:
        raise RunError(f"{run.path / 'latents'} has {len(found)} rows of class {class_index}, not {stop - start}")
    return found.reshape(len(found), -1), np.concatenate(indices)


def read_all_latents(run: Run) -> tuple[Array, Array]:
    """Latents (n, *latent_shape) float16 and labels (n,), class by class."""
    shape = run.info("encode")["latent_shape"]
    parts = [read_latents(run, c)[0] for c in range(len(run.manifest["class_names"]))]
    labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return np.concatenate(parts).reshape(-1, *shape), labels


def _shard_path(run: Run, number: int) -> Path:
    return run.path / "latents" / f"shard-{number:05d}.safetensors"


@torch.inference_mode()
def _encode_shard(
    path: Path,
    made_from: str,
    data: ImageData,
    codec: Codec,
    indices: Array,
    device: torch.device | str,
    seed: int,
    limit: BatchSize,
    bar: tqdm[Any],
) -> dict[str, Any]:
    """Encode the images of one shard and write it; its metadata."""
    latents = []
    pixels = hashlib.sha256()
    total = np.zeros(data.channels, np.int64)  # sums over pixels are exact in integers
    squares = np.zeros(data.channels, np.int64)
    sampled = getattr(codec, "posterior", "mean") == "sample"
    for start in range(0, len(indices), limit.asked):
        batch = indices[start : start + limit.asked]
        images = data.images(batch)
        pixels.update(np.ascontiguousarray(images).data)
        total += images.sum(axis=(0, 2, 3), dtype=np.int64)
        squares += np.square(images, dtype=np.int64).sum(axis=(0, 2, 3))
        tensor = torch.from_numpy(images)
        streams = [seed_sequence(seed, "encode", index) for index in batch] if sampled else []

        def make(
            part: slice, tensor: torch.Tensor = tensor, streams: list[Any] = streams, batch: Array = batch
        ) -> Array:
            drawn = [torch.Generator().manual_seed(torch_seed(stream)) for stream in streams[part]]
            encoded = codec.encode(tensor[part].to(device).float() / 255, *([drawn] if sampled else []))
            return _checked(encoded, batch[part], data)

        latents += limit.parts(make, len(batch))
        if shapes := {part.shape[1:] for part in latents} - {latents[0].shape[1:]}:
            raise ValueError(f"the codec gave latents of two shapes: {latents[0].shape[1:]} and {shapes.pop()}")
        bar.update(len(batch))
    facts = {
        "made_from": made_from,
        "pixels": pixels.hexdigest(),
        "sum": total.tolist(),
        "squares": squares.tolist(),
        "latent_shape": list(latents[0].shape[1:]),
        **limit.facts,
    }
    arrays = {"latents": np.concatenate(latents), "labels": data.labels[indices], "indices": indices.astype(np.int64)}
    write_atomic(path, _shard_bytes(arrays, facts))
    return facts


def _checked(encoded: Any, batch: Array, data: ImageData) -> Array:
    """The codec's answer as float16; ValueError naming the first image whose latent is not finite there."""
    if not isinstance(encoded, torch.Tensor) or encoded.ndim < 2 or len(encoded) != len(batch):
        shape = tuple(encoded.shape) if isinstance(encoded, torch.Tensor) else type(encoded).__name__
        raise ValueError(f"the codec's encode must give a tensor ({len(batch)}, *latent_shape), got {shape}")
    half = encoded.to(torch.float16)
    bad = (~torch.isfinite(half)).flatten(1).any(1).nonzero()
    if len(bad):
        row = int(bad[0, 0])
        index = int(batch[row])
        largest = float(encoded[row].abs().max())
        what = f"reach {largest:.3g}, beyond float16 (65504)" if np.isfinite(largest) else "are NaN or infinite"
        name = data.class_names[data.labels[index]]
        raise ValueError(
            f"the latents of image {index} of class {name!r} {what} ({data.where(index)}): check the codec's scaling"
        )
    return np.ascontiguousarray(half.cpu().numpy())


def _shard_bytes(arrays: dict[str, Array], facts: dict[str, Any]) -> bytes:
    content = hashlib.sha256(digest(facts).encode())
    for name in sorted(arrays):
        content.update(np.ascontiguousarray(arrays[name]).data)
    text = json.dumps({**facts, "content": content.hexdigest()}, sort_keys=True)
    return safetensors.numpy.save(arrays, metadata={"ddoq": text})


def _read_whole(path: Path, made_from: str) -> dict[str, Any] | None:
    """Metadata of a finished shard; None if it was made from something else. RunError if it is damaged."""
    data = path.read_bytes()
    try:
        arrays = safetensors.numpy.load(data)
        with safetensors.safe_open(path, framework="numpy") as shard:
            facts: dict[str, Any] = json.loads(shard.metadata()["ddoq"])
        facts.pop("content")
        whole = _shard_bytes(arrays, facts) == data
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}): delete it and run again to remake it") from error
    if not whole:
        raise RunError(f"{path} is damaged: delete it and run again to remake it")
    return facts if facts["made_from"] == made_from else None


def _take_over(source: Path, path: Path, made_from: str) -> dict[str, Any]:
    """Share another run's shard; its metadata. RunError if it is damaged or of other inputs."""
    facts = _read_whole(source, made_from)
    if facts is None:
        raise RunError(
            f"{source} was made from other images, by another codec or with other settings: its latents cannot be "
            "taken over (a codec that the other run has fitted must be given, as its folder `codec`)"
        )
    share(source, path)
    return facts


def _info(facts: list[dict[str, Any]], data: ImageData, shard_size: int) -> dict[str, Any]:
    """What later stages need to know; mean and standard deviation per channel are of the pixels in [0, 1]."""
    count = len(data) * data.image_size**2
    mean = [sum(column) / count for column in zip(*(shard["sum"] for shard in facts), strict=True)]
    squares = [sum(column) / count for column in zip(*(shard["squares"] for shard in facts), strict=True)]
    shapes = {tuple(shard["latent_shape"]) for shard in facts}
    if len(shapes) != 1:
        raise ValueError(f"the codec gave latents of different shapes: {sorted(shapes)}")
    return {
        "n": len(data),
        "latent_shape": list(shapes.pop()),
        "mean": [value / 255 for value in mean],
        "std": [max(square - value**2, 0.0) ** 0.5 / 255 for square, value in zip(squares, mean, strict=True)],
        "class_sizes": np.bincount(data.labels, minlength=len(data.class_names)),
        "shard_size": shard_size,
        "pixels": digest([shard["pixels"] for shard in facts]),
    }
