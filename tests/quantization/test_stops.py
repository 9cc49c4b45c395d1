"""An exception from `progress` and Ctrl-C stop a quantisation in the middle of every stage."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from fits import normal

from ddoq.quantization.quantize import quantize

# A process that begins minutes of work, nearly all of it in one stage, and says so when it is in the middle of it.
INTERRUPTED = """
import signal, sys
import numpy as np
import ddoq

signal.signal(signal.SIGINT, signal.default_int_handler)  # the children of a background job ignore it
calls = []

def progress(done_classes):
    calls.append(done_classes)
    if len(calls) == 10:
        print("working", flush=True)

def gram(n=12_000, **options):
    X = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    options |= {"form": "gram", "random_state": 0, "n_threads": 1, "progress": progress}
    ddoq.quantize_classes(X, np.arange(n) % 2, 500, n_init=2000, **options)

def streaming(n=100_000, **options):
    X = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    ddoq.quantize(X, 800, n_init=300, form="streaming", random_state=0, progress=progress, **options)

try:
    STAGE
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
STAGES = {
    "seeding": 'gram(refine="none", max_iter=1)',
    "lloyd": 'gram(init="random", refine="none")',
    "hartigan": 'gram(init="random", refine="hartigan", max_iter=1)',
    "streamed seeding": "streaming(max_iter=1)",
    "streamed lloyd": 'streaming(init="random", tol=0.0)',
    "streamed lloyd in short iterations": 'streaming(1_000, init="random", tol=0.0)',
}


def test_an_exception_from_progress_stops_the_work() -> None:
    def stop(done_classes: int) -> None:
        raise KeyError(f"{done_classes} classes done")

    with pytest.raises(KeyError, match="classes done"):
        quantize(normal(3000, 300), 100, n_init=10_000, random_state=0, progress=stop)


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_is_heard_in_the_middle_of_a_fit(stage: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED.replace("STAGE", STAGES[stage])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "working\n"  # and minutes of work, nearly all in this stage, are left
            process.send_signal(signal.SIGINT)
            answer, _ = process.communicate(timeout=10)  # about 0.1 s on an idle machine
        finally:
            process.kill()
    assert (answer, process.returncode) == ("interrupted\n", 0)
