"""A checkpoint that is there: found where it was made with the same settings, refused and left alone otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

import ddoq
from ddoq.storage.files import RunError
from ddoq.training.loop import StudentSteps

IMAGES = np.random.default_rng(0).integers(0, 255, (24, 8, 8), np.uint8)
NAMES = ["a", "b", "c"] * 8
TEST = (IMAGES[:12], NAMES[:12])
QUICK: dict[str, Any] = {"student": "convnet3", "epochs": 2, "batch_size": 10, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ddoq.TrainResult]:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    return path, ddoq.train_teacher((IMAGES, NAMES), path, test=TEST, **QUICK)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, teacher: object) -> list[str]:
    """The students that are trained in a test, beside the fixture's."""
    trained: list[str] = []
    run = StudentSteps.run

    def watched(self: StudentSteps, **options: Any) -> None:
        trained.append(self.recipe.student)
        run(self, **options)

    monkeypatch.setattr(StudentSteps, "run", watched)
    return trained


def test_a_finished_teacher_is_found(
    teacher: tuple[Path, ddoq.TrainResult], trainings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = teacher
    before = path.read_bytes()
    assert (made.steps, made.found) == (2 * 3, None)
    again = ddoq.train_teacher((IMAGES, NAMES), path, test=TEST, log=tmp_path / "log.jsonl", workers=1, **QUICK)
    assert trainings == []
    assert again.found == path
    assert (again.accuracy, again.checks, again.losses, again.steps) == (
        made.accuracy,
        made.checks,
        made.losses,
        made.steps,
    )
    assert str(again).endswith(f"found in {path}: nothing was trained")
    assert f"{made.accuracy:.2f} % of the test images right" in str(again)
    assert str(made).endswith(" s")
    assert list(tmp_path.iterdir()) == []  # the log is of the training
    assert not again.model.training
    for one, other in zip(again.model.parameters(), made.model.parameters(), strict=True):
        assert torch.equal(one, other)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)  # decides no more than last bits
    assert ddoq.train_teacher((IMAGES, NAMES), path, **QUICK).accuracy is None
    assert trainings == []
    assert path.read_bytes() == before


def test_another_test_set_is_tested(teacher: tuple[Path, ddoq.TrainResult], trainings: list[str]) -> None:
    path, made = teacher
    classes = made.model((torch.tensor(IMAGES)[:, None] / 255 - made.mean) / made.std).argmax(1).tolist()
    named = ["abc"[c] for c in [*classes[:-3], 0, 1, 2]]  # a test set has every class
    right = np.mean([name == "abc"[c] for name, c in zip(named, classes, strict=True)])
    found = ddoq.train_teacher((IMAGES, NAMES), path, test=(IMAGES, named), **QUICK)
    assert found.accuracy == pytest.approx(100 * right)
    assert found.checks == ((2, found.accuracy),)
    assert trainings == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"epochs": 3}, r"epochs: 2 there, 3 now"),
        ({"seed": 1, "lr": 0.1}, r"seed: 0 there, 1 now; lr: 0\.05 there, 0\.1 now"),
        ({"student": "convnet4"}, r"student: 'convnet3' there, 'convnet4' now"),
        ({"settings": {"augment": ("crop",)}}, r"augment: \['crop', 'flip'\] there, \['crop'\] now"),
        ({"data": (255 - IMAGES, NAMES)}, r"\(other images, labels or weights\)"),
        ({"class_names": ["z", "y", "x"]}, r"class_names: .*'a'.* there, .*'z'.* now; other images"),
    ],
)
def test_one_of_other_settings_is_refused(
    teacher: tuple[Path, ddoq.TrainResult], trainings: list[str], changes: dict[str, Any], told: str
) -> None:
    path, _ = teacher
    before = path.read_bytes()
    given: dict[str, Any] = {"data": (IMAGES, NAMES), **QUICK, **changes}
    if "class_names" in given:
        given["data"] = (IMAGES, np.arange(24) % 3)
    told = rf"teacher\.safetensors was trained with other settings .*{told}.*: choose another file, or delete it"
    with pytest.raises(RunError, match=told):
        ddoq.train_teacher(given.pop("data"), path, **given)
    assert trainings == []
    assert path.read_bytes() == before


def test_train_finds_its_student_too(trainings: list[str], tmp_path: Path) -> None:
    data, path = ddoq.open_data((IMAGES, NAMES)), tmp_path / "student.safetensors"
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    options: dict[str, Any] = {**QUICK, "protocol": "rded", "settings": {"check_from": 0.0}, "epochs": 20}
    few = ddoq.open_data((IMAGES[:3], NAMES[:3]))
    made = ddoq.train(few, teacher=module, test=TEST, checkpoint=path, **options)
    found = ddoq.train(few, teacher=module, test=TEST, checkpoint=path, **options)
    assert trainings == ["convnet3"]
    assert len(made.checks) == 2
    assert (found.checks, found.best, found.found) == (made.checks, made.best, path)
    with torch.no_grad():
        module[1].weight += 1  # type: ignore[operator]
    with pytest.raises(RunError, match=r"soft_labels\.teacher: 'Sequential@.*' there, 'Sequential@.*' now"):
        ddoq.train(few, teacher=module, checkpoint=path, **options)
    with pytest.raises(RunError, match="training_images: 3 there, 24 now"):
        ddoq.train(data, protocol="dc", checkpoint=path, **QUICK)


def test_damaged_and_foreign_files_are_left_alone(
    teacher: tuple[Path, ddoq.TrainResult], trainings: list[str], tmp_path: Path
) -> None:
    path, content = tmp_path / "teacher.safetensors", teacher[0].read_bytes()
    weights = safetensors.torch.load_file(teacher[0])
    with safetensors.safe_open(teacher[0], "pt") as file:  # type: ignore[no-untyped-call]
        facts = file.metadata()["ddoq"]
    unsealed = json.dumps({k: v for k, v in json.loads(facts).items() if k != "made_from"})
    at = content.index(b"losses") + 13  # a digit of a loss
    cases = [
        (b"", "is not a readable safetensors file"),
        (b"my letter", "is not a readable safetensors file"),
        (content[:-1], "is not a readable safetensors file"),
        (content[:-1] + bytes([content[-1] ^ 1]), "is damaged: "),
        (content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :], "is damaged: "),
        (safetensors.torch.save(weights), "does not say which network it is"),
        (safetensors.torch.save(weights, {"ddoq": "[1"}), "is not a readable safetensors file"),
        (safetensors.torch.save(weights, {"ddoq": unsealed}), "is damaged: "),
    ]
    for wrong, told in cases:
        path.write_bytes(wrong)
        with pytest.raises(RunError, match=rf"teacher\.safetensors {told}"):
            ddoq.train_teacher((IMAGES, NAMES), path, **QUICK)
        assert path.read_bytes() == wrong
    assert trainings == []
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
