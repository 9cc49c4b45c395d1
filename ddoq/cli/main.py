"""The `ddoq` command: an option is a parameter of the function that does the work, its help that function's docstring.

Exit status: 0 done; 1 an error, said in one line on stderr (--traceback or DDOQ_TRACEBACK=1 shows where); 2 wrong
usage; 130 Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import json
import os
import re
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np

from ddoq._version import __version__

EXTRAS = {  # module -> the extra of pyproject.toml that installs it
    "tyro": "cli",
    "torch": "torch",
    "diffusers": "models",
    "accelerate": "models",
    "transformers": "text",
    "timm": "train",
    "torchvision": "train",
    "datasets": "data",
    "ot": "metrics",
    "matplotlib": "report",
    "jinja2": "report",
}
USAGE = f"""\
ddoq {__version__}: a large labelled image data set becomes a small weighted one

usage: ddoq COMMAND [OPTIONS]        (ddoq COMMAND --help explains every option)

  distill DATA OUT     make the small weighted data set, in the run folder OUT; run again, it resumes
  fit DATA OUT         train a codec and a diffusion model on the images, for distill --diffusion OUT; it resumes too
  teacher DATA OUT     train a network on all images, for soft labels: train --teacher OUT
  label RUN OUT        store a teacher's soft labels of every view, for train --labels OUT; it resumes too
  train RUN            train one student on a distilled set, under a protocol, and give its accuracy on a test set
  evaluate RUN ...     table of accuracies: distilled sets and random subsets, weights on and off, several seeds
  weigh FOLDER         W2 of a run to its data; with --data, the best weights for any folder of distilled images
  report RUN           an HTML page of a run: images, weights, distances, a map, accuracies, how to make it again
  info                 version, instruction set, threads
  demo                 all of it on scikit-learn's digits, in under 3 minutes

  --help, --version
  --traceback          show where an error came from (or set DDOQ_TRACEBACK=1)

DATA is a folder with one folder of images per class, or FILE.npz with the arrays images (n, h, w[, channels]; uint8,
or floats in [0, 1]) and labels (n,); x_train and y_train (for a test set x_test and y_test) are read too.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: this process's own) and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    traceback = "--traceback" in arguments or os.environ.get("DDOQ_TRACEBACK", "0") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--traceback"]
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt as interrupt:
        print(f"ddoq: interrupted{_how_to_resume(arguments, interrupt)}", file=sys.stderr)
        return 130
    except Exception as error:
        line = _explain(error)
        if traceback or line is None:
            raise
        print(f"ddoq: error: {line}", file=sys.stderr)
        return 1


def _how_to_resume(arguments: list[str], interrupt: KeyboardInterrupt) -> str:
    if not arguments or arguments[0] in ("report", "info"):
        return ""
    if arguments[0] == "train" and not {"--log", "--checkpoint"} & {text.partition("=")[0] for text in arguments}:
        return "; only with --log or --checkpoint would the same command go on from here"
    if arguments[0] in ("train", "teacher"):
        return f"; {interrupt}: the same command goes on from here" if interrupt.args else ""
    return "; the same command goes on from here"


def _dispatch(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if command == "--version":
        print(f"ddoq {__version__}")
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"ddoq: {command!r} is not a command{hint}\n\n{USAGE}", file=sys.stderr, end="")
        return 2
    COMMANDS[command](rest)
    return 0


def _explain(error: Exception) -> str | None:
    """Return an error as one message for a user; None for what can only be a bug."""
    from ddoq.storage.files import RunError

    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").split(".")[0]
        if module in EXTRAS:
            return f"{module} is not installed: pip install 'ddoq[{EXTRAS[module]}]'"
        return str(error) if "ddoq[" in str(error) else None
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, ValueError | TypeError | RunError | OSError | MemoryError):
        return str(error) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
    return None


def parameter_help(function: Callable[..., Any]) -> dict[str, str]:
    """Return the text of each parameter in a numpy-style docstring.

    Examples
    --------
    >>> import ddoq
    >>> parameter_help(ddoq.distill)["ipc"]
    'Images per class; at most the number of distinct images of the smallest class.'
    """
    text = inspect.getdoc(function) or ""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}$|\Z)", text, re.DOTALL | re.MULTILINE)
    entries = re.findall(r"^(\S[^\n]*)\n((?:(?:[ ]+[^\n]*)?\n)+)", (section[1] if section else "") + "\n", re.MULTILINE)
    return {
        name.strip(): " ".join(body.replace("`", "").split())
        for names, body in entries
        for name in names.split(" : ")[0].split(",")
    }


@dataclasses.dataclass(frozen=True)
class Option:
    """How a parameter is spelt on the command line, where its own annotation and docstring do not say."""

    type: Any
    metavar: str | None = None  # a positional argument, shown under this name
    help: str | None = None
    hint: str | None = None  # what stands for the default
    value: str | None = None  # what stands for the value of an option


FOLDER_OR_NPZ = "A folder with one folder of images per class, or an .npz file (see ddoq --help)."
RUN = Option(Path, "RUN", "The run folder that ddoq distill made.")
RUNS = "Run folders that ddoq distill made, or folders of class folders."
TEST = Option(str | None, help=f"{FOLDER_OR_NPZ} Its classes are matched by name.")
SETTINGS = Option(
    tuple[str, ...] | None,
    value="NAME=VALUE [NAME=VALUE ...]",
    help="Other settings of the protocol: augment=crop leaves out flips, which digits and letters need; "
    "augment=crop+flip is both, augment=none neither. Names: epochs, batch_size, lr, momentum, weight_decay, decay_1d, "
    "optimizer, schedule, accumulate, augment, crop_scale, patches, dsa, mix, mix_alpha, mix_probability, mix_weights, "
    "temperature, label_epochs, test_crop, check_from, precision, channels_last; for what each means, "
    "python -m pydoc ddoq.training.recipe.Recipe.",
)
TEACHERS = "A checkpoint of ddoq teacher, a folder with timm's config.json and weights, or the name of a pretrained \
timm model; several are averaged."


def _parse(
    command: str,
    arguments: list[str],
    functions: Sequence[Callable[..., Any]],
    options: Mapping[str, Option],
) -> dict[str, Any]:
    """Parse `arguments` into the parameters of `functions`, but those whose option is of type None.

    Where two functions have a parameter of one name, the first says what it is; required ones come in the order of
    `options`. The description is the first function's docstring up to its parameters.
    """
    tyro: Any = importlib.import_module("tyro")
    fields: dict[str, tuple[str, Any, Any]] = {}
    several: list[str] = []
    for function in functions:
        described = parameter_help(function)
        for name, parameter in inspect.signature(function).parameters.items():
            option = options.get(name)
            if name in fields or (option and option.type is None):
                continue
            option = option or Option(_annotation(function, parameter))
            text = option.help or described[name]
            shown = option.metavar or option.value or _value_shown(option.type)
            config = tyro.conf.arg(help=text, metavar=shown, help_behavior_hint=option.hint)
            kind = tyro.conf.Positional[option.type] if option.metavar else option.type
            required = parameter.default is parameter.empty
            default = dataclasses.field() if required else dataclasses.field(default=parameter.default)
            fields[name] = (name, Annotated[kind, config], default)
            if any(get_origin(one) is tuple for one in (option.type, *get_args(option.type))):
                several.append(name)
    _refuse_repeated(arguments, several)
    places = [*options, *fields]
    optional = {name for name, entry in fields.items() if entry[2].default is not dataclasses.MISSING}
    ordered = sorted(fields.values(), key=lambda entry: len(places) if entry[0] in optional else places.index(entry[0]))
    description = (inspect.getdoc(functions[0]) or "").split("\nParameters\n")[0].replace("`", "").strip()
    parsed = tyro.cli(
        dataclasses.make_dataclass(command, ordered, frozen=True),
        prog=f"ddoq {command}",
        description=description,
        args=arguments,
    )
    return {name: getattr(parsed, name) for name in fields}


def _value_shown(kind: Any) -> str | None:
    """How the help shows the value of an option that may be None, without the None; others are shown by tyro.

    >>> [_value_shown(kind) for kind in (int | None, tuple[str, ...] | None, Literal["a", "b"] | None, int)]
    ['INT', 'STR [STR ...]', '{a,b}', None]
    """
    kinds = [one for one in get_args(kind) if one is not type(None)]
    if len(kinds) != 1 or len(get_args(kind)) != 2 or get_origin(kind) is tuple:
        return None
    (kind,) = kinds
    if get_origin(kind) is Literal:
        return f"{{{','.join(map(str, get_args(kind)))}}}"
    if get_origin(kind) is tuple:
        name = get_args(kind)[0].__name__.upper()
        return f"{name} [{name} ...]"
    return str(kind.__name__).upper()


def _refuse_repeated(arguments: Sequence[str], several: Sequence[str]) -> None:
    """ValueError for an option of several values that is given twice: the first would be lost without a word."""
    given = [text.partition("=")[0].replace("-", "_") for text in arguments if text.startswith("--")]
    for name in several:
        if given.count(f"__{name}") > 1:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is given twice: give it once, with all its values: {option} ONE ANOTHER")


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return a parameter's type: ddoq's modules keep annotations as source text."""
    return eval(parameter.annotation, sys.modules[function.__module__].__dict__)


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

    options = {
        "data": Option(str, "DATA", FOLDER_OR_NPZ),
        "out": Option(Path, "OUT"),
        "codec": Option(str),
        "diffusion": Option(str),
        "latents": Option(Path | None),
        "controls": Option(tuple[Literal["diffuse", "decode", "nearest"], ...]),
        "class_names": Option(tuple[str, ...] | None),
    }
    chosen = _parse("distill", arguments, [ddoq.distill], options)
    small = ddoq.distill(read_data(chosen.pop("data")), **chosen)
    folder = chosen["out"] / "images"
    print(f"{len(small)} images of {len(small.class_names)} classes: {folder}")
    print(f"their weights: {folder / 'metadata.jsonl'}")


def _fit(arguments: list[str]) -> None:
    import ddoq

    options = {
        "data": Option(str, "DATA", FOLDER_OR_NPZ),
        "out": Option(Path, "OUT"),
        "class_names": Option(tuple[str, ...] | None),
    }
    chosen = _parse("fit", arguments, [ddoq.fit], options)
    print(ddoq.fit(read_data(chosen.pop("data")), **chosen))


def _teacher(arguments: list[str]) -> None:
    import ddoq

    options = {
        "data": Option(str, "DATA", FOLDER_OR_NPZ),
        "out": Option(Path, "OUT"),
        "test": TEST,
        "class_names": Option(tuple[str, ...] | None),
        "settings": SETTINGS,
        "log": Option(Path | None),
    }
    chosen = _parse("teacher", arguments, [ddoq.train_teacher], options)
    test, out = chosen.pop("test"), chosen["out"]
    chosen["settings"] = _settings(chosen["settings"])
    print(ddoq.train_teacher(read_data(chosen.pop("data")), test=test and read_data(test, "test"), **chosen))
    print(f"the teacher: {out}")


def _label(arguments: list[str]) -> None:
    import ddoq

    options = {
        "dataset": Option(None),
        "path": RUN,
        "out": Option(Path, "OUT"),
        "teacher": Option(tuple[str, ...], help=TEACHERS),
        "settings": SETTINGS,
    }
    chosen = _parse("label", arguments, [ddoq.label, ddoq.load], options)
    chosen["settings"] = _settings(chosen["settings"])
    small = ddoq.load(**{name: chosen.pop(name) for name in inspect.signature(ddoq.load).parameters})
    print(ddoq.label(small, **chosen))


def _train(arguments: list[str]) -> None:
    import ddoq

    options = {
        "dataset": Option(None),
        "path": RUN,
        "teacher": Option(tuple[str, ...] | None, help=TEACHERS),
        "labels": Option(Path | None),
        "settings": SETTINGS,
        "test": TEST,
        "class_names": Option(tuple[str, ...] | None),
        "log": Option(Path | None),
    }
    chosen = _parse("train", arguments, [ddoq.train, ddoq.load], options)
    test = chosen.pop("test")
    chosen["settings"] = _settings(chosen["settings"])
    small = ddoq.load(**{name: chosen.pop(name) for name in inspect.signature(ddoq.load).parameters})
    result = ddoq.train(small, test=test and read_data(test, "test"), **chosen)
    print(result)


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
        "settings": SETTINGS,
        "save": Option(tuple[str, ...]),
    }
    chosen = _parse("evaluate", arguments, [ddoq.evaluate, table], options)
    files = chosen.pop("save")
    if wrong := [file for file in files if Path(file).suffix not in (".json", ".csv", ".tex")]:
        raise ValueError(f"--save {wrong[0]} must end with .json, .csv or .tex")
    check_writable(*map(Path, files))  # now, not after hours of training
    test, data = read_data(chosen.pop("test"), "test"), chosen.pop("data")
    chosen["settings"] = _settings(chosen["settings"])
    evaluation = ddoq.evaluate(test=test, data=data and read_data(data), **chosen)
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
    chosen = _parse("weigh", arguments, [ddoq.weigh], options)
    data = chosen.pop("data")
    print(ddoq.weigh(data=data and read_data(data), **chosen))


def _report(arguments: list[str]) -> None:
    import ddoq

    options = {"run": RUN, "out": Option(str | None)}
    print(ddoq.report(**_parse("report", arguments, [ddoq.report], options)))


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

    demo(**_parse("demo", arguments, [demo], {"out": Option(str)}))


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
