"""The options of `ddoq distill`: those that all methods share, in groups, and those of one method."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ddoq.cli.options import FOLDER_OR_NPZ, Option, parse

if TYPE_CHECKING:
    from ddoq.methods.task import Method

GROUPS = {
    "images": ("ipc", "image_size", "output_size", "class_names"),
    "weights": ("weighting", "class_prior"),
    "method": ("method", "teacher"),
    "computation": ("seed", "device", "n_threads", "progress"),
}
DESCRIPTION = """\
Distil a labelled image data set into a few weighted images per class.

The same command on the same folder resumes where it stopped, and returns at once when all is done.
Each method has options of its own: ddoq distill --method NAME --help explains them."""
METHOD = (
    'The method that makes the images, with defaults of its own. "ddoq": optimal quantisation of latents, the method '
    'of this package. "d4m": D4M with its authors\' settings, on Stable Diffusion 1.5. "dit": a reconstruction of the '
    'paper\'s variant on DiT-XL/2. "random": random images of each class, to be held against.'
)


def parse_distill(arguments: list[str]) -> dict[str, Any]:
    """Return the arguments of `ddoq.distill`.

    The help has the options of a method where one is named; a command without one is for the default method.
    """
    import ddoq
    from ddoq.methods.catalogue import METHODS, option_names

    options = {
        "data": Option(str, "DATA", FOLDER_OR_NPZ),
        "out": Option(Path, "OUT"),
        "method": Option(Literal[tuple(METHODS)], help=METHOD, value=f"{{{','.join(METHODS)}}}"),
        "teacher": Option(str | None),
        "codec": Option(str),
        "diffusion": Option(str),
        "latents": Option(Path | None),
        "class_names": Option(tuple[str, ...] | None),
    }
    method = _named_method(arguments)
    if method is None and {"-h", "--help"} & set(arguments):
        return parse("distill", arguments, [ddoq.distill], options, GROUPS, DESCRIPTION)
    name = method if method in METHODS else "ddoq"
    _refuse_others(arguments, name)
    options |= _common_of(METHODS[name])
    groups = GROUPS | {name: tuple(option_names(name))}
    return parse("distill", arguments, [ddoq.distill, METHODS[name].options], options, groups, DESCRIPTION)


def _common_of(method: Method) -> dict[str, Option]:
    """The options that all methods share, with a method's own defaults and weightings."""
    sizes = {"image_size": method.image_size, "output_size": method.output_size}
    options = {name: Option(int | None, hint=f"(default: {size})") for name, size in sizes.items() if size is not None}
    weightings: Any = Literal[method.weightings]
    return options | {"weighting": Option(weightings | None, hint=f"(default: {method.weightings[0]})")}


def _named_method(arguments: Sequence[str]) -> str | None:
    """The method that a command line names, if any.

    >>> [_named_method(line.split()) for line in ("data out", "data out --method d4m", "--method=random data out")]
    [None, 'd4m', 'random']
    """
    for text, following in pairwise([*arguments, ""]):
        if text == "--method":
            return following
        if text.startswith("--method="):
            return text.partition("=")[2]
    return None


def _refuse_others(arguments: Sequence[str], method: str) -> None:
    """End with status 2 for an option that only other methods have, saying which."""
    from ddoq.methods.catalogue import listed, methods_with, option_names

    for text in arguments:
        name = text.partition("=")[0].removeprefix("--").replace("-", "_")
        if text.startswith("--") and name not in option_names(method) and (others := methods_with(name)):
            option = text.partition("=")[0]
            print(f"ddoq: method {method!r} has no {option}: it is an option of {listed(others)}", file=sys.stderr)
            raise SystemExit(2)
