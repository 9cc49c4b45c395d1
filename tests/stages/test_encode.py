"""The encode stage: shards that resume to the same bytes, damage noticed, latents that cannot be stored named."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from ddoq.data.image_data import ImageData, open_data
from ddoq.stages.encode import encode
from ddoq.stages.latents import read_latents
from ddoq.storage.run import Run, RunError


class Halves:
    """A codec that keeps the left half of the pixels, and counts what it is asked for."""

    fingerprint = "left half"

    def __init__(self, stop_after: int | None = None) -> None:
        self.batches: list[int] = []
        self.stop_after = stop_after

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        assert images.dtype == torch.float32
        if len(self.batches) == self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(len(images))
        return images[..., :4]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Answer:
    """A codec whose latents are the pixels through a function."""

    fingerprint = "answer"

    def __init__(self, function: Any) -> None:
        self.function = function

    def encode(self, images: torch.Tensor) -> Any:
        return self.function(images)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def data(n: int = 50, classes: int = 3, channels: int = 1) -> ImageData:
    generator = np.random.default_rng(0)
    array = generator.integers(0, 256, (n, 8, 8, 3) if channels == 3 else (n, 8, 8), np.uint8)
    return open_data((array, generator.permutation(np.arange(n) % classes)))


def run_encode(folder: Path, source: ImageData, codec: Any, **options: Any) -> Run:
    settings = {"device": "cpu", "batch_size": 4, "shard_size": 10, "progress": False, **options}
    with Run.locked(folder, {}, source.class_names) as run:
        encode(run, source, codec, **settings)
        return run


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "latents").iterdir())}


def test_latents_class_by_class(tmp_path: Path) -> None:
    source = data()
    run = run_encode(tmp_path, source, Halves())
    assert sorted(shards(tmp_path)) == [f"shard-{i:05d}.safetensors" for i in range(5)]
    seen = []
    for label in range(3):
        latents, indices = read_latents(run, label)
        assert latents.dtype == np.float16
        assert indices.dtype == np.int64
        assert indices.tolist() == np.flatnonzero(source.labels == label).tolist()
        wanted = (source.images(indices)[..., :4].astype(np.float32) / np.float32(255)).astype(np.float16)
        assert np.array_equal(latents, wanted.reshape(len(indices), -1))
        seen += indices.tolist()
    assert sorted(seen) == list(range(50))
    assert run.info("encode")["latent_shape"] == [1, 8, 4]
    run.verify()


def test_second_call_computes_nothing(tmp_path: Path) -> None:
    run_encode(tmp_path, data(), Halves())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "run.lock"}
    codec = Halves()
    run_encode(tmp_path, data(), codec)
    assert codec.batches == []
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "run.lock"}


def test_interrupted_anywhere_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    run_encode(tmp_path / "whole", data(), Halves())
    for stop in range(15):  # a shard is three batches: 4, 4 and 2 images
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            run_encode(folder, data(), Halves(stop_after=stop))
        assert len(shards(folder)) == stop // 3  # whole shards stay, nothing else
        codec = Halves()
        run = run_encode(folder, data(), codec)
        assert codec.batches == [4, 4, 2] * (5 - stop // 3)
        assert shards(folder) == shards(tmp_path / "whole")
        whole = Run.open(tmp_path / "whole")
        assert run.output("encode") == whole.output("encode")
        assert run.info("encode") == whole.info("encode")


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_encode(tmp_path, data(), Halves(stop_after=4))
    (tmp_path / "latents" / ".shard-00001.safetensors.123.tmp").write_bytes(b"half")
    run_encode(tmp_path, data(), Halves())
    assert sorted(shards(tmp_path)) == [f"shard-{i:05d}.safetensors" for i in range(5)]


def test_any_change_of_an_unrecorded_shard_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_encode(tmp_path, data(), Halves(stop_after=4))
    shard = tmp_path / "latents" / "shard-00000.safetensors"
    whole = shard.read_bytes()
    for position in (*range(0, len(whole), 37), len(whole) - 1):
        changed = bytearray(whole)
        changed[position] ^= 0x29
        shard.write_bytes(changed)
        with pytest.raises(RunError, match=r"shard-00000\.safetensors is damaged.*delete it"):
            run_encode(tmp_path, data(), Halves())
    for size in (0, 7, 100, len(whole) - 1):
        shard.write_bytes(whole[:size])
        with pytest.raises(RunError, match=r"shard-00000\.safetensors is damaged"):
            run_encode(tmp_path, data(), Halves())
    shard.unlink()
    run_encode(tmp_path, data(), Halves()).verify()
    assert shard.read_bytes() == whole


def test_damage_of_a_recorded_shard_is_named_and_deleting_is_the_remedy(tmp_path: Path) -> None:
    run_encode(tmp_path, data(), Halves())
    shard = tmp_path / "latents" / "shard-00002.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RunError, match=r"shard-00002\.safetensors is damaged"):
        run_encode(tmp_path, data(), Halves())
    shard.unlink()
    codec = Halves()
    run_encode(tmp_path, data(), codec)
    assert codec.batches == [4, 4, 2]
    assert shard.read_bytes() == whole


def test_shards_of_another_codec_or_data_are_made_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_encode(tmp_path, data(), Halves(stop_after=9))
    codec = Halves()
    codec.fingerprint = "another"
    run_encode(tmp_path, data(), codec)
    assert len(codec.batches) == 15
    again = Halves()
    run_encode(tmp_path, data(), again, shard_size=25)  # and none of the old, smaller shards remains
    assert len(shards(tmp_path)) == 2
    Run.open(tmp_path).verify()


def hostile(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + b"\0" * 64


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        hostile(b"{}"),
        hostile(b'{"__metadata__":{"ddoq":"[]"},"latents":{"dtype":"F16","shape":[4,8],"data_offsets":[0,64]}}'),
        hostile(b'{"latents":{"dtype":"F16","shape":[9999999999,8],"data_offsets":[0,64]}}'),
        hostile(b'{"latents":{"dtype":"F16","shape":[4,8],"data_offsets":[0,9999999999]}}'),
        safetensors.numpy.save({"other": np.zeros(3)}, metadata={"ddoq": json.dumps({"content": ""})}),
        safetensors.numpy.save({"latents": np.zeros((3, 2), np.float16), "indices": np.zeros(3, np.int64)}),
    ],
)
def test_hostile_shards_are_named(tmp_path: Path, content: bytes) -> None:
    source = data()
    run = run_encode(tmp_path, source, Halves())
    shard = tmp_path / "latents" / "shard-00000.safetensors"
    shard.write_bytes(content)
    with pytest.raises(RunError, match=r"shard-00000\.safetensors|latents"):
        read_latents(run, 0)
    (tmp_path / "run.json").unlink()  # as if killed before the stage was recorded
    for path in tmp_path.glob("run.*"):
        path.unlink()
    (tmp_path / "latents").rename(tmp_path / "kept")
    fresh = tmp_path / "fresh"
    with Run.locked(fresh, {}, source.class_names):
        pass
    (tmp_path / "kept").rename(fresh / "latents")
    with pytest.raises(RunError, match=r"shard-00000\.safetensors"):
        run_encode(fresh, source, Halves())


def test_missing_shard_is_named(tmp_path: Path) -> None:
    run = run_encode(tmp_path, data(), Halves())
    (tmp_path / "latents" / "shard-00000.safetensors").unlink()
    with pytest.raises(RunError, match=r"shard-00000\.safetensors"):
        read_latents(run, 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "NaN or infinite"), (float("-inf"), "NaN or infinite"), (7e4, "beyond float16")],
)
def test_latents_that_cannot_be_stored_name_image_and_class(tmp_path: Path, value: float, message: str) -> None:
    images = np.zeros((9, 8, 8), np.uint8)
    images[5, 0, 0] = 255  # the fifth image is of class "dog"
    source = open_data((images, np.arange(9) % 2), class_names=["cat", "dog"])

    def broken(batch: torch.Tensor) -> torch.Tensor:
        return torch.where(batch == 1, torch.tensor(value), batch)

    with pytest.raises(ValueError, match=f"image 5 of class 'dog' .*{message}"):
        run_encode(tmp_path, source, Answer(broken))


@pytest.mark.parametrize(
    "function", [lambda images: images[:1], lambda images: images.numpy(), lambda images: images.sum()]
)
def test_codec_with_a_wrong_answer(tmp_path: Path, function: Any) -> None:
    with pytest.raises(ValueError, match="the codec's encode must give a tensor"):
        run_encode(tmp_path, data(), Answer(function))


def test_codec_with_changing_shapes(tmp_path: Path) -> None:
    calls: list[int] = []

    def changing(images: torch.Tensor) -> torch.Tensor:
        calls.append(0)
        return images[..., : len(calls)]

    with pytest.raises(ValueError, match="shapes"):
        run_encode(tmp_path, data(), Answer(changing))


def test_unreadable_image_leaves_whole_shards(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / "data" / name / f"{i:02d}.png")
    victim = tmp_path / "data" / "b" / "05.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:45])
    source = open_data(tmp_path / "data")
    with pytest.raises(OSError, match=r"b/05\.png"):
        run_encode(tmp_path / "run", source, Halves())
    assert len(shards(tmp_path / "run")) == 1


def test_bar_shows_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_encode(tmp_path, data(), Halves(), progress=True)
    shown = capsys.readouterr().err
    assert "50/50" in shown
    assert "image/s" in shown


def test_latents_of_another_run_are_taken_over(tmp_path: Path) -> None:
    first = run_encode(tmp_path / "first", data(), Halves())
    codec = Halves()
    second = run_encode(tmp_path / "second", data(), codec, reuse=tmp_path / "first")
    assert codec.batches == []
    assert shards(tmp_path / "second") == shards(tmp_path / "first")
    assert second.output("encode") == first.output("encode")
    assert second.info("encode") == first.info("encode")
    for path in (tmp_path / "first" / "latents").iterdir():
        path.unlink()  # as a user who no longer wants the first run
    second.verify()
    run_encode(tmp_path / "second", data(), codec, reuse=tmp_path / "first")  # done: the first is not asked for
    assert codec.batches == []


def test_latents_are_copied_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: Any) -> None:
        raise OSError("another disk")

    run_encode(tmp_path / "first", data(), Halves())
    monkeypatch.setattr("os.link", refuse)
    codec = Halves()
    run_encode(tmp_path / "second", data(), codec, reuse=tmp_path / "first")
    assert codec.batches == []
    assert shards(tmp_path / "second") == shards(tmp_path / "first")
    assert all(path.stat().st_nlink == 1 for path in (tmp_path / "second" / "latents").iterdir())


def test_what_an_unfinished_run_lacks_is_made(tmp_path: Path) -> None:
    run_encode(tmp_path / "whole", data(), Halves())
    with pytest.raises(KeyboardInterrupt):
        run_encode(tmp_path / "first", data(), Halves(stop_after=7))  # two shards of three batches
    with pytest.raises(KeyboardInterrupt):
        run_encode(tmp_path / "second", data(), Halves(stop_after=4), reuse=tmp_path / "first")
    codec = Halves()
    run_encode(tmp_path / "second", data(), codec, reuse=tmp_path / "first")
    assert codec.batches == [4, 4, 2] * 2
    assert shards(tmp_path / "second") == shards(tmp_path / "whole")


def test_halved_batches_of_latents_taken_over_are_recorded(tmp_path: Path) -> None:
    calls = []

    def scarce(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        if len(images) > 2:
            raise MemoryError
        return images

    with pytest.warns(RuntimeWarning, match="out of memory"):
        run_encode(tmp_path / "first", data(), Answer(scarce))
    calls.clear()
    second = run_encode(tmp_path / "second", data(), Answer(scarce), reuse=tmp_path / "first")
    assert calls == []
    assert second.info("encode")["halved_to"] == 2


def test_each_shard_halves_its_batches_for_itself_whatever_others_did(tmp_path: Path) -> None:
    calls: list[int] = []

    def scarce(images: torch.Tensor, room: int, stop_after: int) -> torch.Tensor:
        calls.append(len(images))
        if len(images) > room:
            raise MemoryError
        if len(calls) > stop_after:
            raise KeyboardInterrupt
        return images

    with pytest.warns(RuntimeWarning, match="out of memory"), pytest.raises(KeyboardInterrupt):
        run_encode(tmp_path, data(), Answer(partial(scarce, room=2, stop_after=9)))
    assert calls == [4, 2, 2, 2, 2, 2, 4, 2, 2, 2]  # of shards of ten images in batches of four, four and two
    calls.clear()
    run = run_encode(tmp_path, data(), Answer(partial(scarce, room=4, stop_after=99)))
    assert calls == [4, 4, 2] * 4  # the first shard is kept, the others are as on a machine that never lacked memory
    assert run.info("encode")["halved_to"] == 2
    run_encode(tmp_path / "whole", data(), Answer(partial(scarce, room=4, stop_after=99)))
    assert list(shards(tmp_path).items())[1:] == list(shards(tmp_path / "whole").items())[1:]


def test_latents_that_cannot_be_taken_over_are_refused(tmp_path: Path) -> None:
    run_encode(tmp_path / "first", data(), Halves())
    other = Halves()
    other.fingerprint = "another"
    for source, codec, options in (
        (data(49), Halves(), {}),
        (data(), other, {}),
        (data(), Halves(), {"batch_size": 5}),
    ):
        with pytest.raises(RunError, match=r"first/latents/shard-00000\.safetensors was made from other images"):
            run_encode(tmp_path / "second", source, codec, reuse=tmp_path / "first", **options)
        assert codec.batches == []
        (tmp_path / "second" / "run.json").unlink()
        (tmp_path / "second" / "latents").rmdir()
    shard = tmp_path / "first" / "latents" / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"first/latents/shard-00001\.safetensors is damaged"):
        run_encode(tmp_path / "second", data(), Halves(), reuse=tmp_path / "first")
    shard.unlink()
    codec = Halves()
    run_encode(tmp_path / "second", data(), codec, reuse=tmp_path / "first")
    assert codec.batches == [4, 4, 2]
