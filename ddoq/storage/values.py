"""Values become plain ones, canonical JSON and its hash, and configurations are compared."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
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


def json_line(value: Any) -> str:
    r"""JSON on one line, readable, without the characters at which YAML and some readers break lines, and UTF-8: half
    of a surrogate pair, which a text from another JSON may hold, stays escaped.

    Examples
    --------
    >>> json_line({"caption": "☃\u2028\ud800"})
    '{"caption": "☃\\u2028\\ud800"}'
    """
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]", lambda char: f"\\u{ord(char[0]):04x}", text)


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
