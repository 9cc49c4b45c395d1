"""The stage "quantize" makes points with weights of the latents of every class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from ddoq.machine.streams import seed_sequence
from ddoq.quantization.quantize import quantize_classes
from ddoq.quantization.result import ClassQuantization
from ddoq.stages.latents import read_latents
from ddoq.storage.points import POINTS, Points, write_points
from ddoq.storage.run import Run

GROUP_BYTES = 1 << 30  # latents of neighbouring classes quantised in one call, so that classes run side by side


def quantize_run(
    run: Run,
    options: dict[str, Any],
    ipc: int,
    *,
    seed: int = 0,
    n_threads: int | None = None,
    progress: bool = True,
) -> None:
    """Quantise the latents of every class of a run, a group of classes at a time.

    Parameters
    ----------
    run
        Opened by `Run.locked`, with the stage encode done.
    options
        Of `ddoq.quantize_classes`.
    ipc
        Points per class.
    seed
        Each class has its own stream, by number.

    Raises
    ------
    ValueError
        A class has fewer distinct latents than points; names the class.
    RunError
        A shard of latents is missing or damaged, by name.

    Examples
    --------
    >>> import tempfile
    >>> from ddoq.models.codecs.codec import open_codec
    >>> from ddoq.data.image_data import open_data
    >>> from ddoq.stages.encode import encode
    >>> images = np.array([0, 0, 255, 255], np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    >>> data = open_data((images, ["cat", "dog", "cat", "dog"]))
    >>> with Run.locked(tempfile.mkdtemp(), {}, data.class_names) as run:
    ...     encode(run, data, open_codec("identity"), device="cpu", progress=False)
    ...     quantize_run(run, {"method": "lloyd"}, 1, progress=False)
    >>> run.info("quantize")["w2"]  # from grey to black and white: half a unit in each of 64 pixels
    4.0
    """
    inputs = {"latents": run.output("encode"), "ipc": ipc, "seed": seed, **options}
    with run.stage("quantize", inputs) as stage:
        if stage.done:
            return
        results = _quantize_classes(run, options, ipc, seed, n_threads, progress)
        points = _joined(results, run.info("encode")["latent_shape"])
        stage.outputs = [run.path / POINTS]
        write_points(run.path / POINTS, points)
        stage.info = {
            "w2": float(np.sqrt(points.distortion).mean()),
            "n_iter": [int(n) for result in results for n in result.n_iter],
        }


def _quantize_classes(
    run: Run, options: dict[str, Any], ipc: int, seed: int, n_threads: int | None, progress: bool
) -> list[ClassQuantization]:
    """The quantisations of groups of neighbouring classes, in class order."""
    names = run.class_names
    results = []
    group: list[tuple[int, np.ndarray[Any, Any]]] = []
    with tqdm(total=len(names), desc="quantize", unit="class", disable=not progress) as bar:
        for c in range(len(names)):
            group.append((c, read_latents(run, c)[0].astype(np.float32)))
            if c + 1 == len(names) or sum(latents.nbytes for _, latents in group) >= GROUP_BYTES:
                results.append(_quantize_group(group, names, options, ipc, seed, n_threads, bar))
                group = []
    return results


def _joined(results: Sequence[ClassQuantization], latent_shape: Sequence[int]) -> Points:
    """The points of all groups, in class order."""
    sizes = np.concatenate([np.diff(result.offsets) for result in results])
    return Points(
        np.concatenate([result.points for result in results]).reshape(-1, *latent_shape),
        np.concatenate([result.weights for result in results]),
        np.concatenate([result.counts for result in results]),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.concatenate([result.distortion for result in results]),
    )


def _quantize_group(
    group: list[tuple[int, np.ndarray[Any, Any]]],
    names: Sequence[str],
    options: dict[str, Any],
    ipc: int,
    seed: int,
    n_threads: int | None,
    bar: tqdm[Any],
) -> ClassQuantization:
    first = bar.n

    def show(done: int) -> None:
        bar.update(first + done - bar.n)

    # labelled by padded number and name: sorted order is class order, and an error names the class
    classes = [f"{c:06d} {names[c]}" for c, _ in group]
    return quantize_classes(
        np.concatenate([latents for _, latents in group]),
        np.repeat(classes, [len(latents) for _, latents in group]),
        ipc,
        **options,
        random_state=[seed_sequence(seed, "quantize", c) for c, _ in group],
        n_threads=n_threads,
        progress=show,
    )
