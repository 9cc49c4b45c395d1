"""Halves batches where memory runs out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch

from ddoq.machine.arguments import positive

T = TypeVar("T")


class BatchSize:
    """How many items a call may take: as many as asked, or half as many each time that memory runs out.

    Parameters
    ----------
    asked
        At the start.

    Attributes
    ----------
    size
        Now.

    Examples
    --------
    >>> limit = BatchSize(4)
    >>> limit.parts(lambda part: list(range(10))[part], 3)
    [[0, 1, 2]]
    """

    def __init__(self, asked: int) -> None:
        self.asked = self.size = positive("batch_size", asked)

    @property
    def facts(self) -> dict[str, Any]:
        """What to record: nothing, or what the batches were halved to."""
        return {} if self.size == self.asked else {"halved_to": self.size}

    def parts(self, make: Callable[[slice], T], count: int) -> list[T]:
        """Results of `make` for consecutive slices of `count` items; a slice that memory was too small for is made in
        halves.

        Raises
        ------
        MemoryError
            It is too small for a single item.
        """
        results: list[T] = []
        begin = 0
        while begin < count:
            part = slice(begin, min(begin + self.size, count))
            try:
                results.append(make(part))
                begin = part.stop
                continue
            except (RuntimeError, MemoryError) as error:
                if not ran_out_of_memory(error):
                    raise
                reason = first_line(error)
            self._halve(part.stop - part.start, reason)  # not in the handler, whose error holds what was allocated
        return results

    def _halve(self, tried: int, reason: str) -> None:
        if tried == 1:
            raise MemoryError(f"out of memory with a single image: give a smaller image_size or model ({reason})")
        self.size = tried // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        warnings.warn(
            f"out of memory with {tried} images a batch, going on with {self.size} ({reason})",
            RuntimeWarning,
            stacklevel=3,
        )


def halved(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What to record of a result from the facts of its parts, each of which had a `BatchSize` of its own.

    >>> halved([{"halved_to": 8}, {}, {"halved_to": 4}]), halved([{}])
    ({'halved_to': 4}, {})
    """
    sizes = [facts["halved_to"] for facts in parts if "halved_to" in facts]
    return {"halved_to": min(sizes)} if sizes else {}


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its class where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's or the machine's memory is exhausted."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "can't allocate memory" in text or "not enough memory" in text or "out of memory" in text
