"""The stage "encode" makes every image's latent, in shards that are whole or absent.

    latents/shard-00000.safetensors   latents float16 (m, *latent_shape), labels int64 (m,), indices int64 (m,)

Rows go class by class, within a class in the order of the data set (`indices`), so that a class is read without the
others. Batches start anew in each shard: they, and so the bits, do not depend on where an earlier process stopped. A
shard's facts have the hash and the sums of its pixels.
"""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ddoq.data.image_data import ImageData
from ddoq.machine.memory import BatchSize
from ddoq.machine.streams import seed_sequence, torch_seed
from ddoq.models.codecs.codec import Codec
from ddoq.models.fingerprint import fingerprint
from ddoq.stages.data import Sums, record_data
from ddoq.stages.latents import latent_info, open_reusable, shard_path, take_over
from ddoq.storage.files import clean
from ddoq.storage.run import Run
from ddoq.storage.tensors import Array, read_facts, write_tensors
from ddoq.storage.values import digest


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

    The stage "data" is recorded on the way, since the images are read here anyway.

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
    >>> from ddoq.stages.latents import read_latents
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
    with run.stage("encode", inputs) as stage:
        if stage.done:
            return
        folder = run.path / "latents"
        folder.mkdir(exist_ok=True)
        clean(folder)
        order = np.argsort(data.labels, kind="stable")
        parts = [order[i : i + shard_size] for i in range(0, len(order), shard_size)]
        paths = [shard_path(run, number) for number in range(len(parts))]
        for stale in set(folder.glob("shard-*.safetensors")) - set(paths):
            stale.unlink()
        facts = []
        limit = BatchSize(batch_size)
        other = None if reuse is None else open_reusable(reuse, run.manifest["config"])
        with tqdm(total=len(order), desc="encode", unit="image", disable=not progress) as bar:
            for path, indices in zip(paths, parts, strict=True):
                made_from = digest([inputs, indices])
                kept = read_facts(path, made_from)
                if kept is None and other is not None and (theirs := other.path / "latents" / path.name).exists():
                    kept = take_over(theirs, path, made_from)
                if kept is None:
                    kept = _encode_shard(path, made_from, data, codec, indices, device, seed, limit, bar)
                else:
                    bar.update(len(indices))
                    bar.initial = bar.n  # so that the rate is that of this process
                    limit.take_over(kept)
                facts.append(kept)
        record_data(run, data, [Sums(shard["sum"], shard["squares"]) for shard in facts])
        stage.outputs, stage.info = paths, {**latent_info(facts, shard_size), **limit.facts}


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
    sums = []
    sampled = getattr(codec, "posterior", "mean") == "sample"
    for start in range(0, len(indices), limit.asked):
        batch = indices[start : start + limit.asked]
        images = data.images(batch)
        pixels.update(np.ascontiguousarray(images).data)
        sums.append(Sums.of(images))
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
    total = Sums.total(sums)
    facts = {
        "pixels": pixels.hexdigest(),
        "sum": list(total.values),
        "squares": list(total.squares),
        "latent_shape": list(latents[0].shape[1:]),
        **limit.facts,
    }
    arrays = {"latents": np.concatenate(latents), "labels": data.labels[indices], "indices": indices.astype(np.int64)}
    write_tensors(path, arrays, made_from, facts)
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
