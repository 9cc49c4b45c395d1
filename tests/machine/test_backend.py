"""Choice of the instruction set and of the number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import ddoq
import ddoq.cuda
import ddoq.machine.gpu
from ddoq.machine import backend as _backend
from ddoq.machine.info import describe


def test_isa_is_the_best_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDOQ_ISA", raising=False)
    assert _backend.core.isas()[0] == "baseline"
    assert _backend.isa() == _backend.core.isas()[-1]
    for name in _backend.core.isas():
        monkeypatch.setenv("DDOQ_ISA", name)
        assert _backend.isa() == name


def test_an_impossible_isa_names_the_possible_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDOQ_ISA", "mmx")
    with pytest.raises(ValueError, match=r"DDOQ_ISA='mmx' cannot run here: choose one of baseline"):
        _backend.isa()


def test_a_requested_number_of_threads_is_taken() -> None:
    assert _backend.n_threads(3) == 3


@pytest.mark.parametrize("requested", [0, -1])
def test_too_few_threads_are_refused(requested: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        _backend.n_threads(requested)


@pytest.mark.parametrize("requested", [1.0, "2", True])
def test_threads_of_another_type_are_refused(requested: object) -> None:
    with pytest.raises(TypeError, match="must be an integer of at least 1"):
        _backend.n_threads(requested)  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "limit"), [("1", 1), ("1,4", 1), ("", None), ("0", None), ("many", None)])
def test_omp_num_threads_is_a_limit(value: str, limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    free = _backend.n_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert _backend.n_threads() == (free if limit is None else limit)


def test_affinity_is_a_limit() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert _backend.n_threads() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_info_says_what_runs() -> None:
    info = ddoq.info()
    assert info["version"] == ddoq.__version__
    assert info["isa"] in _backend.core.isas()
    assert info["cuda"] == describe()


def test_import_is_silent_and_loads_numpy_alone() -> None:
    script = (
        "import sys, ddoq, ddoq.machine.backend; "
        "print([m for m in ('torch', 'sklearn', 'scipy', 'ot') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
