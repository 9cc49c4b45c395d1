"""Soft labels: replayed labels are the online teacher's, in any folder state; what they are not for is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ddoq
from ddoq import label as label_function
from ddoq.storage.files import RunError
from ddoq.training.label import label_bytes
from ddoq.training.protocols import recipe_for
from ddoq.training.targets import Online, Stored, open_targets
from ddoq.training.teacher import open_teacher
from ddoq.training.training_set import TrainingSet
from ddoq.training.views import Views

CPU = torch.device("cpu")
QUIET: dict[str, Any] = {"device": "cpu", "progress": False}


def data(n: int = 20) -> Any:
    """Two classes of noise, a bright row in one of them."""
    images = np.random.default_rng(0).integers(0, 100, (n, 8, 8), np.uint8)
    images[::2, 3] += 150
    return ddoq.open_data((images, ["line", "noise"] * (n // 2)))


def teacher(seed: int = 0, classes: int = 2) -> nn.Module:
    """A network of random weights, with logits of some size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, classes))
        nn.init.normal_(model[4].weight, std=4.0)  # type: ignore[arg-type]
    return model.eval()


def losses(**options: Any) -> np.ndarray:
    result = ddoq.train(data(), "convnet3", protocol="d4m", epochs=3, batch_size=8, seed=4, **options, **QUIET)
    return np.array(result.losses)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_replay_is_the_online_teacher(tmp_path: Path, workers: int) -> None:
    online = losses(teacher=teacher(), workers=workers)
    ddoq.label(data(), teacher(), tmp_path, protocol="d4m", epochs=3, seed=4, **QUIET)
    replayed = losses(labels=tmp_path, workers=workers)
    assert online.min() > 0.001
    np.testing.assert_allclose(replayed, online, rtol=1e-3)  # of losses below 1: closer than 1e-3
    wrong = losses(teacher=teacher(1), workers=workers)
    assert np.abs(wrong - online).max() > 1e-3 * online.max()


def test_workers_and_batches_change_no_label(tmp_path: Path) -> None:
    """The label of an image in an epoch is the same whatever the batches of those who use it."""
    training = TrainingSet.of(data())
    ddoq.label(data(), teacher(), tmp_path, protocol="rded", epochs=2, seed=4, **QUIET)
    recipe = recipe_for("rded", "convnet3", training, 4, {"epochs": 2})
    stored, seen = open_targets(None, tmp_path, training, recipe, CPU)
    assert isinstance(stored, Stored)
    assert seen.views == recipe.views
    opened = open_teacher(teacher(), training, CPU)
    views = Views(training, seen, CPU)
    for epoch in (1, 0):
        for rows in (torch.tensor([5]), torch.tensor([19, 5, 0])):
            view = views(epoch, rows)
            torch.testing.assert_close(stored(view), opened(view.images), rtol=1e-3, atol=1e-3)


def test_topk_keeps_the_largest_probabilities_at_the_temperature(tmp_path: Path) -> None:
    model = teacher(classes=5)
    images = np.random.default_rng(0).integers(0, 255, (20, 8, 8), np.uint8)
    five = ddoq.open_data((images, np.arange(20) % 5))
    settings = {"temperature": 4.0}
    ddoq.label(five, model, tmp_path, epochs=2, store="topk", top_k=3, settings=settings, **QUIET)
    training = TrainingSet.of(five)
    recipe = recipe_for("d4m", "convnet3", training, 0, {"epochs": 2, **settings})
    targets, seen = open_targets(None, tmp_path, training, recipe, CPU)
    assert targets is not None
    assert targets.kind == "topk"
    view = Views(training, seen, CPU)(1, torch.arange(20))
    values, indices = targets(view)
    whole = (open_teacher(model, training, CPU)(view.images) / 4).softmax(1)
    torch.testing.assert_close(values, whole.topk(3).values, rtol=1e-3, atol=1e-3)
    assert torch.equal(indices, whole.topk(3).indices)
    options: dict[str, Any] = {"protocol": "d4m", "epochs": 2, **QUIET}
    assert np.isfinite(ddoq.train(five, labels=tmp_path, settings=settings, **options).losses).all()
    with pytest.raises(ValueError, match=r"other temperature \(4\.0 there, 20\.0 here\)"):
        ddoq.train(five, labels=tmp_path, **options)


def test_all_of_topk_is_the_whole_label(tmp_path: Path) -> None:
    ddoq.label(data(), teacher(), tmp_path / "whole", epochs=3, seed=4, **QUIET)
    ddoq.label(data(), teacher(), tmp_path / "topk", epochs=3, seed=4, store="topk", top_k=2, **QUIET)
    np.testing.assert_allclose(losses(labels=tmp_path / "topk"), losses(labels=tmp_path / "whole"), rtol=5e-3)


def test_pool_is_used_again_and_named(tmp_path: Path) -> None:
    ddoq.label(data(), teacher(), tmp_path, epochs=2, **QUIET)
    result = ddoq.train(data(), labels=tmp_path, protocol="d4m", epochs=7, **QUIET)
    assert result.recipe.protocol == "d4m, epochs=7, label_epochs=2"
    assert len(result.losses) == 7


@contextmanager
def killed_after(written: int) -> Iterator[None]:
    """Ctrl-C comes when `ddoq.label` is about to write one more file of labels than that."""
    module, done = sys.modules["ddoq.training.label"], []
    write = module.write_tensors

    def write_or_stop(path: Path, *arguments: Any) -> None:
        if len(done) == written:
            raise KeyboardInterrupt
        done.append(path)
        write(path, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_tensors", write_or_stop)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_resumes_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    ddoq.label(data(), teacher(), whole, epochs=4, **QUIET)
    with killed_after(2):
        ddoq.label(data(), teacher(), part, epochs=4, **QUIET)
    times = {path: path.stat().st_mtime_ns for path in part.iterdir()}
    ddoq.label(data(), teacher(), part, epochs=4, **QUIET)
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    names = sorted(path.name for path in whole.iterdir())
    assert names == [*(f"epoch-0000{e}.safetensors" for e in range(4)), "labels.json"]
    assert all((whole / name).read_bytes() == (part / name).read_bytes() for name in names)


def test_a_pool_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, whole, log = tmp_path / "pool", tmp_path / "whole", tmp_path / "log.jsonl"
    ddoq.label(data(), teacher(), whole, epochs=4, **QUIET)
    ddoq.label(data(), teacher(), pool, epochs=2, **QUIET)
    options: dict[str, Any] = {"labels": pool, "protocol": "d4m", **QUIET}
    small = ddoq.train(data(), epochs=2, log=log, **options)
    settings = json.loads(log.read_text().splitlines()[0])["settings"]
    with killed_after(1):
        ddoq.label(data(), teacher(), pool, epochs=4, **QUIET)
    # until all are there it is what it was
    assert ddoq.train(data(), epochs=5, **options).recipe.label_epochs == 2
    ddoq.label(data(), teacher(), pool, epochs=4, device="cpu")
    said = capsys.readouterr().err
    assert f"soft labels of 1 epochs x 20 images, 2 classes: 80 bytes in {pool}; those of 3 others are there\n" in said
    assert sorted(path.name for path in pool.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert all((pool / path.name).read_bytes() == path.read_bytes() for path in whole.iterdir())
    assert ddoq.train(data(), epochs=5, **options).recipe.label_epochs == 4
    # who needs no more trains as before, and may say that a long training is to take no more
    again = ddoq.train(data(), epochs=2, log=log, **options)
    assert again.losses == small.losses
    assert json.loads(log.read_text().splitlines()[0])["settings"] == settings
    assert ddoq.train(data(), epochs=5, settings={"label_epochs": 3}, **options).recipe.label_epochs == 3


def test_fewer_labels_than_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ddoq.label(data(), teacher(), tmp_path, epochs=4, **QUIET)
    ddoq.label(data(), teacher(), tmp_path, epochs=3, device="cpu")
    said = capsys.readouterr().err
    there = f"all are there, in {tmp_path}; of 1 further epochs too\n"
    assert said == f"soft labels of 3 epochs x 20 images, 2 classes: {there}"
    assert json.loads((tmp_path / "labels.json").read_text())["epochs"] == 4
    (tmp_path / "epoch-00003.safetensors").unlink()  # as if the fourth had not been made: three are enough now
    ddoq.label(data(), teacher(), tmp_path, epochs=3, device="cpu")
    assert capsys.readouterr().err.endswith("; the pool is of 3 epochs now: not all of its 4 are there\n")
    assert json.loads((tmp_path / "labels.json").read_text())["epochs"] == 3


def test_size_is_said_before_it_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ddoq.label(data(), teacher(), tmp_path, epochs=3, device="cpu")
    said = capsys.readouterr().err
    assert said.startswith("soft labels of 3 epochs x 20 images, 2 classes: 240 bytes in ")
    sizes = [path.stat().st_size for path in tmp_path.glob("epoch-*")]
    assert sum(sizes) - 3 * 1000 < 240 == label_bytes(20, 2, 3)


@pytest.mark.parametrize(("ipc", "gigabytes"), [(10, 5.67), (20, 11.33), (50, 28.33), (100, 56.66), (200, 113.33)])
def test_sizes_of_the_literature(ipc: int, gigabytes: float) -> None:
    """LPLD's table for ImageNet-1K, whose GB are 2^30 bytes and count the files' other content."""
    assert label_bytes(ipc * 1000, 1000, 300) / 2**30 == pytest.approx(gigabytes, rel=0.02)


def test_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"need 240 bytes and .* has 100 bytes: use store='topk'"):
        ddoq.label(data(), teacher(), tmp_path, epochs=3, **QUIET)


def test_other_labels_are_refused(tmp_path: Path) -> None:
    ddoq.label(data(), teacher(), tmp_path, epochs=2, **QUIET)
    with pytest.raises(RunError, match="labels of other teacher"):
        ddoq.label(data(), teacher(1), tmp_path, epochs=2, **QUIET)
    options: dict[str, Any] = {"labels": tmp_path, "epochs": 2, **QUIET}
    with pytest.raises(ValueError, match=r"of other images$"):
        ddoq.train(data(22), protocol="d4m", **options)
    with pytest.raises(ValueError, match=r"of other views \(mix 'cutmix' there, 'mixup' here\)$"):
        ddoq.train(data(), protocol="d4m", settings={"mix": "mixup"}, **options)
    with pytest.raises(ValueError, match=r"other views \(changed ones there, images as they are here\)"):
        ddoq.train(data(), protocol="dc", **options)


def test_damaged_and_absent_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ddoq.label(data(), teacher(), tmp_path, epochs=2, **QUIET)
    options: dict[str, Any] = {"labels": tmp_path, "protocol": "d4m", "epochs": 2, **QUIET}
    path = tmp_path / "epoch-00001.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunError, match=r"epoch-00001\.safetensors is damaged: run ddoq label again"):
        ddoq.train(data(), **options)
    ddoq.label(data(), teacher(), tmp_path, epochs=2, device="cpu")
    said = capsys.readouterr().err
    assert f"{path} is damaged: its labels are made again" in said
    assert "soft labels of 1 epochs x 20 images, 2 classes: 80 bytes in " in said
    assert path.read_bytes() == content
    path.unlink()
    with pytest.raises(RunError, match=r"epoch-00001\.safetensors is missing: run ddoq label again"):
        ddoq.train(data(), **options)
    ddoq.label(data(), teacher(), tmp_path, epochs=2, **QUIET)
    assert path.read_bytes() == content
    with pytest.raises(RunError, match=r"no labels\.json"):
        ddoq.train(data(), **{**options, "labels": tmp_path / "absent"})
    about = json.loads((tmp_path / "labels.json").read_text())
    for wrong in ([1], {**about, "views": []}, {**about, "epochs": "2"}):
        (tmp_path / "labels.json").write_text(json.dumps(wrong))
        with pytest.raises(RunError, match="is damaged"):
            ddoq.train(data(), **options)


def test_which_labels_a_protocol_takes(tmp_path: Path) -> None:
    for protocol in ("d4m", "rd3", "rded"):
        with pytest.raises(ValueError, match="soft labels: give teacher or labels"):
            ddoq.train(data(), protocol=protocol, epochs=1, **QUIET)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hard labels"):
        ddoq.train(data(), protocol="hard", epochs=1, teacher=teacher(), **QUIET)
    with pytest.raises(ValueError, match="not both"):
        ddoq.train(data(), protocol="d4m", epochs=1, teacher=teacher(), labels=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="hard labels"):
        ddoq.label(data(), teacher(), tmp_path, protocol="hard", **QUIET)
    with pytest.raises(ValueError, match="top_k must lie between 1 and the 2 classes"):
        ddoq.label(data(), teacher(), tmp_path, store="topk", top_k=3, **QUIET)


def test_dc_with_soft_labels_has_temperature_1_and_asks_the_teacher_once(tmp_path: Path) -> None:
    calls: list[int] = []
    model = teacher()
    model.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    online = ddoq.train(data(), teacher=model, epochs=4, **QUIET)
    assert calls == [20]
    assert online.recipe.protocol == "dc, epochs=4, labels=soft"
    assert online.recipe.temperature == 1
    images = torch.as_tensor(data().images(range(20))).float() / 255
    with torch.no_grad():
        wanted = model(images)
    training = TrainingSet.of(data())
    opened = open_teacher(model, training, CPU)
    torch.testing.assert_close(Online(opened, online.recipe, training.images, CPU).whole, wanted)
    ddoq.label(data(), model, tmp_path, protocol="dc", **QUIET)
    assert [path.name for path in tmp_path.glob("epoch*")] == ["epoch-00000.safetensors"]  # images never change
    stored = ddoq.train(data(), labels=tmp_path, epochs=4, **QUIET)
    assert stored.recipe == online.recipe
    np.testing.assert_allclose(stored.losses, online.losses, rtol=1e-3)


def test_public_name() -> None:
    assert label_function is ddoq.label
