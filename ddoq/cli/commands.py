"""The commands: each one reads its options and calls the function of that name."""

from __future__ import annotations

import inspect
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ddoq.cli.distill import parse_distill
from ddoq.cli.options import FOLDER_OR_NPZ, Option, parse

RUN = Option(Path, "RUN", "The run folder that ddoq distill made.")
RUNS = "Run folders that ddoq distill made, or folders of class folders."
TEST = Option(str | None, help=f"{FOLDER_OR_NPZ} Its classes are matched by name.")
TEACHERS = (
    "A checkpoint of ddoq teacher, a folder with timm's config.json and weights, or the name of a pretrained timm "
    "model; several are averaged."
)


def _settings_option() -> Option:
    """How `--settings` is spelt, with the names of all that a protocol sets."""
    from ddoq.training.recipe import GIVEN, Recipe

    names = [field.name for field in fields(Recipe) if field.name not in GIVEN]
    return Option(
        tuple[str, ...] | None,
        value="NAME=VALUE [NAME=VALUE ...]",
        help="Other settings of the protocol: augment=crop leaves out flips, which digits and letters need; "
        f"augment=crop+flip is both, augment=none neither. Names: {', '.join(names)}; for what each means, "
        "python -m pydoc ddoq.training.recipe.Recipe.",
    )


def read_data(path: str, split: str = "train") -> Any:
    """Return what `ddoq.open_data` takes for a path: a folder as it is, an .npz file as (images, labels)."""
    if not path.endswith(".npz"):
        return path
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it holds a single array, as an .npy file does: save images and labels with numpy.savez")
        with loaded as arrays:
            for images, labels in (("images", "labels"), (f"x_{split}", f"y_{split}")):
                if images in arrays and labels in arrays:
                    return arrays[images], arrays[labels]
            names = ", ".join(arrays.files) or "nothing"
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npz file of plain arrays: {error}") from error
    raise ValueError(f"{path} holds {names}, but neither images and labels nor x_{split} and y_{split}")


def _distill(arguments: list[str]) -> None:
    import ddoq

    values = parse_distill(arguments)
    small = _call(ddoq.distill, values | {"data": read_data(values["data"])})
    folder = values["out"] / "images"
    print(f"{len(small)} images of {len(small.class_names)} classes: {folder}")
    print(f"their weights: {folder / 'metadata.jsonl'}")


def _fit(arguments: list[str]) -> None:
    import ddoq

    options = {
        "data": Option(str, "DATA", FOLDER_OR_NPZ),
        "out": Option(Path, "OUT"),
        "class_names": Option(tuple[str, ...] | None),
    }
    values = parse("fit", arguments, [ddoq.fit], options)
    print(_call(ddoq.fit, values | {"data": read_data(values["data"])}))


def _teacher(arguments: list[str]) -> None:
    import ddoq

    options = {
        "data": Option(str, "DATA", FOLDER_OR_NPZ),
        "out": Option(Path, "OUT"),
        "test": TEST,
        "class_names": Option(tuple[str, ...] | None),
        "settings": _settings_option(),
        "log": Option(Path | None),
    }
    values = _with_test(parse("teacher", arguments, [ddoq.train_teacher], options))
    print(_call(ddoq.train_teacher, values | {"data": read_data(values["data"])}))
    print(f"the teacher: {values['out']}")


def _label(arguments: list[str]) -> None:
    import ddoq

    options = {
        "dataset": Option(None),
        "path": RUN,
        "out": Option(Path, "OUT"),
        "teacher": Option(tuple[str, ...], help=TEACHERS),
        "settings": _settings_option(),
    }
    values = parse("label", arguments, [ddoq.label, ddoq.load], options)
    values["settings"] = _settings(values["settings"])
    print(_call(ddoq.label, _loaded(values)))


def _train(arguments: list[str]) -> None:
    import ddoq

    options = {
        "dataset": Option(None),
        "path": RUN,
        "teacher": Option(tuple[str, ...] | None, help=TEACHERS),
        "labels": Option(Path | None),
        "settings": _settings_option(),
        "test": TEST,
        "class_names": Option(tuple[str, ...] | None),
        "log": Option(Path | None),
    }
    values = parse("train", arguments, [ddoq.train, ddoq.load], options)
    print(_call(ddoq.train, _loaded(_with_test(values))))


def _call(function: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """What a function returns for the values of a command line."""
    return function(**values)


def _loaded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the data set "dataset", read as those say that are parameters of `ddoq.load`."""
    import ddoq

    names = inspect.signature(ddoq.load).parameters
    dataset = _call(ddoq.load, {name: values[name] for name in names})
    return {"dataset": dataset} | {name: value for name, value in values.items() if name not in names}


def _with_test(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the settings and the test set read."""
    test = values["test"] and read_data(values["test"], "test")
    return dict(values) | {"settings": _settings(values["settings"]), "test": test}


def _settings(texts: Sequence[str] | None) -> dict[str, Any]:
    from ddoq.training.recipe import read_settings

    return read_settings(texts or ())


def _evaluate(arguments: list[str]) -> None:
    import ddoq
    from ddoq.storage.files import check_writable

    def table(*, save: tuple[str, ...] = ()) -> None:
        """Keep the table.

        Parameters
        ----------
        save
            Files for the table: JSON, CSV or LaTeX by their endings .json, .csv and .tex.
        """

    options = {
        "run": Option(tuple[Path, ...], "RUN", RUNS, "(required)"),
        "test": Option(str, help=f"{FOLDER_OR_NPZ} Its classes are matched by name."),
        "data": Option(str | None),
        "teacher": Option(tuple[str, ...] | None, help=TEACHERS),
        "labels": Option(tuple[Path, ...] | None),
        "settings": _settings_option(),
        "save": Option(tuple[str, ...]),
    }
    values = parse("evaluate", arguments, [ddoq.evaluate, table], options)
    files = values.pop("save")
    if wrong := [file for file in files if Path(file).suffix not in (".json", ".csv", ".tex")]:
        raise ValueError(f"--save {wrong[0]} must end with .json, .csv or .tex")
    check_writable(*map(Path, files))  # now, not after hours of training
    values["data"] = values["data"] and read_data(values["data"])
    evaluation = _call(ddoq.evaluate, _with_test(values))
    for file in files:
        evaluation.save(file)
    print(evaluation)


def _weigh(arguments: list[str]) -> None:
    import ddoq

    options = {
        "folder": Option(Path, "FOLDER"),
        "data": Option(str | None, help=f"{FOLDER_OR_NPZ} Its classes are matched by name. Of a run: none."),
        "codec": Option(str),
    }
    values = parse("weigh", arguments, [ddoq.weigh], options)
    print(_call(ddoq.weigh, values | {"data": values["data"] and read_data(values["data"])}))


def _report(arguments: list[str]) -> None:
    import ddoq

    options = {"run": RUN, "out": Option(str | None)}
    print(_call(ddoq.report, parse("report", arguments, [ddoq.report], options)))


def _info(arguments: list[str]) -> None:
    import ddoq

    if arguments not in ([], ["--json"]):
        print("usage: ddoq info [--json]\n\nVersion, instruction set, threads and GPU of this build on this machine.")
        if arguments not in (["-h"], ["--help"]):
            raise SystemExit(2)
        return
    facts = ddoq.info()
    if arguments:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name:12}{', '.join(map(str, value)) if isinstance(value, tuple | list) else value}")


def _demo(arguments: list[str]) -> None:
    from ddoq.cli.demo import demo

    _call(demo, parse("demo", arguments, [demo], {"out": Option(str)}))


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "distill": _distill,
    "fit": _fit,
    "teacher": _teacher,
    "label": _label,
    "train": _train,
    "evaluate": _evaluate,
    "weigh": _weigh,
    "report": _report,
    "info": _info,
    "demo": _demo,
}
