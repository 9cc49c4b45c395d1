"""Tensors in one safetensors file, whole or absent, with what they were made from and the hash of what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ddoq.storage.files import RunError, write_atomic


def write_tensors(path: Path, tensors: Mapping[str, Tensor], made_from: str, facts: Mapping[str, Any]) -> None:
    """Write tensors, from any device; `made_from` is a hash of all that they depend on."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sealed = {**facts, "made_from": made_from, "content": _content(held)}
    write_atomic(path, safetensors.torch.save(held, metadata={"ddoq": json.dumps(sealed)}))


def read_tensors(path: Path, made_from: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts; None where there is no such file, or one that was made from something else.

    RunError, naming the file, if it is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["ddoq"])
            if facts["made_from"] != made_from:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a mapping
        whole = facts["content"] == _content(tensors)
    except FileNotFoundError:
        return None
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise RunError(f"{path} is damaged: delete it and run again to make it again")
    return tensors, facts


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _content(tensors: Mapping[str, Tensor]) -> str:
    content = hashlib.sha256()
    for name in sorted(tensors):
        content.update(name.encode())
        content.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()
