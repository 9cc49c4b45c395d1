"""How a method and its options are named: by name and keywords, or by an object; what is not there is said."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddoq
from ddoq.methods.catalogue import METHODS, choose_method, option_names
from ddoq.methods.d4m import D4M
from ddoq.methods.ddoq import DDOQ
from ddoq.methods.task import Method, Task

DATA = (np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4), np.arange(12) % 2)


def distil(out: Path, **options: Any) -> ddoq.DistilledDataset:
    settings: dict[str, Any] = {"ipc": 2, "progress": False, "device": "cpu", **options}
    return ddoq.distill(DATA, out, **settings)


def test_options_as_keywords_and_as_an_object_make_the_same_run(tmp_path: Path) -> None:
    keywords = distil(tmp_path / "a", codec="identity", synthesis="decode", init="random", steps=None)
    one = distil(tmp_path / "b", method=DDOQ(codec="identity", synthesis="decode", init="random"))
    assert keywords.manifest["config"] == one.manifest["config"]
    assert keywords.manifest["stages"]["synthesize"]["outputs"] == one.manifest["stages"]["synthesize"]["outputs"]
    assert len(distil(tmp_path / "a", method=DDOQ(codec="identity", synthesis="decode", init="random"))) == 4


def test_the_configuration_has_the_method_and_every_value(tmp_path: Path) -> None:
    small = distil(tmp_path, codec="identity", synthesis="decode", weighting="sqrt", output_size=6)
    config = small.manifest["config"]
    assert config["method"] == "ddoq"
    assert (config["ipc"], config["weighting"], config["class_prior"], config["output_size"]) == (
        2,
        "sqrt",
        "balanced",
        6,
    )
    later = {"controls", "latents"}  # may be given later, and change nothing of the main images
    fits = {"codec_steps", "diffusion_steps"}  # are within codec and diffusion
    diffusing = {"strength", "steps", "guidance"}  # of controls alone here
    assert set(config["options"]) == set(option_names("ddoq")) - later - fits - diffusing
    assert config["options"]["codec"] == {"given": "identity"}
    assert config["options"]["diffusion"] == {"fit": None}
    assert config["options"]["quantizer"] == "lloyd"
    assert config["options"]["max_iter"] == 300


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"strenght": 0.5}, TypeError, "method 'ddoq' has no option 'strenght'; did you mean 'strength'"),
        ({"nonsense": 1}, TypeError, "method 'ddoq' has no option 'nonsense'$"),
        ({"method": "ddoqq"}, ValueError, "method 'ddoqq' is not known; did you mean 'ddoq'.*: use 'ddoq', 'd4m'"),
        ({"method": 3}, TypeError, "method must be one of the names .* got int"),
        ({"method": DDOQ(), "strength": 0.5}, TypeError, r"'strength' in the options object: method=DDOQ\(strength="),
        ({"teacher": "resnet18"}, ValueError, "method 'ddoq' takes no teacher: leave teacher out"),
        ({"weighting": "dense"}, ValueError, "'dense' is not known"),
        ({"class_prior": "even"}, ValueError, "'even' is not known"),
        ({"image_size": 0}, ValueError, "image_size must be an integer of at least 1"),
        ({"output_size": 2.5}, TypeError, "output_size must be an integer of at least 1"),
        ({"n_threads": 0}, ValueError, "n_threads"),
        ({"seed": -1}, ValueError, "seed must be an integer of at least 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1"),
        ({"controls": "decode"}, TypeError, r"such as \('decode',\)"),
    ],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        distil(tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_a_method_of_ones_own_gets_a_checked_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks: list[Task] = []

    class Stop(Exception):
        pass

    def make(task: Task, options: DDOQ) -> None:
        tasks.append(task)
        raise Stop

    mine = Method("mine", DDOQ, make, weightings=("uniform", "sqrt"), image_size=8, takes_teacher=True)
    monkeypatch.setitem(METHODS, "mine", mine)
    for weighting in (None, "sqrt"):
        with pytest.raises(Stop):
            distil(tmp_path / "run", method="mine", teacher="a teacher", weighting=weighting, n_threads=np.int64(2))
    assert [task.weighting for task in tasks] == ["uniform", "sqrt"]
    task = tasks[0]
    assert (task.ipc, task.image_size, task.data.image_size, task.output_size, task.teacher, task.n_threads) == (
        2,
        8,
        8,
        None,
        "a teacher",
        2,
    )
    assert task.config({"size": 3})["options"] == {"size": 3}
    with pytest.raises(
        ValueError, match="method 'mine' makes images with weighting 'uniform' or 'sqrt', not 'density'"
    ):
        distil(tmp_path / "run", method="mine", weighting="density")


def test_options_are_frozen_and_no_method_has_one_of_distills_own() -> None:
    common = set(inspect.signature(ddoq.distill).parameters)
    for name, method in METHODS.items():
        assert name == method.name
        assert not common & set(option_names(name))
        with pytest.raises(FrozenInstanceError):
            method.options().anything = None


def test_an_object_of_a_method_is_that_method() -> None:
    assert choose_method(D4M(steps=20), {})[0].name == "d4m"  # though it is a DDOQ too
    assert choose_method(DDOQ(), {})[0].name == "ddoq"
