"""Options of the command line from the signature and the docstring of the function that does the work."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin


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


def parse(
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
