"""A training that is broken off goes on to the same bytes, and what it computes is deterministic."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_train import CPU, held_out, run, state, stripes
from test_train_steps import Flat
from torch import nn

from ddoq.machine.device import deterministic
from ddoq.storage import steps
from ddoq.training.loop import StudentSteps
from ddoq.training.recipe import Recipe
from ddoq.training.train import fit


class Dropping(Flat):
    """Has statistics and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(self.norm(images), 0.3, self.training))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
def test_workers_take_no_random_number_from_the_student(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["ddoq.training.train"], "create_student", lambda *names, **options: Dropping())
    recipe, data = Recipe(epochs=3, mix="cutmix"), stripes()
    here, *ahead = (fit(recipe, data, None, device=CPU, log=None, workers=w, progress=False).losses for w in (0, 1, 2))
    assert ahead == [here, here]


def test_training_and_testing_are_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU would take: no kernel of attention that adds up in any order, no search among convolutions."""
    seen: set[tuple[bool, bool]] = set()

    class Seeing(Flat):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.add((torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.deterministic))
            return super().forward(images)

    module = sys.modules["ddoq.training.train"]
    monkeypatch.setattr(module, "create_student", lambda *names, **options: Seeing())
    monkeypatch.setattr(module, "deterministic", lambda place: deterministic(torch.device("cuda")))
    run(stripes(), held_out(stripes()))
    assert seen == {(False, True)}


class Killed(BaseException):
    """Stands for kill -9: nothing is done on its way."""


@pytest.mark.parametrize(
    "settings", [{}, {"optimizer": "adamw", "mix": "cutmix", "augment": ("crop",), "check_from": 0.0}]
)
def test_resumes_after_any_step_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    """Killed between a state on disk and the next."""
    data, test = stripes(), held_out(stripes(seed=1))
    monkeypatch.setattr(sys.modules["ddoq.training.train"], "create_student", lambda *names, **options: Dropping())
    monkeypatch.setattr(steps, "STATE_SECONDS", 0.0)
    whole = run(data, test, epochs=12, batch_size=5, **settings)
    save = StudentSteps.save
    for stop in (1, 3, 20, 36):  # of 36 steps
        log = tmp_path / f"{stop}.jsonl"

        def killed(self: StudentSteps, path: Path, made_from: str, stop: int = stop) -> None:
            save(self, path, made_from)
            if self.steps == stop:
                raise Killed

        monkeypatch.setattr(StudentSteps, "save", killed)
        with pytest.raises(Killed):
            run(data, test, log, epochs=12, batch_size=5, **settings)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(str(stop))] == [f"{stop}.jsonl.state"]
        monkeypatch.setattr(StudentSteps, "save", save)
        again = run(data, test, log, epochs=12, batch_size=5, **settings)
        looks = sum(3 * epoch >= stop for epoch, _ in whole.checks)
        assert len(again.model.passes) == 36 - stop + looks  # type: ignore[arg-type]
        assert again.losses == whole.losses
        assert again.checks == whole.checks
        assert torch.equal(state(again), state(whole))
        assert log.exists()
        assert not log.with_name(f"{log.name}.state").exists()


def test_state_of_another_training_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STATE_SECONDS", 0.0)
    data, log = stripes(), tmp_path / "log.jsonl"
    whole = run(data, epochs=3)

    def killed(self: StudentSteps, path: Path, made_from: str) -> None:
        save(self, path, made_from)
        raise Killed

    save = StudentSteps.save
    with monkeypatch.context() as patch:
        patch.setattr(StudentSteps, "save", killed)
        with pytest.raises(Killed):
            run(data, log=log, epochs=3, seed=1)
    assert run(data, log=log, epochs=3).losses == whole.losses


KILLED = """
import sys, numpy, torch, ddoq
from ddoq.storage import steps
torch.set_num_threads(1)
steps.STATE_SECONDS = 0.0
images = numpy.random.default_rng(0).integers(0, 255, (40, 8, 8), numpy.uint8)
data = ddoq.open_data((images, ["x", "y"] * 20))
ddoq.train(data, epochs=int(sys.argv[2]), device="cpu", checkpoint=sys.argv[1], progress=False)
"""


def test_killed_training_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """Kill -9, and once more from the command that was killed."""

    def start(path: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", KILLED, str(path), "60"])

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(60) == 0
    process = start(killed)
    left = tmp_path / "killed.state"
    deadline = time.monotonic() + 60
    while not left.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert left.exists()
    assert not killed.exists()
    assert start(killed).wait(60) == 0
    assert killed.read_bytes() == whole.read_bytes()
    assert not left.exists()
