"""ImageNette at 112 px through TAEF2 as a user's own codec: W2 of points and weights to the data at IPC 10 and 50.

    python benchmarks/imagenette.py WORK            # 8 minutes on 2 cores; resumes
    python benchmarks/imagenette.py HELD_OUT --val  # only encodes the validation images: what distortion.py holds out

W2 (mean over the 10 classes) between a class's latents and its points, with the Voronoi weights and with uniform ones
(exact optimal transport), for Lloyd (`refine="none"`), Lloyd with Hartigan moves, and scikit-learn's MiniBatchKMeans
run as D4M does (partial_fit on batches of km_expand * ipc shuffled latents, one pass, the remainder flushed; km_expand
1 as its script ships and 10 as its default). Also: labels and inertia against scikit-learn's KMeans, same start.
Results: results/imagenette.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import data_dir, facts, load_result, peak_memory_gib, save_result, unpack
from sklearn.cluster import KMeans
from taef2 import TAEF2
from threadpoolctl import threadpool_limits

import ddoq
from ddoq.data.image_data import open_data
from ddoq.models.codecs.codec import open_codec
from ddoq.models.fingerprint import fingerprint
from ddoq.quantization.minibatch import minibatch_points
from ddoq.stages.encode import encode
from ddoq.stages.latents import read_latents
from ddoq.storage.run import Run

SIZE = 112  # pixels
NAMES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def encode_validation(work: Path) -> None:
    """The latents of the 3,925 validation images in WORK/run, through the same codec; resumes shard by shard."""
    codec = open_codec(TAEF2(data_dir() / "taef2"))
    data = open_data(unpack(work / "imagenette", "imagenette/val") / "val", image_size=SIZE, channels=TAEF2.channels)
    config = {"data": data.fingerprint, "codec": fingerprint(codec), "image_size": SIZE}
    with Run.locked(work / "run", config, data.class_names) as run:
        encode(run, data, codec, device="cpu")


def minibatch_as_d4m(latents: np.ndarray, ipc: int, km_expand: int, seed: int) -> np.ndarray:
    return minibatch_points(latents, ipc, np.random.default_rng(seed), expand=km_expand)


def methods(latents: np.ndarray, ipc: int, seed: int) -> dict[str, np.ndarray]:
    return {
        "lloyd": ddoq.quantize(latents, ipc, refine="none", random_state=seed).points,
        "lloyd + hartigan": ddoq.quantize(latents, ipc, refine="hartigan", random_state=seed).points,
        "minibatch, km_expand 1": minibatch_as_d4m(latents, ipc, 1, seed),
        "minibatch, km_expand 10": minibatch_as_d4m(latents, ipc, 10, seed),
        "random images": latents[np.random.default_rng(seed).choice(len(latents), ipc, replace=False)],
    }


def against_scikit_learn(latents: np.ndarray, ipc: int, seed: int) -> dict[str, float]:
    start = latents[np.random.default_rng(seed).choice(len(latents), ipc, replace=False)]
    ours = ddoq.quantize(latents, ipc, init=start, refine="none")
    theirs = KMeans(ipc, init=start, n_init=1, tol=0, algorithm="lloyd", max_iter=300).fit(latents)
    inertia = ours.distortion * len(latents)
    return {
        "labels_differ": int((ours.labels != theirs.labels_).sum()),
        "inertia_relative_difference": abs(inertia - theirs.inertia_) / theirs.inertia_,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for the unpacked images and the run")
    parser.add_argument("--val", action="store_true", help="only encode the validation images, into WORK/run")
    options = parser.parse_args()
    work = options.work
    if options.val:
        encode_validation(work)
        return
    result = load_result("imagenette") or {"facts": facts(), "w2": {}, "scikit_learn": {}}
    fresh = not (work / "run").exists()  # a resumed run's times are those of its last process
    images = unpack(work / "imagenette", "imagenette/train_a", "imagenette/train_b") / "train"
    dataset = ddoq.distill(
        images, work / "run", ipc=10, codec=TAEF2(data_dir() / "taef2"), synthesis="decode", image_size=SIZE
    )
    run = Run.open(work / "run")
    if "distill" not in result:
        stages = {name: round(stage["seconds"], 1) for name, stage in run.manifest["stages"].items()}
        result["distill"] = {
            "images": len(dataset),
            "n": run.info("data")["n"],
            "stage_seconds": stages,
            "peak_memory_gib": round(peak_memory_gib(), 2),
            "resumed": not fresh,
        }
        save_result("imagenette", result)
    for c, wnid in enumerate(dataset.class_names):
        latents = read_latents(run, c)[0].astype(np.float32)
        for ipc in (10, 50):
            key = f"{NAMES[wnid]}, ipc {ipc}"
            if key in result["w2"]:
                continue
            with threadpool_limits(2):
                result["scikit_learn"][key] = against_scikit_learn(latents, ipc, seed=c)
                points = methods(latents, ipc, seed=c)
            result["w2"][key] = {
                name: {
                    "weighted": ddoq.w2(latents, p),
                    "uniform": ddoq.w2(latents, p, np.full(ipc, 1 / ipc)),
                }
                for name, p in points.items()
            }
            result["w2"][key]["one point"] = {"weighted": ddoq.w2(latents, latents.mean(0, keepdims=True))}
            save_result("imagenette", result)
            print(key, result["w2"][key]["lloyd"], result["scikit_learn"][key], flush=True)
    print_table(result)


def print_table(result: dict[str, Any]) -> None:
    print(f"{'W2, mean over classes':28s}{'weighted':>10s}{'uniform':>10s}")
    for ipc in (10, 50):
        rows = [value for key, value in result["w2"].items() if key.endswith(f"ipc {ipc}")]
        for name in rows[0]:
            means = {kind: np.mean([row[name][kind] for row in rows]) for kind in rows[0][name]}
            print(f"ipc {ipc}: {name:20s}" + "".join(f"{value:10.2f}" for value in means.values()))
    worst = max(row["inertia_relative_difference"] for row in result["scikit_learn"].values())
    differ = sum(row["labels_differ"] for row in result["scikit_learn"].values())
    print(f"against scikit-learn from the same start: {differ} labels differ, inertia to {worst:.1e}")


if __name__ == "__main__":
    main()
