"""From points to images: the three syntheses, resume after kill -9, damage, and results that are no images."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image
from torch import Tensor

from ddoq.data.image_data import ImageData, open_data
from ddoq.data.weights import class_weights
from ddoq.models.codecs.codec import open_codec
from ddoq.stages.encode import encode
from ddoq.stages.results import Style, result_folder
from ddoq.stages.synthesize import ImageModels, Sampling, synthesize
from ddoq.storage.points import POINTS, Points, write_points
from ddoq.storage.run import Run, RunError

NAMES = ["zebra", "ant"]
COUNTS = np.array([5, 3, 2, 6, 4])
OFFSETS = np.array([0, 3, 5])


def grey(n: int = 20) -> ImageData:
    """Flat images, one class darker than the other: class 0 has the shades 0 to 9, class 1 the shades 100 to 109."""
    shades = np.arange(n) // 2 + np.where(np.arange(n) % 2, 100, 0)
    images = np.broadcast_to(shades[:, None, None], (n, 4, 4)).astype(np.uint8)
    return open_data((images, np.arange(n) % 2), class_names=NAMES)


@contextmanager
def prepared(
    path: Path, shades: Sequence[float] = (1, 1.2, 8, 103, 104), data: ImageData | None = None
) -> Iterator[Run]:
    """A run with the stages encode and quantize done: three points of class 0, two of 1, of these shades."""
    data = grey() if data is None else data
    config = {"synthesis": "decode", "weighting": "density", "class_prior": "balanced"}
    with Run.locked(path, config, data.class_names) as run:
        encode(run, data, open_codec("identity"), device="cpu", progress=False)
        points = np.repeat(np.array(shades, np.float32)[:, None] / 255, 16, axis=1).reshape(-1, 1, 4, 4)
        file = run.path / POINTS
        write_points(file, Points(points, COUNTS / 10, COUNTS, OFFSETS, np.zeros(2)))
        if not run.done("quantize", {}):
            run.record("quantize", {}, [file], seconds=0, info={})
        yield run


def make(
    run: Run, synthesis: Any, codec: Any = "identity", diffusion: Any = None, control: bool = False, **options: Any
) -> Path:
    data = options.pop("data", None) or grey()
    sampling = Sampling(**{name: options.pop(name) for name in ("strength", "steps", "guidance") if name in options})
    style = Style(**{name: options.pop(name) for name in ("weighting", "output_size") if name in options})
    models = ImageModels(open_codec(codec), diffusion, sampling)
    settings: dict[str, Any] = {"control": control, "batch_size": 2, "progress": False, **options}
    synthesize(run, data, models, synthesis, style, **settings)
    return result_folder(run, synthesis if control else None)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def shades(folder: Path) -> list[int]:
    """The one grey level of each image, in the order of metadata.jsonl."""
    pixels = [np.asarray(Image.open(folder / row["file_name"])) for row in rows(folder)]
    assert all((p == p[0, 0]).all() for p in pixels)
    return [int(p[0, 0]) for p in pixels]


def artefacts(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_decode_writes_each_point_with_its_class_and_weight(tmp_path: Path) -> None:
    with prepared(tmp_path) as run:
        folder = make(run, "decode")
        assert shades(folder) == [1, 1, 8, 103, 104]
        assert [row["class_name"] for row in rows(folder)] == ["zebra"] * 3 + ["ant"] * 2
        assert [row["count"] for row in rows(folder)] == COUNTS.tolist()
        assert [row["weight"] for row in rows(folder)] == pytest.approx(class_weights(COUNTS, OFFSETS, "density"))
        # W2 to the images of shades 1, 1, 8 and 103, 104, by the nearest of each of the ten shades of a class
        w2 = (np.sqrt(16 * 3.0) + np.sqrt(16 * 6.9)) / 2 / 255
        info = {"images": 5, "synthesis": "decode", "batch_size": 2, "w2": pytest.approx(w2, rel=1e-2)}  # float16
        assert run.info("synthesize") == info
        assert not (run.path / "work").exists()
        run.verify()


def test_images_are_counted_in_the_cells_of_their_own_latents(tmp_path: Path) -> None:
    with prepared(tmp_path) as run:
        folder = make(run, "decode")
        # decoding rounds the points 1 and 1.2 to one shade: the first of the two equal images takes the whole cell
        assert [row["reencoded"] for row in rows(folder)] == [5, 0, 5, 4, 6]
        kept = safetensors.numpy.load_file(run.path / "images.safetensors")
        assert kept["counts"].tolist() == [5, 0, 5, 4, 6]
        assert (kept["latents"].dtype, kept["latents"].shape) == (np.float16, (5, 1, 4, 4))
        assert kept["latents"][:, 0, 0, 0] * 255 == pytest.approx([1, 1, 8, 103, 104], rel=1e-3)
        assert kept["distortion"] * 255**2 / 16 == pytest.approx([3, 6.9], rel=1e-2)
        (run.path / "images.safetensors").unlink()
        make(run, "decode")  # made again, the same
        assert safetensors.numpy.load_file(run.path / "images.safetensors")["counts"].tolist() == [5, 0, 5, 4, 6]


def test_weighting_reencoded_is_what_the_metadata_carries(tmp_path: Path) -> None:
    with prepared(tmp_path) as run:
        folder = make(run, "decode", weighting="reencoded")
        assert [row["weight"] for row in rows(folder)] == pytest.approx([1.25, 0, 1.25, 1, 1.5])
        assert [row["count"] for row in rows(folder)] == COUNTS.tolist()
        # real images lie in their own cells: the class's ten shades go to the nearest of 1, 2, 8 and of 103, 104
        assert [row["reencoded"] for row in rows(make(run, "nearest", control=True))] == [2, 4, 4, 4, 6]


class Unlike:
    """Decodes as it should, and encodes the images it decoded to something else."""

    def __init__(self, encoded: Callable[[Tensor], Tensor]) -> None:
        self.encoded = encoded

    fingerprint = "unlike"

    def encode(self, images: Tensor) -> Tensor:
        return self.encoded(images)

    def decode(self, latents: Tensor) -> Tensor:
        return latents


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (lambda images: images.flatten(1), r"latents of two shapes: \(1, 4, 4\) and \(16,\)"),
        (
            lambda images: torch.where(images > 0.4, torch.nan, images),
            "image 0 of class 'ant' are NaN or infinite: check the codec's",
        ),
    ],
)
def test_images_that_cannot_be_encoded_again(tmp_path: Path, encoded: Callable[[Tensor], Tensor], message: str) -> None:
    with prepared(tmp_path) as run, pytest.raises(ValueError, match=message):
        make(run, "decode", Unlike(encoded))


def test_nearest_takes_distinct_real_images_with_the_least_total_distance(tmp_path: Path) -> None:
    with prepared(tmp_path) as run:
        folder = make(run, "nearest", control=True)
        # both points near shade 1 want image 1: the one at 1.2 takes shade 2, which costs less than any other way
        assert shades(folder) == [1, 2, 8, 103, 104]
        data = grey()
        sources = [row["source_index"] for row in rows(folder)]
        assert [int(image[0, 0, 0]) for image in data.images(sources)] == shades(folder)
        assert [NAMES[data.labels[source]] for source in sources] == [row["class_name"] for row in rows(folder)]
        assert "synthesize:nearest" in run.manifest["stages"]


def test_nearest_is_the_best_of_all_matchings_and_takes_no_duplicate_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (6, 4, 4), np.uint8)
    images = np.concatenate([np.repeat(pixels, 2, axis=0), np.repeat(255 - pixels, 2, axis=0)])
    data = open_data((images, np.repeat([0, 1], 12)), class_names=NAMES)
    wanted = (10.0, 120.0, 240.0, 100.0, 200.0)
    with prepared(tmp_path, wanted, data) as run:
        sources = [row["source_index"] for row in rows(make(run, "nearest", data=data))]
    assert all(source % 2 == 0 for source in sources)  # of two equal images the first
    cost = ((pixels.reshape(6, 1, 16) / 255 - np.array(wanted[:3])[:, None] / 255) ** 2).sum(2)
    best = min(sum(cost[i, p] for p, i in enumerate(chosen)) for chosen in itertools.permutations(range(6), 3))
    assert sum(cost[s // 2, p] for p, s in enumerate(sources[:3])) == pytest.approx(best, rel=1e-3)  # float16 latents


class Noise:
    """A diffusion model that returns its class plus noise, and counts its calls."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    fingerprint = "noise"

    def sample(self, points: Tensor, classes: Tensor, generators: Sequence[torch.Generator], **settings: Any) -> Tensor:
        self.calls.append({"classes": classes.tolist(), **settings})
        noise = [torch.rand(1, generator=g) / 4 for g in generators]
        return classes.reshape(-1, 1, 1, 1) / 2 + torch.stack(noise).reshape(-1, 1, 1, 1).expand_as(points)


class Known(Noise):
    def default_strength(self, steps: int) -> float:
        return 20 / steps

    def keep(self, strength: float, steps: int) -> float:
        return 1 - strength


def test_diffuse_gives_each_image_its_class_and_its_own_noise(tmp_path: Path) -> None:
    results = []
    for batch_size in (2, 5):
        with prepared(tmp_path / str(batch_size)) as run:
            model = Noise()
            folder = make(run, "diffuse", diffusion=model, batch_size=batch_size, steps=7, guidance=2.0, strength=0.6)
            results.append(shades(folder))
            assert [c for call in model.calls for c in call["classes"]] == [0, 0, 0, 1, 1]
            assert all(call["strength"] == 0.6 and call["steps"] == 7 and call["guidance"] == 2 for call in model.calls)
    assert results[0] == results[1]
    assert len(set(results[0])) == 5
    assert max(results[0][:3]) < 0.3 * 255 < min(results[0][3:])
    with prepared(tmp_path / "other") as run:
        assert shades(make(run, "diffuse", diffusion=Noise(), seed=1)) != results[0]


def test_strength_and_share_kept_are_recorded(tmp_path: Path) -> None:
    with prepared(tmp_path / "known") as run:
        model = Known()
        make(run, "diffuse", diffusion=model, guidance=1.0)
        info = run.info("synthesize")
        assert (info["strength"], info["keep"], info["steps"], info["guidance"]) == (0.8, pytest.approx(0.2), 25, 1.0)
        assert model.calls[0]["strength"] == 0.8
    with prepared(tmp_path / "unknown") as run:
        make(run, "diffuse", diffusion=Noise())
        assert (run.info("synthesize")["strength"], run.info("synthesize")["keep"]) == (None, None)


def test_done_is_skipped_and_a_deleted_image_made_again(tmp_path: Path) -> None:
    with prepared(tmp_path) as run:
        model = Noise()
        folder = make(run, "diffuse", diffusion=model)
        before, calls = artefacts(folder), len(model.calls)
        make(run, "diffuse", diffusion=model)
        assert len(model.calls) == calls
        next(folder.glob("*/00001.png")).unlink()
        make(run, "diffuse", diffusion=model)
        assert artefacts(folder) == before
        make(run, "diffuse", diffusion=model, guidance=3.0)  # other settings are other images
        assert len(model.calls) == 3 * calls


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_synthesize import Noise, make, prepared

class Killer(Noise):
    def sample(self, *arguments, **settings):
        if len(self.calls) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(*arguments, **settings)

if __name__ == "__main__":
    with prepared(Path(sys.argv[1])) as run:
        make(run, "diffuse", diffusion=Killer())
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed in its second batch; each test takes a copy."""
    path = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)]
    result = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert result.returncode == -signal.SIGKILL
    assert [batch.name for batch in (path / "work" / "images").iterdir()] == ["batch-000000.safetensors"]
    assert not (path / "images").exists()
    return path


def test_killed_run_goes_on_at_the_batch_in_flight_to_the_same_bytes(killed: Path, tmp_path: Path) -> None:
    with prepared(tmp_path / "undisturbed") as run:
        expected = artefacts(make(run, "diffuse", diffusion=Noise()))
    shutil.copytree(killed, tmp_path / "killed")
    with prepared(tmp_path / "killed") as run:
        model = Noise()
        assert artefacts(make(run, "diffuse", diffusion=model)) == expected
        assert len(model.calls) == 2  # of three
        assert not (run.path / "work").exists()


class Scarce(Noise):
    """Memory for so many images; interrupted before a call."""

    def __init__(self, room: int, interrupted: int | None = None) -> None:
        super().__init__()
        self.room, self.interrupted = room, interrupted

    def sample(self, points: Tensor, *arguments: Any, **settings: Any) -> Tensor:
        if len(self.calls) == self.interrupted:
            raise KeyboardInterrupt
        if len(points) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().sample(points, *arguments, **settings)


def test_each_batch_is_halved_for_itself_and_the_smallest_is_recorded(tmp_path: Path) -> None:
    with prepared(tmp_path) as run:
        with pytest.warns(RuntimeWarning, match="out of memory"), pytest.raises(KeyboardInterrupt):
            make(run, "diffuse", diffusion=Scarce(1, interrupted=2))
        model = Scarce(2)
        make(run, "diffuse", diffusion=model)
        assert [call["classes"] for call in model.calls] == [[0, 1], [1]]  # the first batch is kept, of two halves
        assert run.info("synthesize")["halved_to"] == 1


@pytest.mark.parametrize("where", [-3, 10], ids=["pixels", "header"])
def test_damaged_batch_of_a_killed_run_is_named(killed: Path, tmp_path: Path, where: int) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    (batch,) = (tmp_path / "work" / "images").iterdir()
    content = bytearray(batch.read_bytes())
    content[where] ^= 1
    batch.write_bytes(content)
    with prepared(tmp_path) as run:
        with pytest.raises(RunError, match=batch.name):
            make(run, "diffuse", diffusion=Noise())
        batch.unlink()
        make(run, "diffuse", diffusion=Noise())


class Broken:
    """The identity, but for one mistake in what it decodes."""

    def __init__(self, mistake: Callable[[Tensor], Tensor]) -> None:
        self.mistake = mistake

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return self.mistake(latents)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda z: z[:-1], r"\(1, 1, 4, 4\).*\(2, 1, 4, 4\)"),
        (lambda z: z[:, 0], r"\(2, 4, 4\).*\(2, 1, 4, 4\)"),
        (lambda z: z.repeat(1, 3, 1, 1), "image_size"),
        (lambda z: z[:, :, :2, :2], "image_size"),
        (lambda z: torch.where(z > 100 / 255, torch.nan, z), "NaN.*point 0 of class 'ant'"),
    ],
    ids=["batch", "dimensions", "channels", "size", "nan"],
)
def test_decoded_images_of_the_wrong_kind_are_refused(tmp_path: Path, mistake: Any, message: str) -> None:
    with prepared(tmp_path) as run, pytest.raises(ValueError, match=message):
        make(run, "decode", codec=Broken(mistake))


def test_mistakes_of_a_diffusion_model_are_named_with_class_and_position(tmp_path: Path) -> None:
    class Burst(Noise):
        def sample(self, points: Tensor, classes: Tensor, *rest: Any, **settings: Any) -> Tensor:
            return torch.where((classes == 1).reshape(-1, 1, 1, 1), torch.nan, points)

    class Short(Noise):
        def sample(self, points: Tensor, *rest: Any, **settings: Any) -> Tensor:
            return points[1:]

    with prepared(tmp_path) as run:
        with pytest.raises(ValueError, match=r"Burst\.sample.*point 0 of class 'ant'"):
            make(run, "diffuse", diffusion=Burst())
        with pytest.raises(ValueError, match=r"Short\.sample.*\(1, 1, 4, 4\)"):
            make(run, "diffuse", diffusion=Short())
        with pytest.raises(ValueError, match="needs a diffusion model"):
            make(run, "diffuse")
        with pytest.raises(ValueError, match="strength"):
            make(run, "diffuse", diffusion=Noise(), strength=1.5)
