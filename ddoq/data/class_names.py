"""ImageNet's class names, and the matching of a data set's classes with the labels of a model by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    given = dict(names or {})
    alike = all(0 <= label < len(words) and _synonyms(given[label]) & _synonyms(words[label]) for label in given)
    if count == len(words) and alike and len(given) not in range(1, 900):
        return dict(enumerate(words))
    return given or None


def match_labels(
    class_names: Sequence[str], names: Mapping[int, str], model: str, what: str = "diffusion model"
) -> list[int]:
    """The label of each class in a model whose labels have these names (synonyms separated by commas).

    A class is the label of the same name, or that of the same synonyms, or the one with a synonym in common; a WordNet
    identifier is the label at its place where the names are ImageNet's.

    Raises
    ------
    ValueError
        A class that is none or several of the labels, such as ImageNet's two cranes; two classes that are one label.
    """
    numbers = {wnid: label for label, wnid in enumerate(imagenet())}
    ours = list(names.values()) == list(imagenet().values())
    known = {label: _synonyms(name) for label, name in names.items()}

    def find(name: str) -> list[int]:
        if ours and name in numbers:
            return [numbers[name]]
        wanted = _synonyms(name)
        return (
            [label for label in names if names[label] == name]
            or [label for label in names if known[label] == wanted]
            or [label for label in names if known[label] & wanted]
        )

    labels: list[int] = []
    for name in class_names:
        found = find(name)
        if not found:
            some = ", ".join(map(repr, list(names.values())[:10])) + (", ..." if len(names) > 10 else "")
            unknown = sum(not find(other) for other in class_names)
            raise ValueError(
                f"the {what} does not know class {name!r} ({unknown} unknown in all); it knows {some}: name the class "
                "folders as it does, or give class_names"
            )
        if len(found) > 1:
            raise ValueError(
                f"labels {found[0]} and {found[1]} of the {what} are both called {name!r}: tell them apart in "
                f"the id2label of {model}, or name the class by a synonym that one of them has"
            )
        if found[0] in labels:
            other = class_names[labels.index(found[0])]
            raise ValueError(f"classes {other!r} and {name!r} are both label {found[0]} of the {what}")
        labels += found
    return labels


@cache
def _synonyms(name: str) -> frozenset[str]:
    parts = (part.strip().replace("_", " ") for part in f"{name},{imagenet().get(name, '')}".split(","))
    return frozenset(part for part in parts if part)
