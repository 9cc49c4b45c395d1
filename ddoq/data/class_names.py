"""ImageNet's classes: their WordNet identifiers, the synonyms of each, and the labels of a model that has them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path


@cache
def imagenet() -> dict[str, str]:
    """Synonyms, separated by ", ", by WordNet identifier, in the order of ImageNet's 1,000 labels.

    >>> list(imagenet().items())[0]
    ('n01440764', 'tench, Tinca tinca')
    """
    text = (Path(__file__).parent / "imagenet.txt").read_text(encoding="utf-8")
    rows = (line.partition("\t") for line in text.splitlines() if not line.startswith("#"))
    return {wnid: words for wnid, _, words in rows}


def label_names(names: Mapping[int, str] | None, count: int) -> dict[int, str] | None:
    """The names of a model's labels: ImageNet's where there are 1,000 and those with a name share a synonym with it.

    A DiTPipeline in memory has lost the names that two labels share, and so a few of the 1,000.
    """
    words = list(imagenet().values())
    known = dict(names or {})
    alike = all(0 <= label < len(words) and synonyms(known[label]) & synonyms(words[label]) for label in known)
    if count == len(words) and alike and len(known) not in range(1, 900):
        return dict(enumerate(words))
    return known or None


@cache
def synonyms(name: str) -> frozenset[str]:
    """The names that a class name stands for: its parts between commas, and those of a WordNet identifier.

    >>> sorted(synonyms("n01440764"))
    ['Tinca tinca', 'n01440764', 'tench']
    """
    parts = (part.strip().replace("_", " ") for part in f"{name},{imagenet().get(name, '')}".split(","))
    return frozenset(part for part in parts if part)
