"""Classes are matched by name: every label has a name, every class an image, and an index never travels alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddoq.data.class_names import imagenet, synonyms

Labels = np.ndarray[Any, np.dtype[np.int64]]


def resolve_labels(
    labels: Any,
    class_names: Sequence[str] | None,
    remedy: str = "leave it out of the class names, or add images",
) -> tuple[Labels, tuple[str, ...]]:
    """int64 labels and the names of the classes; every class has an image and every label a name.

    Without names the classes are the sorted distinct labels; with names an integer label is a position among them and
    a text one of them. `remedy` is what to do about a class without images.
    """
    values = _label_array(labels)
    if not len(values):
        raise ValueError("the data set has no images")
    if class_names is None:
        classes, indices = np.unique(values, return_inverse=True)
        return indices.astype(np.int64), tuple(str(value) for value in classes.tolist())
    names = check_names(class_names)
    if values.dtype.kind == "U":
        position = {name: i for i, name in enumerate(names)}
        numbers = np.array([position.get(str(value), -1) for value in values])
    else:
        numbers = values
    bad = np.flatnonzero((numbers < 0) | (numbers >= len(names)))
    if len(bad):
        raise ValueError(f"image {bad[0]} has the label {values[bad[0]]}, not one of the {len(names)} class names")
    empty = np.flatnonzero(np.bincount(numbers.astype(np.int64), minlength=len(names)) == 0)
    if len(empty):
        raise ValueError(f"class {names[empty[0]]!r} has no images: {remedy}")
    return numbers.astype(np.int64), names


def check_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Class names as a tuple; each a distinct, non-empty text."""
    names = tuple(class_names)
    if isinstance(class_names, str) or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"class names must be a sequence of texts, got {class_names!r:.200}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"the class name {twice[0]!r} is there twice")
    return names


def own_names(data_names: Sequence[str], class_names: Sequence[str] | None) -> tuple[str, ...]:
    """The names that the data has; ValueError if others were given."""
    names = check_names([str(name) for name in data_names])
    if class_names is not None and tuple(class_names) != names:
        raise ValueError(
            f"the data has its own class names, {list(names)!r:.200}: leave class_names out; where arrays beside need "
            "names, their labels may be the names themselves"
        )
    return names


def check_lengths(n_images: int, labels: Any) -> None:
    """ValueError unless there is a label for each image."""
    try:
        n_labels = len(labels)
    except TypeError:
        raise TypeError(f"labels must be one integer or text per image, got {labels!r:.100}") from None
    if n_labels != n_images:
        raise ValueError(f"{n_images} images but {n_labels} labels")


def _label_array(labels: Any) -> np.ndarray[Any, Any]:
    """Labels as a 1-D array of integers or of texts."""
    try:
        values = labels if isinstance(labels, np.ndarray) else np.asarray(labels)
    except ValueError as error:
        raise TypeError(f"labels must be one integer or text per image: {error}") from error
    if values.ndim == 1 and values.dtype.kind in "OU":
        items = values.tolist() if isinstance(labels, np.ndarray) else list(labels)
        kind = int if items and isinstance(items[0], int) else str
        other = [i for i, item in enumerate(items) if not isinstance(item, kind)]
        if other:
            raise TypeError(
                f"image {other[0]} has the label {items[other[0]]!r}: labels must be all texts or all integers"
            )
        return np.array(items, dtype=np.int64 if kind is int else np.str_)
    if values.ndim != 1 or (len(values) and values.dtype.kind not in "iub"):
        raise TypeError(f"labels must be one integer or text per image, got {values.dtype} of shape {values.shape}")
    return values.astype(np.int64)


def matched_labels(
    labels: Tensor, names: Sequence[str], class_names: Sequence[str], what: str, renaming: str = ""
) -> Tensor:
    """Labels by `names` as labels by `class_names`; ValueError naming the classes that only one of the two has.

    `renaming` is how a user gives the classes that are called `names` other names (see `ddoq.data.sources.Source`).

    Examples
    --------
    >>> matched_labels(torch.tensor([0, 0, 1]), ("cat", "dog"), ("dog", "cat"), "test data")
    tensor([1, 1, 0])
    """
    missing = [name for name in class_names if name not in names]
    extra = [name for name in names if name not in class_names]
    if missing or extra:
        parts = [f"lacks {_listed(missing)}"] * bool(missing) + [f"has {_listed(extra)} beside"] * bool(extra)
        raise ValueError(
            f"classes are matched by name, and the {what} {' and '.join(parts)} "
            f"(the set to train on has {_listed(class_names)})"
            + f"; where they only have other names, {renaming}"
            * bool(renaming and missing and extra)
        )
    return torch.tensor([class_names.index(name) for name in names])[labels]


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
    are_imagenet = list(names.values()) == list(imagenet().values())
    known = {label: synonyms(name) for label, name in names.items()}

    def labels_of(name: str) -> list[int]:
        if are_imagenet and name in numbers:
            return [numbers[name]]
        wanted = synonyms(name)
        return (
            [label for label in names if names[label] == name]
            or [label for label in names if known[label] == wanted]
            or [label for label in names if known[label] & wanted]
        )

    labels: list[int] = []
    for name in class_names:
        matches = labels_of(name)
        if not matches:
            some = ", ".join(map(repr, list(names.values())[:10])) + (", ..." if len(names) > 10 else "")
            unknown = sum(not labels_of(other) for other in class_names)
            raise ValueError(
                f"the {what} does not know class {name!r} ({unknown} unknown in all); it knows {some}: name the class "
                "folders as it does, or give class_names"
            )
        if len(matches) > 1:
            raise ValueError(
                f"labels {matches[0]} and {matches[1]} of the {what} are both called {name!r}: tell them apart in "
                f"the id2label of {model}, or name the class by a synonym that one of them has"
            )
        if matches[0] in labels:
            other = class_names[labels.index(matches[0])]
            raise ValueError(f"classes {other!r} and {name!r} are both label {matches[0]} of the {what}")
        labels += matches
    return labels


def columns_of(class_names: Sequence[str], names: Sequence[str], what: str, remedy: str = "") -> list[int]:
    """Position of each class among the outputs of a model that are called `names`.

    Raises
    ------
    ValueError
        A class is none of the names; the message begins with `what` and ends with the remedy.

    Examples
    --------
    >>> columns_of(("dog", "cat"), ("cat", "dog", "emu"), "the teacher")
    [1, 0]
    """
    missing = [name for name in class_names if name not in names]
    if missing:
        raise ValueError(f"{what} does not know class {_listed(missing)} (it knows {_listed(names)}){remedy}")
    return [names.index(name) for name in class_names]


def numbers_in(names: Sequence[str], count: int) -> list[int]:
    """The numbers with which the names of folders begin, which must be 0 to count - 1, each once.

    Examples
    --------
    >>> numbers_in(("1_dog", "0"), 2)
    [1, 0]
    """
    matches = [re.match(r"\d+", name) for name in names]
    numbers = [int(match[0]) if match else -1 for match in matches]
    if sorted(numbers) != list(range(count)):
        raise ValueError(
            f"the folders {list(names)[:8]} are not one for each of the data's {count} classes, named by its index "
            "from 0"
        )
    return numbers


def _listed(names: Sequence[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
