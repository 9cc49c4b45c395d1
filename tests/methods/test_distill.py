"""The whole pipeline on small real data: resume, kill -9, damage, class order, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import ddoq
from ddoq.storage.run import RunError


def digits(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    return (bunch.images[:n] * 15).astype(np.uint8), bunch.target[:n]


def artefacts(run: Path) -> dict[str, bytes]:
    """Every file but the manifest (it holds times), the lock and the training logs."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "run.lock") and "train" not in path.relative_to(run).parts
    }


def small(out: Path, **options: object) -> ddoq.DistilledDataset:
    settings: dict = {"ipc": 3, "codec": "identity", "synthesis": "decode", "progress": False, **options}
    return ddoq.distill(digits(), out, **settings)


def distil_fitted(out: Path) -> None:
    steps = {"codec_steps": 20, "diffusion_steps": 20, "steps": 4}
    ddoq.distill(digits(), out, ipc=3, controls=("decode", "nearest"), progress=False, **steps)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a fitted codec and a fitted diffusion model, a few training steps each."""
    out = tmp_path_factory.mktemp("fitted") / "run"
    distil_fitted(out)
    return out


def test_pipeline_writes_the_run_folder(fitted: Path) -> None:
    dataset = ddoq.load(fitted)
    assert len(dataset) == 30
    assert tuple(dataset.images.shape) == (30, 1, 8, 8)
    assert dataset.class_names == tuple("0123456789")
    assert float(dataset.weights.mean()) == pytest.approx(1)
    manifest = json.loads((fitted / "run.json").read_text())
    assert manifest["class_names"] == list("0123456789")
    assert {
        "codec",
        "data",
        "encode",
        "quantize",
        "diffusion",
        "synthesize",
        "synthesize:decode",
        "synthesize:nearest",
    } == set(manifest["stages"])
    assert (fitted / "images" / "0003_3" / "00002.png").is_file()
    image, target, weight = dataset[4]
    assert image.shape == (1, 8, 8)
    assert (target, weight) == (1, pytest.approx(float(dataset.weights[4])))


def test_controls_share_the_points_and_weights(fitted: Path) -> None:
    main, decode, nearest = (ddoq.load(fitted, synthesis=name) for name in (None, "decode", "nearest"))
    assert np.array_equal(main.weights, decode.weights)
    assert np.array_equal(main.weights, nearest.weights)
    assert not np.array_equal(main.images, decode.images)
    real = {image.tobytes() for image in digits()[0]}
    assert all(image.numpy().tobytes() in real for image in nearest.images[:, 0])


def test_second_call_changes_nothing(fitted: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in fitted.rglob("*") if path.is_file() and path.name != "run.lock"}
    distil_fitted(fitted)
    after = {path: path.stat().st_mtime_ns for path in fitted.rglob("*") if path.is_file() and path.name != "run.lock"}
    assert before == after


def test_same_seed_same_bytes_any_number_of_threads(tmp_path: Path) -> None:
    small(tmp_path / "a", n_threads=1)
    small(tmp_path / "b", n_threads=3)
    assert artefacts(tmp_path / "a") == artefacts(tmp_path / "b")
    small(tmp_path / "c", seed=1)
    assert artefacts(tmp_path / "a") != artefacts(tmp_path / "c")


# Slow on purpose: a user's codec that sleeps gives the parent time to kill the process inside a stage.
SLOW_RUN = """
import sys, time
import numpy as np
import torch
from sklearn.datasets import load_digits
import ddoq

torch.set_num_threads(1)

class Slow:
    fingerprint = "slow identity"

    def __init__(self, pause):
        self.pause = pause

    def encode(self, images):
        time.sleep(self.pause)
        return images - 0.5

    def decode(self, latents):
        time.sleep(self.pause)
        return (latents + 0.5).clamp(0, 1)

if __name__ == "__main__":
    out, pause = sys.argv[1], float(sys.argv[2])
    bunch = load_digits()
    images = np.tile((bunch.images * 15).astype(np.uint8), (3, 1, 1))  # 5,391 images: several shards
    images[1797:3594, 0, 0] = 1
    images[3594:, 0, 0] = 2
    ddoq.distill((images, np.tile(bunch.target, 3)), out, ipc=40, codec=Slow(pause), synthesis="decode", n_init=60,
                 n_threads=1, progress=False)
"""


def stages(run: Path) -> set[str]:
    try:
        return set(json.loads((run / "run.json").read_text())["stages"])
    except FileNotFoundError:
        return set()


def in_encode(run: Path) -> bool:
    return len(list((run / "latents").glob("shard-*.safetensors"))) >= 2 and "encode" not in stages(run)


def in_quantize(run: Path) -> bool:
    return "encode" in stages(run) and "quantize" not in stages(run)


def in_synthesize(run: Path) -> bool:
    return "quantize" in stages(run) and "synthesize" not in stages(run)


def test_kill_minus_9_then_resume_gives_the_same_bytes(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW_RUN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(out: Path, pause: float) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(script), str(out), str(pause)], env=environment)

    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert start(undisturbed, 0.0).wait() == 0
    for inside in (in_encode, in_quantize, in_synthesize):
        process = start(killed, 0.1)
        while not inside(killed):
            assert process.poll() is None, f"the run ended before {inside.__name__}"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert inside(killed), f"killed too late for {inside.__name__}"
    assert start(killed, 0.0).wait() == 0
    assert artefacts(killed) == artefacts(undisturbed)
    ours, theirs = (json.loads((run / "run.json").read_text()) for run in (killed, undisturbed))
    for name, stage in ours["stages"].items():
        assert stage["outputs"] == theirs["stages"][name]["outputs"]


def test_flipped_byte_is_noticed_and_named(fitted: Path, tmp_path: Path) -> None:
    import shutil

    for relative in ["run.json", *artefacts(fitted)]:
        if relative.startswith("images/") and relative.endswith("1.png"):
            continue  # two of three images are enough
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(fitted, copy)
        content = bytearray((copy / relative).read_bytes())
        content[len(content) // 2] ^= 0x10
        (copy / relative).write_bytes(content)
        with pytest.raises((RunError, OSError), match=Path(relative).name.replace(".", r"\.")):
            ddoq.storage.run.Run.open(copy).verify()


AWKWARD = ["10", "2", "1", "Übung", "猫", "two words"]


def test_class_order_with_awkward_names(tmp_path: Path) -> None:
    for value, name in enumerate(AWKWARD):
        (tmp_path / "data" / name).mkdir(parents=True)
        for shade in range(4):
            pixels = np.full((16, 16, 3), 40 * value + shade, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{shade}.png")
    small_run = tmp_path / "run"
    dataset = ddoq.distill(tmp_path / "data", small_run, ipc=2, codec="identity", synthesis="nearest", progress=False)
    assert dataset.class_names == tuple(sorted(AWKWARD))
    for image, target, _ in (dataset[i] for i in range(len(dataset))):
        assert AWKWARD[round(float(image.mean()) * 255) // 40] == dataset.class_names[target]
    for line in (small_run / "images" / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        with Image.open(small_run / "images" / row["file_name"]) as image:
            assert (
                AWKWARD[int(np.asarray(image).mean()) // 40] == row["class_name"] == dataset.class_names[row["label"]]
            )


def test_another_configuration_is_refused_by_name(tmp_path: Path) -> None:
    small(tmp_path / "run")
    with pytest.raises(RunError, match="ipc"):
        small(tmp_path / "run", ipc=4)
    with pytest.raises(RunError, match="data"):
        ddoq.distill(digits(299), tmp_path / "run", ipc=3, codec="identity", synthesis="decode", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ipc": 0}, "ipc"),
        ({"ipc": True}, "ipc"),
        ({"ipc": 10_000}, "class"),
        ({"synthesis": "dream"}, "dream"),
        ({"controls": ("dream",)}, "dream"),
        ({"codec": "/no/such/folder"}, "/no/such/folder"),
        ({"strength": 1.5, "synthesis": "diffuse"}, "strength"),
        ({"codec": "fit", "codec_steps": 0}, "codec_steps"),
        ({"diffusion_steps": 0}, "diffusion_steps"),
        ({"strength": 0.5}, "strength: of synthesis='diffuse' alone"),
        (
            {"steps": 9, "guidance": 1.0, "synthesis": "nearest"},
            "steps, guidance: .*leave steps out",
        ),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError, OSError), match=message):
        small(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_more_points_than_distinct_images_names_the_class(tmp_path: Path) -> None:
    images = np.zeros((8, 8, 8), np.uint8)
    images[:4] = np.arange(4, dtype=np.uint8)[:, None, None]
    with pytest.raises(ValueError, match="dull"):
        ddoq.distill(
            (images, np.repeat([0, 1], 4)),
            tmp_path / "run",
            ipc=3,
            codec="identity",
            synthesis="decode",
            class_names=["lively", "dull"],
            progress=False,
        )


def test_a_refused_call_does_not_claim_the_folder(tmp_path: Path) -> None:
    data = np.repeat(np.arange(2, dtype=np.uint8), 3)[:, None, None] * np.ones((8, 8), np.uint8), np.repeat([0, 1], 3)
    settings: dict = {"codec": "identity", "synthesis": "decode", "progress": False}
    with pytest.raises(ValueError, match=r"ipc=3 .* 1 distinct images of class '0'"):
        ddoq.distill(data, tmp_path / "run", ipc=3, **settings)
    assert len(ddoq.distill(data, tmp_path / "run", ipc=1, **settings)) == 2


def test_nan_latents_name_the_class(tmp_path: Path) -> None:
    class Broken:
        def encode(self, images):  # type: ignore[no-untyped-def]
            return images / 0 * 0

        def decode(self, latents):  # type: ignore[no-untyped-def]
            return latents

    with pytest.raises(ValueError, match=r"class '?0"):
        small(tmp_path / "run", codec=Broken())


def test_truncated_jpeg_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            noise = np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "data" / name / f"{i}.jpg")
    victim = tmp_path / "data" / "b" / "1.jpg"
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises((ValueError, OSError), match=textwrap.dedent(r"b.1\.jpg")):
        ddoq.distill(tmp_path / "data", tmp_path / "run", ipc=1, codec="identity", synthesis="decode", progress=False)


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((OSError, RunError), match="file"):
        small(tmp_path / "file" / "run")


def test_latents_of_another_run_give_the_same_bytes(fitted: Path, tmp_path: Path) -> None:
    settings: dict = {"codec": fitted / "codec", "synthesis": "decode", "ipc": 4, "seed": 1}
    small(tmp_path / "without", **settings)
    small(tmp_path / "with", **settings, latents=fitted)
    assert artefacts(tmp_path / "with") == artefacts(tmp_path / "without")
    shard = "latents/shard-00000.safetensors"
    assert (tmp_path / "with" / shard).samefile(fitted / shard)
    small(tmp_path / "with", **settings)  # it is not part of the configuration
    small(tmp_path / "with", **settings, latents=tmp_path / "gone")  # nor needed any more


def test_latents_of_another_run_are_refused_by_what_differs(fitted: Path, tmp_path: Path) -> None:
    small(tmp_path / "first")
    out = tmp_path / "second"
    with pytest.raises(RunError, match=r"first are not those of this run \(data: "):
        ddoq.distill(digits(299), out, codec="identity", synthesis="decode", latents=tmp_path / "first", progress=False)
    with pytest.raises(RunError, match=r"\(batch_size: 64 there, 8 here\)"):
        small(out, latents=tmp_path / "first", batch_size=8)
    with pytest.raises(RunError, match=r"\(codec\.given: "):
        small(out, codec=fitted / "codec", latents=tmp_path / "first")
    with pytest.raises(RunError, match=r"\(codec\.fit: 20 there, 10 here; seed: 0 there, 1 here\)"):
        small(out, codec="fit", codec_steps=10, seed=1, latents=fitted)
    with pytest.raises(RunError, match="is not a run folder"):
        small(out, latents=tmp_path / "gone")
    (tmp_path / "first" / "latents" / "shard-00000.safetensors").unlink()
    with pytest.raises(RunError, match="has no latents to take over"):
        small(out, latents=tmp_path / "first")
    assert not out.exists()
