"""The command line: exit status, messages, and a small run from end to end."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_run import data, run
from command import call, distill_line, one_line_error

import ddoq
from ddoq.cli import commands, main as cli
from ddoq.cli.demo import digits

__all__ = ["data", "run"]

ROOT = Path(__file__).resolve().parents[2]


def test_python_m_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "ddoq", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"ddoq {ddoq.__version__}\n")
    done = subprocess.run([sys.executable, "-m", "ddoq", "distil"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean 'distill'" in done.stderr


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = call(capsys, "info")
    assert status == 0
    assert ddoq.__version__ in text
    status, text, _ = call(capsys, "info", "--json")
    assert json.loads(text)["version"] == ddoq.__version__
    assert call(capsys, "info", "--help")[0] == 0
    assert call(capsys, "info", "--nonsense")[0] == 2


def test_distill_train_evaluate(capsys: pytest.CaptureFixture[str], data: Path, run: Path, tmp_path: Path) -> None:
    small = ddoq.load(run)
    assert len(small) == 6
    assert small.class_names == ("one", "two", "zero")
    status, out, _ = call(capsys, *distill_line(data, run))
    assert status == 0
    assert "6 images of 3 classes" in out
    status, out, _ = call(capsys, "train", run, "--test", data, "--epochs", 2, "--weighting", "sqrt", "--no-progress")
    assert status == 0
    assert "%" in out
    line = ("evaluate", run, "--test", data, "--data", data, "--epochs", 2, "--seeds", 2, "--no-progress")
    files = [tmp_path / "kept" / f"table.{suffix}" for suffix in ("json", "csv", "tex")]
    status, out, _ = call(capsys, *line, "--save", *files)
    assert status == 0
    assert all(word in out for word in ("random", "decode", "uniform", "density"))
    assert all(file.stat().st_size for file in files)
    assert "table.txt" in one_line_error(call(capsys, *line, "--save", "table.txt"))
    (tmp_path / "file").touch()
    assert "cannot write" in one_line_error(call(capsys, *line, "--save", tmp_path / "file" / "table.csv"))
    other = tmp_path / "other"
    assert cli.main(distill_line(data, other, "--seed", "1")) == 0
    capsys.readouterr()
    status, out, _ = call(capsys, "evaluate", run, other, *line[2:])
    assert status == 0
    assert "2 x 2" in out
    assert call(capsys, "evaluate", *line[2:])[0] != 0


def test_teacher_label_train(capsys: pytest.CaptureFixture[str], data: Path, run: Path, tmp_path: Path) -> None:
    teacher, labels, log = tmp_path / "teacher.safetensors", tmp_path / "labels", tmp_path / "log.jsonl"
    quick = ("--epochs", 2, "--no-progress", "--device", "cpu")
    line = ("teacher", data, teacher, "--student", "convnet3", "--test", data, "--settings", "augment=crop", *quick)
    status, out, _ = call(capsys, *line)
    assert status == 0
    assert "protocol teacher, epochs=2, augment=crop" in out
    assert str(teacher) in out
    status, out, _ = call(capsys, *line)
    assert status == 0
    assert re.search(r"% of the test images right .*: nothing was trained\n", out)
    assert "epochs: 2 there, 3 now" in one_line_error(call(capsys, *line, "--epochs", 3))
    status, out, err = call(capsys, "label", run, labels, "--teacher", teacher, "--epochs", 2, "--device", "cpu")
    assert (status, out.strip()) == (0, str(labels)), err
    assert "soft labels of 2 epochs x 6 images, 3 classes: 72 bytes" in err
    base = ("train", run, "--test", data, "--protocol", "d4m", *quick)
    for source in (("--labels", labels), ("--teacher", teacher, teacher)):
        status, out, _ = call(capsys, *base, *source, "--settings", "mix_weights=base", "accumulate=1", "--log", log)
        assert status == 0
        assert "protocol d4m, epochs=2, accumulate=1, mix_weights=base" in out
    assert "give teacher or labels" in one_line_error(call(capsys, *base))
    assert "mix_wights" in one_line_error(call(capsys, *base, "--settings", "mix_wights=base"))


def test_weigh(capsys: pytest.CaptureFixture[str], data: Path, run: Path, tmp_path: Path) -> None:
    status, out, _ = call(capsys, "weigh", run, "--no-progress")
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()[2:]] == [
        ["points", "density"], ["points", "uniform"], ["decode", "reencoded"], ["decode", "density"],
        ["decode", "uniform"],
    ]  # fmt: skip
    images = tmp_path / "images"
    for name in ("zero", "one", "two"):
        (images / name).mkdir(parents=True)
        shutil.copy(data / name / "3.png", images / name)
    status, out, _ = call(capsys, "weigh", images, "--data", data, "--no-progress")
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()[2:]] == [["given", "reencoded"], ["given", "uniform"]]
    assert ddoq.load(images).weights.tolist() == [1, 1, 1]
    status, out, _ = call(capsys, "train", images, "--test", data, "--epochs", 1, "--no-progress")
    assert status == 0
    assert "data" in one_line_error(call(capsys, "weigh", data))


def test_report(capsys: pytest.CaptureFixture[str], data: Path, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert call(capsys, "report", run, "--out", page) == (0, f"{page}\n", "")
    assert page.read_text().startswith("<!doctype html>")
    assert str(data) in one_line_error(call(capsys, "report", data))


def test_npz(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (images, labels), (test_images, test_labels) = digits()
    path = tmp_path / "digits.npz"
    np.savez(path, x_train=images[:200], y_train=labels[:200], x_test=test_images, y_test=test_labels)
    assert np.array_equal(commands.read_data(str(path))[0], images[:200])
    assert np.array_equal(commands.read_data(str(path), "test")[1], test_labels)
    assert call(capsys, *distill_line(path, tmp_path / "run"))[0] == 0
    assert len(ddoq.load(tmp_path / "run")) == 20


def test_names_of_the_classes_of_test_arrays(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (images, labels), (test_images, test_labels) = digits()
    train, test, out = tmp_path / "train.npz", tmp_path / "test.npz", tmp_path / "run"
    np.savez(train, images=images[labels < 2], labels=labels[labels < 2])
    np.savez(test, images=test_images[test_labels < 2], labels=test_labels[test_labels < 2])
    names = ("--class-names", "zero", "one")
    assert call(capsys, *distill_line(train, out, *names))[0] == 0
    for line in (("train", out, "--test", test), ("evaluate", out, "--test", test, "--seeds", 1)):
        status, text, _ = call(capsys, *line, *names, "--epochs", 1, "--no-progress")
        assert status == 0
        assert "%" in text
    error = one_line_error(call(capsys, "train", out, "--test", test, "--epochs", 1, "--no-progress"))
    assert "name the classes of arrays with class_names" in error


def test_absent_device(capsys: pytest.CaptureFixture[str], data: Path, run: Path, tmp_path: Path) -> None:
    for line in (distill_line(data, tmp_path / "out"), ["train", run, "--test", data]):
        assert "cuda:99" in one_line_error(call(capsys, *line, "--device", "cuda:99"))
        assert "'foo'" in one_line_error(call(capsys, *line, "--device", "foo"))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_errors_are_one_line_that_names_the_culprit(
    capsys: pytest.CaptureFixture[str], data: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert "ipc=13" in one_line_error(call(capsys, *distill_line(data, out, "--ipc", "13")))
    assert str(tmp_path / "absent") in one_line_error(call(capsys, *distill_line(tmp_path / "absent", out)))
    assert "absent.npz" in one_line_error(call(capsys, *distill_line(tmp_path / "absent.npz", out)))
    assert "ipc" in one_line_error(call(capsys, *distill_line(data, run, "--ipc", "3")))
    assert "convnet33" in one_line_error(
        call(capsys, "train", run, "--test", data, "--student", "convnet33", "--epochs", 1)
    )
    assert str(data) in one_line_error(call(capsys, "train", data, "--test", data))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", "not a readable .npz"),
        (npy(np.zeros((3, 8, 8))), "not a readable .npz file of plain arrays: it holds a single array"),
        ({"pictures": np.zeros(3)}, "holds pictures"),
        ({"images": np.array([{}]), "labels": np.zeros(1)}, "allow_pickle"),
    ],
)
def test_bad_npz_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: dict[str, np.ndarray] | bytes, message: str
) -> None:
    path = tmp_path / "bad.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    error = one_line_error(call(capsys, *distill_line(path, tmp_path / "out")))
    assert "bad.npz" in error
    assert message in error


def test_traceback_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = distill_line(tmp_path / "absent", tmp_path / "out")
    with pytest.raises((OSError, ValueError)):
        cli.main([*line, "--traceback"])
    monkeypatch.setenv("DDOQ_TRACEBACK", "1")
    with pytest.raises((OSError, ValueError)):
        cli.main(line)


@pytest.mark.parametrize(("module", "extra"), [("tyro", "cli"), ("torch", "torch")])
def test_missing_extra_is_named(data: Path, tmp_path: Path, module: str, extra: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from ddoq.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *distill_line(data, tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{module} is not installed: pip install 'ddoq[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_interrupt_is_status_130(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = ["distill", str(data), str(out), "--codec-steps", "100000", "--no-progress", "--ipc", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ddoq", *line],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's children ignore it
    )
    while not (out / "run.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    # `python -m` ends by the signal itself, 130 to a shell, if it struck within an exec of a string, as in an import of
    # dataclasses: CPython remembers it though it was handled
    assert process.returncode in (130, -signal.SIGINT)
    assert err == "ddoq: interrupted; the same command goes on from here\n"


@pytest.mark.parametrize(
    ("line", "kept", "told"),
    [
        (["train", "run"], (), "; only with --log or --checkpoint would the same command go on from here"),
        (["train", "run", "--log=a.jsonl"], ("3 of 9 steps are kept",), "; 3 of 9 steps are kept: the same command "),
        (["train", "run", "--log=a.jsonl"], (), ""),
        (["teacher", "data", "out"], (), ""),
        (["report", "run"], (), ""),
    ],
)
def test_what_goes_on_after_ctrl_c(
    line: list[str],
    kept: tuple[str, ...],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(arguments: list[str]) -> None:
        raise KeyboardInterrupt(*kept)

    monkeypatch.setitem(commands.COMMANDS, line[0], interrupted)
    assert cli.main(line) == 130
    assert capsys.readouterr().err == f"ddoq: interrupted{told}{'goes on from here' if kept else ''}\n"
