"""Checks arguments that mean the same everywhere."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def positive(name: str, value: Any, *, least: int = 1) -> int:
    """Return `value` as an int if it is an integer of at least `least`.

    Python's and NumPy's integers are taken, bool is not.

    Raises
    ------
    TypeError
        The value is no integer.
    ValueError
        The value is too small.

    Examples
    --------
    >>> positive("ipc", 10)
    10
    >>> positive("ipc", 0)
    Traceback (most recent call last):
    ValueError: ipc must be an integer of at least 1, got 0
    """
    message = f"{name} must be an integer of at least {least}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(message)
    if value < least:
        raise ValueError(message)
    return int(value)
