"""Holds the options of a quantisation, which check themselves, and their types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ddoq.machine.arguments import positive
from ddoq.quantization.samples import LARGEST

Method = Literal["lloyd", "clvq", "minibatch"]
Refine = Literal["auto", "hartigan", "none"]
Form = Literal["auto", "gram", "streaming"]
Clock = Literal["global", "point"]
Init = Literal["k-means++", "random"] | ArrayLike
RandomState = int | np.random.SeedSequence | np.random.Generator | np.random.RandomState | None
Progress = Callable[[int], None]

OF_LLOYD = "sample_weight, init, n_init, refine, form, max_iter and tol"


@dataclass(frozen=True, eq=False)
class Options:
    """How samples are quantised, as `ddoq.quantize` describes each option; they are checked when they are put together.

    Raises
    ------
    TypeError, ValueError
        An option is of the wrong type, is unknown, or does not go with another one.

    Examples
    --------
    >>> Options(form="streaming", refine="hartigan")
    Traceback (most recent call last):
    ValueError: refine="hartigan" needs the Gram matrix: use form="gram", or refine="none"
    """

    method: Method = "lloyd"
    init: Init = "k-means++"
    n_init: int | Literal["auto"] = "auto"
    refine: Refine = "auto"
    form: Form = "auto"
    max_iter: int = 300
    tol: float = 1e-4
    step: tuple[float, float] | None = None
    clock: Clock = "global"
    average: bool = False

    def __post_init__(self) -> None:
        """Check every option, and make Python's own numbers of NumPy's."""
        object.__setattr__(self, "n_init", check_starts(self.n_init))
        object.__setattr__(self, "max_iter", check_integer(self.max_iter, "max_iter"))
        if self.refine not in ("auto", "hartigan", "none"):
            raise ValueError(f'refine must be "auto", "hartigan" or "none", not {self.refine!r}')
        if self.form not in ("auto", "gram", "streaming"):
            raise ValueError(f'form must be "auto", "gram" or "streaming", not {self.form!r}')
        if self.form == "streaming" and self.refine == "hartigan":
            raise ValueError('refine="hartigan" needs the Gram matrix: use form="gram", or refine="none"')
        object.__setattr__(self, "tol", check_tolerance(self.tol))
        if self.method not in ("lloyd", "clvq", "minibatch"):
            raise ValueError(f'method must be "lloyd", "clvq" or "minibatch", not {self.method!r}')
        if self.method != "lloyd" and not self._lloyd_has_its_defaults():
            raise ValueError(f'{OF_LLOYD} are for method="lloyd", not {self.method!r}')
        if self.method != "clvq" and (self.step is not None or self.clock != "global" or self.average):
            raise ValueError(f'step, clock and average are for method="clvq", not {self.method!r}')

    def _lloyd_has_its_defaults(self) -> bool:
        options = (self.init, self.n_init, self.refine, self.form, self.max_iter, self.tol)
        return isinstance(self.init, str) and options == ("k-means++", "auto", "auto", "auto", 300, 1e-4)


def check_integer(value: object, name: str) -> int:
    """The value as an int, if it is an integer of at least 1 that the core can hold."""
    number = positive(name, value)
    if number > LARGEST:
        raise ValueError(f"{name} must be below 2**63, got {number}")
    return number


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
