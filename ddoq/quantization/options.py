"""The options of a quantisation and the types they have."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ddoq.quantization.samples import LARGEST


def check_integer(value: object, name: str) -> int:
    """The value as an int, if it is an integer of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    if int(value) > LARGEST:
        raise ValueError(f"{name} must be below 2**63")
    return int(value)


def check_starts(n_init: object) -> int | Literal["auto"]:
    """The number of starts, or "auto"."""
    return "auto" if isinstance(n_init, str) and n_init == "auto" else check_integer(n_init, "n_init")


def check_tolerance(value: object) -> float:
    """The value as a float, if it is a finite number of at least 0."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"tol must be a number, not {value!r}")
    tol = float(value)
    if not 0 <= tol < np.inf:
        raise ValueError(f"tol must be finite and not negative, not {value}")
    return tol


Refine = Literal["auto", "hartigan", "none"]


Form = Literal["auto", "gram", "streaming"]


Clock = Literal["global", "point"]


Method = Literal["lloyd", "clvq", "minibatch"]


Progress = Callable[[int], None]


Init = Literal["k-means++", "random"] | ArrayLike


RandomState = int | np.random.SeedSequence | np.random.Generator | np.random.RandomState | None
