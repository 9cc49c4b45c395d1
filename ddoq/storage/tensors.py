"""Tensors lie in one kind of file: safetensors, sealed with a hash of all its bytes, and whole or absent.

The metadata has one JSON text, under "ddoq": the seal "sha256", `made_from`, a hash of all that the tensors depend on,
and facts. The seal is the hash of the file with zeros in the seal's place: no byte can change unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ddoq.storage.files import RunError, write_atomic

Array = np.ndarray[Any, Any]
UNSEALED = b"0" * 64
BEFORE_SEAL = b'"ddoq":"{\\"sha256\\": \\"'  # in the file's head, which is JSON: no other text can hold it
LARGEST_HEAD = 100_000_000  # bytes, as in safetensors
CHUNK = 1 << 20  # bytes hashed at a time


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor | Array], made_from: str = "", facts: Mapping[str, Any] | None = None
) -> None:
    """Write tensors, from any device, and arrays.

    Parameters
    ----------
    made_from
        Hash of all that they depend on, which the readers compare.
    facts
        For JSON; they keep their order.
    """
    content = {name: _as_tensor(tensor).detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"sha256": UNSEALED.decode(), "made_from": made_from, **(facts or {})})
    data = bytearray(safetensors.torch.save(content, metadata={"ddoq": text}))
    start = data.index(BEFORE_SEAL) + len(BEFORE_SEAL)
    data[start : start + len(UNSEALED)] = hashlib.sha256(data).hexdigest().encode()
    write_atomic(path, data)


def read_tensors(path: Path, made_from: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts; None where there is no such file, or one that was made from something else.

    `made_from` None takes what was made from anything. RunError, naming the file, if it is damaged.
    """
    facts = read_facts(path, made_from)
    if facts is None:
        return None
    with safetensors.safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 not a mapping


def read_arrays(path: Path, made_from: str | None = None) -> tuple[dict[str, Array], dict[str, Any]] | None:
    """The same as arrays."""
    stored = read_tensors(path, made_from)
    return None if stored is None else ({name: tensor.numpy() for name, tensor in stored[0].items()}, stored[1])


def read_facts(path: Path, made_from: str | None = None) -> dict[str, Any] | None:
    """The facts alone, after the whole file is checked as by `read_tensors`."""
    try:
        with open(path, "rb") as file:
            text, whole = _checked(file)
        facts: dict[str, Any] = json.loads(text)
        del facts["sha256"]
        origin = facts.pop("made_from")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path) from error
    if not whole:
        raise _damaged(path)
    return facts if made_from in (None, origin) else None


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _as_tensor(tensor: Tensor | Array) -> Tensor:
    return tensor if isinstance(tensor, Tensor) else torch.from_numpy(np.ascontiguousarray(tensor))


def _checked(file: BinaryIO) -> tuple[str, bool]:
    """The text of the metadata, and whether the seal is that of the file; ValueError where there is none."""
    size = file.read(8)
    length = int.from_bytes(size, "little")
    if length > LARGEST_HEAD:
        raise ValueError(f"a head of {length} bytes")
    head = bytearray(file.read(length))
    text: str = json.loads(bytes(head))["__metadata__"]["ddoq"]
    start = head.index(BEFORE_SEAL) + len(BEFORE_SEAL)
    seal = bytes(head[start : start + len(UNSEALED)])
    head[start : start + len(UNSEALED)] = UNSEALED
    content = hashlib.sha256(size + head)
    while chunk := file.read(CHUNK):
        content.update(chunk)
    return text, content.hexdigest().encode() == seal


def _damaged(path: Path) -> RunError:
    return RunError(f"{path} is damaged: delete it and run again to remake it")
