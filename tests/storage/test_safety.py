"""The binding in hard use: forks, threads at once, the interpreter's end, and memory after many calls."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from arguments import VALID
from fits import assert_identical, normal
from numpy.testing import assert_array_equal

import ddoq
from ddoq import _core as core

CALLS = 10_000
TIMEOUT = 60  # seconds of what takes one: a deadlock ends here


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def refused(arguments: list[Any]) -> list[Any]:
    """The arguments with an output that does not fit, the last thing that is looked at."""
    last = max(i for i, value in enumerate(arguments) if isinstance(value, np.ndarray))
    return [*arguments[:last], np.empty((1, 2, 3)), *arguments[last + 1 :]]


@pytest.mark.parametrize("name", VALID)
def test_no_leak_over_many_calls(name: str) -> None:
    function: Callable[..., Any] = getattr(core, name)
    good = VALID[name](np.random.default_rng(1))
    bad = refused(good)

    def call() -> None:
        function(*good)
        with pytest.raises((TypeError, ValueError)):
            function(*bad)

    def counts() -> list[int]:
        return [sys.getrefcount(value) for value in good]

    for _ in range(200):
        call()
    gc.collect()
    references, before = counts(), resident()
    for _ in range(CALLS):
        call()
    gc.collect()
    grown = [now - then for now, then in zip(counts(), references, strict=True)]
    assert max(grown) < CALLS / 10, grown  # others hold small ints and strings too
    assert resident() - before < 64 * CALLS  # the smallest thing that malloc gives would be as much


@pytest.mark.parametrize("name", VALID)
def test_no_python_object_is_left_behind(name: str) -> None:
    function: Callable[..., Any] = getattr(core, name)
    good = VALID[name](np.random.default_rng(2))
    bad = refused(good)
    tracemalloc.start()
    try:
        for calls in (200, 1000):
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(calls):
                function(*good)
                with pytest.raises((TypeError, ValueError)):
                    function(*bad)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 8 * 1000  # less than a pointer a call


def quantize(seed: int = 0) -> Any:
    return ddoq.quantize_classes(normal(400, 40), np.arange(400) % 4, 5, random_state=seed, n_threads=2)


def send_quantize(queue: Any) -> None:
    queue.put(quantize())


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_fork_while_other_threads_quantize() -> None:
    expected, stop = quantize(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            assert_identical(quantize(), expected)

    context = multiprocessing.get_context("fork")
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(work) for _ in range(2)]
        try:
            for _ in range(10):
                queue = context.Queue()
                child = context.Process(target=send_quantize, args=(queue,))
                child.start()
                assert_identical(queue.get(timeout=TIMEOUT), expected)
                child.join(TIMEOUT)
                assert child.exitcode == 0
        finally:
            stop.set()
        for future in running:
            future.result()


FORK_IN_PROGRESS = """
import os, sys
import numpy as np
import ddoq

# in Gram form one long task; in streaming form many short ones, between which it is polled
options, shape = {
    "gram": ({"form": "gram"}, (3000, 1000)),
    "streaming": ({"form": "streaming", "n_init": 300}, (1000, 2)),
}[sys.argv[1]]
X, children = np.random.default_rng(0).normal(size=shape).astype(np.float32), []

def progress(done):
    if not children:
        children.append(os.fork())

try:
    q = ddoq.quantize(X, 50, random_state=0, progress=progress, **options)
except RuntimeError as error:
    assert "forked" in str(error) and children == [0]
    # the child goes on with other work
    again = ddoq.quantize(X[:500], 5, random_state=0)
    os._exit(7 if again.labels.shape == (500,) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]), (q.weights > 0).all())
"""

END_OF_PYTHON = """
import os, threading, time
import numpy as np
import ddoq

def n_threads():
    return len(os.listdir("/proc/self/task"))

class Last:
    # the interpreter is shutting down: a thread that comes back to it ends
    def __del__(self, write=os.write, n_threads=n_threads, sleep=time.sleep):
        for _ in range(600):
            if n_threads() == before:
                break
            sleep(0.1)
        write(1, b"%d threads more" % (n_threads() - before))

X, y, last = np.random.default_rng(0).normal(size=(8000, 3000)).astype(np.float32), np.arange(8000) % 2, Last()
before = n_threads()
options = {"random_state": 0, "n_threads": 2, "refine": "hartigan"}
threading.Thread(target=ddoq.quantize_classes, args=(X, y, 2000), kwargs=options, daemon=True).start()
while n_threads() < before + 2:
    time.sleep(0.01)
"""


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("form", ["gram", "streaming"])
def test_a_fork_in_progress_ends_the_childs_call_and_leaves_the_parents_alone(form: str) -> None:
    assert run(FORK_IN_PROGRESS, form) == "7 True\n"


def test_the_end_of_the_interpreter_ends_the_work_of_a_daemon_thread() -> None:
    assert run(END_OF_PYTHON) == "0 threads more"


def problems(n_threads: int, isa: str) -> dict[str, tuple[list[Any], list[Any]]]:
    """Arguments of each of the core's functions, big enough for several threads, and the outputs among them."""
    X, points = normal(1500, 40, "float32"), normal(20, 40, "float32", seed=1)
    labels, dist2 = np.empty(1500, dtype=np.int64), np.empty(1500)
    assign = [X, points, labels, dist2, n_threads, isa]
    gram = [X[:300], np.empty((300, 300), dtype=np.float32), isa]
    wins, sums = np.zeros(20, dtype=np.int64), np.zeros((20, 40))
    clvq = [X, points.copy(), np.full(20, 0.05), wins, labels.copy(), 20.0, 1.0]
    clvq += [sums, wins.copy(), np.zeros(20), n_threads, isa]
    logits, gradient = normal(600, 1000, "float32"), np.empty((600, 1000), dtype=np.float32)
    loss = [logits, None, np.arange(600), np.ones(600), "index", 1.0, 0.1, n_threads, isa, gradient]
    offsets, k = np.arange(4) * 500, np.arange(4) * 10
    quantized = [np.empty((30, 40), dtype=np.float32), np.empty(30), np.empty(30, dtype=np.int64), labels.copy()]
    quantized += [np.empty(3), np.empty(3, dtype=np.int64)]
    forms, starts = np.array([0, 1, 3], dtype=np.uint8), [None, np.tile(np.arange(10), 3), None]
    classes = [
        X,
        np.ones(1500),
        np.arange(1500),
        offsets,
        k,
        1,
        np.ones(3, dtype=np.int64),
        *starts,
        50,
        1e-4,
        forms,
        n_threads,
        isa,
        *quantized,
        None,
    ]
    return {
        "assign": (assign, [labels, dist2]),
        "gram": (gram, [gram[1]]),
        "largest": ([X, n_threads, isa], []),
        "clvq": (clvq, [*clvq[1:5], *clvq[7:10]]),
        "weighted_loss": (loss, [gradient]),
        "quantize_classes": (classes, quantized),
    }


def solve(name: str, n_threads: int, isa: str) -> list[Any]:
    arguments, outputs = problems(n_threads, isa)[name]
    return [*outputs, getattr(core, name)(*arguments)]


@pytest.mark.parametrize("name", VALID)
def test_same_bits_with_any_threads_callers_and_instruction_sets(name: str) -> None:
    expected = {isa: solve(name, 1, isa) for isa in core.isas()}
    for isa in core.isas()[2:]:  # those with fused multiply-adds
        for a, b in zip(expected[isa], expected[core.isas()[1]], strict=True):
            assert_array_equal(a, b, err_msg=isa)
    jobs = [(n_threads, isa) for n_threads in (2, 3, 8, 1) for isa in core.isas()]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda job: solve(name, *job), jobs))
    for (n_threads, isa), outputs in zip(jobs, found, strict=True):
        for a, b in zip(outputs, expected[isa], strict=True):
            assert_array_equal(a, b, err_msg=f"{isa} {n_threads}")


def test_same_arrays_in_two_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = normal(900, 50), np.arange(900) % 3
    expected = {isa: quantize_with(X, y, isa, monkeypatch) for isa in core.isas()}
    for isa in core.isas():
        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(lambda _, isa=isa: quantize_with(X, y, isa, monkeypatch), range(4)):
                assert_identical(found, expected[isa])


def quantize_with(X: Any, y: Any, isa: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DDOQ_ISA", isa)
    return ddoq.quantize_classes(X, y, 7, n_init=3, random_state=0, n_threads=2)
