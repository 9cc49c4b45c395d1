"""The help of the command, and options that are not there."""

from __future__ import annotations

import inspect
import re
import shlex
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from cli_run import data, run
from command import call, distill_line, entries, one_line_error

import ddoq
from ddoq.cli import commands, main as cli, options
from ddoq.cli.demo import demo
from ddoq.cli.distill import GROUPS
from ddoq.methods.catalogue import METHODS
from ddoq.methods.task import Method
from ddoq.training.recipe import GIVEN, Recipe, read_settings

__all__ = ["data", "run"]

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "distill": ddoq.distill,
    "fit": ddoq.fit,
    "teacher": ddoq.train_teacher,
    "label": ddoq.label,
    "train": ddoq.train,
    "evaluate": ddoq.evaluate,
    "weigh": ddoq.weigh,
    "report": ddoq.report,
    "demo": demo,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option_and_its_default(capsys: pytest.CaptureFixture[str], command: str) -> None:
    status, text, _ = call(capsys, command, "--help")
    assert status == 0
    function = COMMANDS[command]
    explained = options.parameter_help(function)
    for name in inspect.signature(function).parameters:
        assert explained[name].endswith("."), f"{command}: {name} has no sentence in the docstring"
    shown = entries(text)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY or command == "demo":
            entry = shown[name.replace("_", "-")]
            assert "(default: " in entry or "(required)" in entry, f"{command} --{name}: {entry}"
            assert len(entry.split()) > 5, f"{command} --{name}: {entry}"


def test_help_of_settings_has_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("teacher", "label", "train", "evaluate"):
        shown = entries(call(capsys, command, "--help")[1])["settings"]
        names = re.split(r"[,;] ", shown.partition("Names: ")[2].partition("; for what")[0])
        assert sorted(names) == sorted(f.name for f in fields(Recipe) if f.name not in GIVEN)
        assert "augment=crop leaves out flips" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_no_none_for_a_value(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert "{None" not in call(capsys, command, "--help")[1]


def test_commands_of_the_readme_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/guide.md"))
    lines = [shlex.split(line, comments=True) for line in re.findall(r"^    ddoq (.*)$", text, re.MULTILINE)]
    named = {words[0] for words in lines}
    assert {"distill", "teacher", "train", "evaluate", "weigh", "report"} <= named <= set(commands.COMMANDS)
    known = {command: entries(call(capsys, command, "--help")[1]) for command in named}
    known["distill"] = entries(call(capsys, "distill", "--method", "ddoq", "--help")[1])
    for command, *words in lines:
        assert {word[2:] for word in words if word.startswith("--")} <= known[command].keys(), (command, words)
    settings = re.findall(r"--settings((?: \w+=\w+)+)", text)
    assert settings
    for texts in settings:
        read_settings(texts.split())


def test_mistyped_names_are_corrected(capsys: pytest.CaptureFixture[str], data: Path, run: Path) -> None:
    line = ("train", run, "--test", data, "--epochs", 1)
    error = one_line_error(call(capsys, *line, "--settings", "temprature=4"))
    assert "'temprature' is no setting of a protocol; did you mean 'temperature'?" in error
    assert "'temperature 4' is not NAME=VALUE" in one_line_error(call(capsys, *line, "--settings", "temperature 4"))
    status, out, err = call(capsys, *line, "--epoch", 3)
    assert status == 2
    assert "--epochs" in out + err


def test_an_option_of_several_values_is_not_lost(capsys: pytest.CaptureFixture[str], data: Path, run: Path) -> None:
    twice = ("--settings", "augment=crop", "--settings", "mix=none")
    error = one_line_error(call(capsys, "train", run, "--test", data, *twice))
    assert "--settings is given twice: give it once, with all its values" in error


def test_help_of_distill_is_short_and_in_groups(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = call(capsys, "distill", "--help")[1]
    assert len(text.splitlines()) <= 100
    for group in GROUPS:
        assert f"{group} options " in text
    grouped = {name for names in GROUPS.values() for name in names}
    assert {name.replace("-", "_") for name in entries(text)} == {*grouped, "help"}
    assert "ddoq distill --method NAME --help" in text


@pytest.mark.parametrize("method", METHODS)
def test_help_of_a_method_has_its_options_with_its_defaults(capsys: pytest.CaptureFixture[str], method: str) -> None:
    text = call(capsys, "distill", "--method", method, "--help")[1]
    shown = entries(text)
    explained = options.parameter_help(METHODS[method].options)
    for field in fields(METHODS[method].options):
        entry = shown[field.name.replace("_", "-")]
        default = field.default
        shown_default = "" if default == () else shlex.quote(default) if isinstance(default, str) else default
        assert f"(default: {shown_default})" in entry, entry
        assert explained[field.name].endswith((".", ")")), field.name
        assert len(explained[field.name].split()) > 5, field.name
    assert (f"{method} options " in text) == bool(explained)
    assert f"(default: {METHODS[method].weightings[0]})" in shown["weighting"]
    assert f"(default: {METHODS[method].image_size})" in shown["image-size"]
    assert f"(default: {METHODS[method].output_size})" in shown["output-size"]


def test_every_option_of_distill_has_a_text_and_a_name_of_its_own() -> None:
    common = options.parameter_help(ddoq.distill)
    for method in METHODS.values():
        own = options.parameter_help(method.options)
        assert len({*common.values(), *own.values()}) == len(common) + len(own)


def test_options_of_another_method_are_refused_with_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Plain:
        """A method with one option.

        Parameters
        ----------
        size
            Images that it looks at.
        """

        size: int = 3

    monkeypatch.setitem(METHODS, "plain", Method("plain", Plain, lambda task, options: None))
    for wrong, having in ((("--strength", "1"), "'ddoq'"), (("--size=3",), "'plain'")):
        method = "ddoq" if "plain" in having else "plain"
        status, out, err = call(capsys, "distill", "data", "out", "--method", method, *wrong)
        assert (status, out) == (2, "")
        assert f"method {method!r} has no {wrong[0].partition('=')[0]}: it is an option of {having}" in err
    status, out, err = call(capsys, "distill", "data", "out", "--strenght", "0.5")
    assert status == 2
    assert "--strength" in out + err


def test_a_command_without_a_method_takes_options_of_ddoq(data: Path, tmp_path: Path) -> None:
    named, unnamed = tmp_path / "named", tmp_path / "unnamed"
    for line in (distill_line(data, named, "--method", "ddoq"), distill_line(data, unnamed)):
        assert cli.main(line) == 0
    configs = [ddoq.load(run).manifest["config"] for run in (named, unnamed)]
    assert configs[0] == configs[1]
    assert configs[0]["options"]["synthesis"] == "decode"


def test_evaluate_asks_for_a_run(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    text = " ".join(call(capsys, "evaluate", "--help")[1].replace("│", " ").split())
    assert re.search(r"RUN.{,20} Run folders that ddoq distill made, or folders of class folders\. \(required\)", text)
    status, _, message = call(capsys, "evaluate", "--test", data)
    assert status == 1
    assert "run names no set to evaluate: give" in message


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ((), ("--help",), ("-h",)):
        status, text, _ = call(capsys, *line)
        assert status == 0
        assert all(re.search(rf"^  {command} ", text, re.MULTILINE) for command in commands.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version") == (0, f"ddoq {ddoq.__version__}\n", "")


@pytest.mark.parametrize(
    "line",
    [
        ("nonsense",),
        ("--nonsense",),
        ("distill",),
        ("distill", "data", "out", "--nonsense", "1"),
        ("distill", "data", "out", "--ipc", "ten"),
        ("distill", "data", "out", "--synthesis", "dream"),
        ("distill", "data", "out", "--method", "dream"),
        ("distill", "data", "out", "--method", "random", "--weighting", "density"),
        ("train", "run", "--epochs"),
    ],
)
def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str], line: tuple[str, ...]) -> None:
    status, out, err = call(capsys, *line)
    assert status == 2
    assert "Traceback" not in out + err
    assert err
