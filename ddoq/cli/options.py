"""The options of a command come from the signature and the docstring of the function that does its work."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ddoq.machine.extras import need

FOLDER_OR_NPZ = "A folder with one folder of images per class, or an .npz file (see ddoq --help)."


def parameter_help(function: Callable[..., Any]) -> dict[str, str]:
    """Return the text of each parameter in a numpy-style docstring; of a class with those that it inherits.

    Examples
    --------
    >>> import ddoq
    >>> parameter_help(ddoq.distill)["ipc"]
    'Images per class; at most the number of distinct images of the smallest class.'
    """
    import docstring_parser  # which tyro brings

    texts: dict[str, str] = {}
    for described in reversed(inspect.getmro(function)) if isinstance(function, type) else [function]:
        parsed = docstring_parser.parse(described.__doc__ or "", docstring_parser.DocstringStyle.NUMPYDOC)
        for entry in parsed.params:
            text = " ".join((entry.description or "").replace("`", "").split())
            texts |= {name.strip(" *"): text for name in entry.arg_name.split(",")}
    return texts


@dataclasses.dataclass(frozen=True)
class Option:
    """How a parameter is spelt on the command line, where its own annotation and docstring do not say."""

    type: Any
    metavar: str | None = None  # a positional argument, shown under this name
    help: str | None = None
    hint: str | None = None  # shown instead of the default
    value: str | None = None  # shown instead of the value of an option


def parse(
    command: str,
    arguments: list[str],
    functions: Sequence[Callable[..., Any]],
    options: Mapping[str, Option],
    groups: Mapping[str, Sequence[str]] | None = None,
    description: str | None = None,
) -> dict[str, Any]:
    """Parse `arguments` into the parameters of `functions`, but those whose option is of type None.

    Where two functions have a parameter of one name, the first says what it is; required ones come in the order of
    `options`. The help shows the parameters of `groups` under the names of these. The description is by default the
    first function's docstring up to its parameters.
    """
    tyro: Any = need("tyro", "the command line")
    entries: dict[str, tuple[str, Any, Any]] = {}
    for function in functions:
        texts = parameter_help(function)
        for name, kind, default in _parameters(function):
            option = options.get(name)
            if name in entries or (option and option.type is None):
                continue
            option = option or Option(kind)
            shown = option.metavar or option.value or _value_shown(option.type)
            config = tyro.conf.arg(help=option.help or texts[name], metavar=shown, help_behavior_hint=option.hint)
            kind = tyro.conf.Positional[option.type] if option.metavar else option.type
            entries[name] = (name, Annotated[kind, config], dataclasses.field(default=default))
    _refuse_repeated(arguments, [name for name, entry in entries.items() if _takes_several(entry[1])])
    if description is None:
        description = (inspect.getdoc(functions[0]) or "").split("\nParameters\n")[0].replace("`", "").strip()
    parsed = tyro.cli(
        _grouped(command, _ordered(entries, list(options)), groups or {}),
        prog=f"ddoq {command}",
        description=description,
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    values = dataclasses.asdict(parsed)
    for title in groups or {}:
        values |= values.pop(title.replace(" ", "_"), {})
    return {name: values[name] for name in entries}


def _parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Name, type and default of each parameter; MISSING where there is none. The fields of a dataclass are its own."""
    if isinstance(function, type):
        kinds = get_type_hints(function)
        return [(field.name, kinds[field.name], field.default) for field in dataclasses.fields(function)]
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return [
        (p.name, p.annotation, dataclasses.MISSING if p.default is p.empty else p.default)
        for p in parameters
        if p.kind is not p.VAR_KEYWORD
    ]


def _ordered(entries: Mapping[str, tuple[str, Any, Any]], first: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """Required parameters in the order of `first`, then all others as they come."""
    ranks = {name: rank for rank, name in enumerate(dict.fromkeys([*first, *entries]))}

    def rank(entry: tuple[str, Any, Any]) -> int:
        return ranks[entry[0]] if entry[2].default is dataclasses.MISSING else len(ranks)

    return sorted(entries.values(), key=rank)


def _grouped(command: str, entries: Sequence[tuple[str, Any, Any]], groups: Mapping[str, Sequence[str]]) -> type[Any]:
    """A dataclass of the parameters, with those of each group in a dataclass of their own."""
    parts: list[tuple[str, Any, Any]] = []
    for title, names in groups.items():
        members = [entry for entry in entries if entry[0] in names]
        kind = dataclasses.make_dataclass(title.title().replace(" ", ""), members, frozen=True)
        kind.__doc__ = ""
        parts.append((title.replace(" ", "_"), kind, dataclasses.field(default_factory=kind)))
    listed = {name for names in groups.values() for name in names}
    return dataclasses.make_dataclass(
        command, [*(entry for entry in entries if entry[0] not in listed), *parts], frozen=True
    )


def _value_shown(kind: Any) -> str | None:
    """How the help shows the value of an option that may be None, without the None; others are shown by tyro.

    >>> [_value_shown(kind) for kind in (int | None, tuple[str, ...] | None, Literal["a", "b"] | None, int)]
    ['INT', 'STR [STR ...]', '{a,b}', None]
    """
    kinds = [part for part in get_args(kind) if part is not type(None)]
    if len(kinds) != 1 or len(get_args(kind)) != 2 or get_origin(kind) is tuple:
        return None
    (kind,) = kinds
    if get_origin(kind) is Literal:
        return f"{{{','.join(map(str, get_args(kind)))}}}"
    if get_origin(kind) is tuple:
        name = get_args(kind)[0].__name__.upper()
        return f"{name} [{name} ...]"
    return str(kind.__name__).upper()


def _takes_several(annotated: Any) -> bool:
    """Whether an option takes several values."""
    (kind, *_) = get_args(annotated)
    return any(get_origin(part) is tuple for part in (kind, *get_args(kind)))


def _refuse_repeated(arguments: Sequence[str], several: Sequence[str]) -> None:
    """ValueError for an option of several values that is given twice: the first would be lost without a word."""
    names = [text.partition("=")[0].replace("-", "_") for text in arguments if text.startswith("--")]
    for name in several:
        if names.count(f"__{name}") > 1:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is given twice: give it once, with all its values: {option} ONE ANOTHER")
