"""Ctrl-C: a block that it waits for, and trainings that it breaks off anywhere go on to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train import held_out, run, state, stripes
from test_train_resume import Dropping

from ddoq.machine.interrupts import uninterrupted
from ddoq.training.loop import StudentSteps


@pytest.fixture(autouse=True)
def _handled() -> Iterator[None]:
    """Python's own handler of Ctrl-C, which a background job does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def strike() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_waits_for_the_block() -> None:
    done: list[int] = []

    def block(divisor: int) -> None:
        with uninterrupted():
            strike()
            done.append(1 // divisor)

    with pytest.raises(KeyboardInterrupt):
        block(1)
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(ZeroDivisionError):
        block(0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_signals_and_other_threads_are_left_alone() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with uninterrupted():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    strike()
    seen = []

    def block() -> None:
        with uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def after(count: int, work: Callable[..., Any], then: Callable[[], Any]) -> Callable[..., Any]:
    """`work`, with `then` called in the middle of the call of that number."""
    calls = []

    def watched(*arguments: Any, **options: Any) -> Any:
        found = work(*arguments, **options)
        calls.append(1)
        if len(calls) == count:
            then()
        return found

    return watched


OPTIONS: dict[str, Any] = {"epochs": 12, "batch_size": 5, "optimizer": "adamw", "mix": "cutmix", "check_from": 0.0}


@pytest.mark.parametrize(
    ("owner", "name", "count", "steps"),
    [
        (Dropping, "forward", 1, 0),  # the statistics and the random stream have moved, the weights have not
        (Dropping, "forward", 17, 16),
        (StudentSteps, "_gradients", 17, 16),
        (torch.optim.AdamW, "step", 17, 17),  # waits until the step is whole
        (StudentSteps, "step", 18, 18),  # the last of its epoch
        (StudentSteps, "step", 36, 36),
        (sys.modules["ddoq.training.train"], "_accuracy", 1, 30),  # after the tenth epoch
    ],
)
def test_a_training_goes_on_from_the_last_whole_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, count: int, steps: int
) -> None:
    monkeypatch.setattr(sys.modules["ddoq.training.train"], "create_student", lambda *names, **options: Dropping())
    data, test, log = stripes(), held_out(stripes(seed=1)), tmp_path / "log.jsonl"
    whole = run(data, test, **OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, after(count, getattr(owner, name), strike))
        with pytest.raises(KeyboardInterrupt) as caught:
            run(data, test, log, **OPTIONS)
    left = tmp_path / "log.jsonl.state"
    assert str(caught.value) == (f"{steps} of 36 steps are kept" if steps else "")
    assert left.exists() is (steps > 0)
    gradients, done = StudentSteps._gradients, []
    monkeypatch.setattr(StudentSteps, "_gradients", lambda self, view: done.append(1) or gradients(self, view))
    again = run(data, test, log, **OPTIONS)
    assert len(done) == 36 - steps  # none was done again
    assert again.losses == whole.losses
    assert again.checks == whole.checks
    assert torch.equal(state(again), state(whole))
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_step_that_broke_while_weights_changed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alarm's KeyboardInterrupt, say, which nothing holds back."""

    def alarm() -> None:
        raise KeyboardInterrupt

    data, log = stripes(), tmp_path / "log.jsonl"
    whole = run(data, **OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", after(7, torch.optim.AdamW.step, alarm))
        with pytest.raises(KeyboardInterrupt) as caught:
            run(data, log=log, **OPTIONS)
    assert not caught.value.args
    assert list(tmp_path.iterdir()) == []
    assert run(data, log=log, **OPTIONS).losses == whole.losses


def test_a_second_ctrl_c_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, log, left = stripes(), tmp_path / "log.jsonl", tmp_path / "log.jsonl.state"
    whole = run(data, **OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(StudentSteps, "step", after(4, StudentSteps.step, strike))
        with pytest.raises(KeyboardInterrupt, match="4 of 36"):
            run(data, log=log, **OPTIONS)
    before = left.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(StudentSteps, "step", after(5, StudentSteps.step, strike))
        patch.setattr(os, "fsync", after(1, os.fsync, strike))  # the new state is written, and not yet in place
        with pytest.raises(KeyboardInterrupt):
            run(data, log=log, **OPTIONS)
    assert left.read_bytes() == before
    assert list(tmp_path.iterdir()) == [left]
    assert run(data, log=log, **OPTIONS).losses == whole.losses


def test_a_second_ctrl_c_waits_until_all_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["ddoq.training.train"], "create_student", lambda *names, **options: Dropping())
    data, log, restore = stripes(), tmp_path / "log.jsonl", StudentSteps._set_random
    whole = run(data, **OPTIONS)

    def struck(self: StudentSteps, states: dict[str, torch.Tensor]) -> None:
        strike()
        restore(self, states)

    with monkeypatch.context() as patch:
        patch.setattr(Dropping, "forward", after(17, Dropping.forward, strike))
        patch.setattr(StudentSteps, "_set_random", struck)
        with pytest.raises(KeyboardInterrupt, match="16 of 36"):
            run(data, log=log, **OPTIONS)
    again = run(data, log=log, **OPTIONS)
    assert again.losses == whole.losses
    assert torch.equal(state(again), state(whole))


COMMAND = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # the children of a background job ignore it
import torch
from ddoq.cli import main as cli
from ddoq.training.loop import StudentSteps
torch.set_num_threads(1)
step, out = StudentSteps.step, sys.argv[2]
def watched(self, *arguments):
    step(self, *arguments)
    if self.steps == 5:
        open(out + ".begun", "w").close()
StudentSteps.step = watched
quick = ["--student", "convnet3", "--epochs", "30", "--batch-size", "4", "--device", "cpu", "--no-progress"]
sys.exit(cli.main(["teacher", sys.argv[1], out, *quick]))
"""


def test_ctrl_c_in_the_first_minute_of_a_teacher(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8)
    np.savez(data, images=images, labels=["x", "y"] * 20)

    def start(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", COMMAND, str(data), str(out)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    process = start(whole)
    assert process.communicate(timeout=120)[1] == ""
    process = start(broken)
    begun = Path(f"{broken}.begun")
    while not begun.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    assert err.startswith("ddoq: interrupted; ")
    assert err.endswith(" of 300 steps are kept: the same command goes on from here\n")
    assert Path(f"{broken}.state").exists()
    assert not broken.exists()
    process = start(broken)
    assert process.communicate(timeout=120)[1] == ""
    assert broken.read_bytes() == whole.read_bytes()
    assert not Path(f"{broken}.state").exists()
