"""The metadata.jsonl that came with anybody's image folder is found and read here, wherever it lies by then.

When the folder is weighed it is put aside as metadata.original.jsonl, and its columns go into the one that is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddoq.storage.files import RunError, sha256_file, write_atomic
from ddoq.storage.image_folder import METADATA
from ddoq.storage.manifest import MANIFEST
from ddoq.storage.run import Run

ASIDE = "metadata.original.jsonl"


@dataclass(frozen=True)
class UserMetadata:
    """The user's own metadata: where they lie, or None, and their rows by file name."""

    path: Path | None
    rows: dict[str, dict[str, Any]]

    def put_aside(self, root: Path) -> None:
        """Copy them to where weighing does not write."""
        if self.path is not None and self.path != root / ASIDE:
            write_atomic(root / ASIDE, self.path.read_bytes())

    def weights(self, rows: Sequence[dict[str, Any]]) -> NDArray[np.float64] | None:
        """The weights that the images of some rows came with; None unless each has one and no class is without."""
        weights = [self.rows.get(row["file_name"], {}).get("weight") for row in rows]
        if not all(isinstance(weight, int | float) and 0 <= weight < np.inf for weight in weights):
            return None
        original = np.array(weights, np.float64)
        return original if np.bincount([row["label"] for row in rows], original).all() else None

    def extended(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of ours with the columns of the user's that it lacks."""
        others = self.rows.get(row["file_name"], {})
        return row | {name: value for name, value in others.items() if name not in row}


def read_user_metadata(root: Path, is_ours: bool) -> UserMetadata:
    """Read the user's metadata, in their place or put aside.

    Parameters
    ----------
    is_ours
        Whether the metadata.jsonl that lies there was written by a weighing that was stopped.

    Raises
    ------
    RunError
        They are not readable, or both the file put aside and another one are there.
    """
    metadata, aside = root / METADATA, root / ASIDE
    written = is_ours or not metadata.exists()
    if not written and (root / MANIFEST).exists():
        written = Run.open(root).manifest["stages"]["weigh"]["outputs"][METADATA] == sha256_file(metadata)
    if not written and aside.exists() and aside.read_bytes() != metadata.read_bytes():
        raise RunError(f"{metadata} was changed after it was weighed, and {aside} is there already: move one away")
    path = aside if aside.exists() else None if written else metadata
    return UserMetadata(path, {} if path is None else {row["file_name"]: row for row in _read(path)})


def _read(metadata: Path) -> list[dict[str, Any]]:
    """Rows of whatever columns."""
    try:
        with open(metadata, encoding="utf-8") as file:  # splitlines would cut at U+2028 within a text
            rows = [json.loads(line) for line in file if line.strip()]
    except (ValueError, RecursionError) as error:
        raise RunError(f"{metadata} is not a file of one JSON object a line: {error}") from error
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("file_name"), str)]
