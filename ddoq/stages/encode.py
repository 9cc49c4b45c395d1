"""The stage "encode" makes every image's latent, in shards that are whole or absent.

    latents/shard-00000.safetensors   latents float16 (m, *latent_shape), labels int64 (m,), indices int64 (m,)

Rows go class by class, within a class in the order of the data set (`indices`), so that a class is read without the
others. Batches start anew in each shard: they, and so the bits, do not depend on where an earlier process stopped. A
shard's facts have the hash and the sums of its pixels.
"""

from __future__ import annotations

import hashlib
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ddoq.data.image_data import ImageData
from ddoq.machine.memory import BatchSize, halved
from ddoq.machine.streams import seed_sequence
from ddoq.models.codecs.codec import Codec
from ddoq.models.codecs.encoding import Latents, check_shapes, encode_batch
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
        Images per call of the codec; part of the result, since sums round differently at other sizes. Halved in a
        shard where memory runs out, which is warned of and recorded.
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
        reusable = None if reuse is None else open_reusable(reuse, run.config)
        with tqdm(total=len(order), desc="encode", unit="image", disable=not progress) as bar:
            for number, (path, indices) in enumerate(zip(paths, parts, strict=True)):
                made_from = digest([inputs, indices])
                shard = read_facts(path, made_from)
                if shard is None and reusable is not None:
                    shard = take_over(shard_path(reusable, number), path, made_from)
                if shard is None:
                    arrays, shard = _encode_shard(data, codec, indices, device, seed, batch_size, bar)
                    write_tensors(path, arrays, made_from, shard)
                else:
                    bar.update(len(indices))
                    bar.initial = bar.n  # so that the rate is that of this process
                facts.append(shard)
        record_data(run, data, [Sums(shard["sum"], shard["squares"]) for shard in facts])
        stage.outputs, stage.info = paths, {**latent_info(facts, shard_size), **halved(facts)}


def _encode_shard(
    data: ImageData,
    codec: Codec,
    indices: NDArray[np.int64],
    device: torch.device | str,
    seed: int,
    batch_size: int,
    bar: tqdm[Any],
) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays of one shard and its facts.

    It begins with whole batches, however small those of other shards had to be made: no shard depends on another.
    """
    limit = BatchSize(batch_size)
    latents: list[Latents] = []
    sums: list[Sums] = []
    pixels = hashlib.sha256()
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        images = data.images(batch)
        pixels.update(np.ascontiguousarray(images).data)
        sums.append(Sums.of(images))

        def stream_of(row: int, batch: NDArray[np.int64] = batch) -> np.random.SeedSequence:
            return seed_sequence(seed, "encode", batch[row])

        def name_of(row: int, batch: NDArray[np.int64] = batch) -> str:
            index = int(batch[row])
            return f"image {index} of class {data.class_names[data.labels[index]]!r} ({data.where(index)})"

        latents.append(encode_batch(codec, images, stream_of, device, limit, name_of))
        bar.update(len(batch))
    check_shapes(latents[0].shape[1:], latents)
    total = Sums.total(sums)
    facts = {
        "pixels": pixels.hexdigest(),
        "sum": list(total.values),
        "squares": list(total.squares),
        "latent_shape": list(latents[0].shape[1:]),
        **limit.facts,
    }
    return {
        "latents": np.concatenate(latents),
        "labels": data.labels[indices],
        "indices": indices.astype(np.int64),
    }, facts
