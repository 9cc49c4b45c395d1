"""Plain values: canonical JSON, its hash, and the differences between two configurations."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """A value as JSON gives it back: tuples and arrays as lists, NumPy scalars as Python's, non-finite floats as
    strings.

    Examples
    --------
    >>> plain({"size": (np.int64(2), float("inf"))})
    {'size': [2, 'inf']}
    """
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a {type(value).__name__} cannot be written to JSON: {value!r:.100}")


def digest(value: Any) -> str:
    """Hexadecimal sha256 of a value's canonical JSON.

    Examples
    --------
    >>> digest({"b": 1, "a": [2]}) == digest({"a": (2,), "b": 1})
    True
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Keys (dotted where nested) under which two configurations differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            yield from differences(f"{key}.{name}" if key else name, old.get(name, "absent"), new.get(name, "absent"))
    elif old != new:
        yield key, old, new
