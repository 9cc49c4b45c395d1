"""Holds the table of all methods, and reads `distill(method=..., **options)`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ddoq.methods import d4m, ddoq, dit, random
from ddoq.methods.task import Method

METHODS: dict[str, Method] = {method.name: method for method in (ddoq.METHOD, d4m.METHOD, dit.METHOD, random.METHOD)}


def choose_method(method: Any, options: Mapping[str, Any]) -> tuple[Method, Any]:
    """Return the method of a name with its options from a mapping, or that of an options object with this object.

    An option that is None is not given.

    Raises
    ------
    ValueError
        No method has this name; the nearest is named.
    TypeError
        The method has no such option, and the nearest or the method that has it is named; `method` is of another type.

    Examples
    --------
    >>> method, settings = choose_method("d4m", {"strength": 0.5, "steps": None})
    >>> settings.strength, settings.steps, settings.guidance
    (0.5, 50, 8.0)
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"method {method!r} is not known{_nearest(method, METHODS)}: use {listed(METHODS)}")
        check_names(method, options)
        values = {name: value for name, value in options.items() if value is not None}
        return METHODS[method], METHODS[method].options(**values)
    for known in METHODS.values():
        if type(method) is known.options:
            if options:
                raise TypeError(
                    f"give {listed(options)} in the options object: "
                    f"method={known.options.__name__}({next(iter(options))}=...)"
                )
            return known, method
    raise TypeError(
        f"method must be one of the names {listed(METHODS)}, or an options object such as DDOQ(strength=0.5), "
        f"got {type(method).__name__}"
    )


def option_names(method: str) -> list[str]:
    """Names of a method's options.

    >>> option_names("ddoq")[:2]
    ['codec', 'diffusion']
    """
    return [field.name for field in fields(METHODS[method].options)]


def methods_with(option: str) -> list[str]:
    """Names of the methods that have an option.

    >>> methods_with("strength")
    ['ddoq', 'd4m', 'dit']
    """
    return [method for method in METHODS if option in option_names(method)]


def check_names(method: str, options: Mapping[str, Any]) -> None:
    """TypeError for options that a method does not have, with the methods that have them or the nearest name."""
    known = option_names(method)
    for name in options:
        if name in known:
            continue
        if others := methods_with(name):
            raise TypeError(f"method {method!r} has no option {name!r}: it is one of method {listed(others)}")
        raise TypeError(f"method {method!r} has no option {name!r}{_nearest(name, known)}")


def listed(names: Any) -> str:
    """Names in quotes, for a sentence.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ("'a', 'b' or 'c'", "'a'")
    """
    *most, last = map(repr, names)
    return f"{', '.join(most)} or {last}" if most else last


def _nearest(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
