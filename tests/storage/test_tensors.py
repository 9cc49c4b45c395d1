"""Sealed files of tensors: what is written comes back, and no byte changes unnoticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from ddoq.storage.files import RunError
from ddoq.storage.tensors import UNSEALED, read_arrays, read_facts, read_tensors, write_tensors

AWKWARD = {
    "sha256 elsewhere": {"sha256": UNSEALED.decode()},
    "text": 'a "quoted" \\ text with "ddoq":"{\\"sha256\\": \\"' + UNSEALED.decode(),
    "猫": ["☃", 1.5, None],
}


def test_tensors_and_arrays_come_back(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {
        "half": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "parameter": torch.ones(2, requires_grad=True),
        "array": np.arange(4, dtype=np.int64)[::-1],
        "none": np.zeros((0, 3), np.float16),
    }
    write_tensors(tmp_path / "a", tensors, "origin", AWKWARD)
    found = read_tensors(tmp_path / "a", "origin")
    assert found is not None
    assert found[1] == read_facts(tmp_path / "a") == AWKWARD
    for name, tensor in tensors.items():
        wanted = tensor if isinstance(tensor, torch.Tensor) else torch.from_numpy(tensor.copy())
        assert torch.equal(found[0][name], wanted)
        assert found[0][name].dtype == wanted.dtype


def test_arrays(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", {"x": np.arange(3, dtype=np.uint8)})
    found = read_arrays(tmp_path / "a")
    assert found is not None
    assert found[0]["x"].tolist() == [0, 1, 2]
    assert found[0]["x"].dtype == np.uint8
    assert safetensors.numpy.load_file(tmp_path / "a")["x"].tolist() == [0, 1, 2]  # for everybody


def test_same_content_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tensors(tmp_path / name, {"x": np.ones(3), "y": np.zeros(2, np.int8)}, "origin", {"z": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_absent_files_and_those_made_from_something_else(tmp_path: Path) -> None:
    assert read_tensors(tmp_path / "a") is None
    write_tensors(tmp_path / "a", {"x": np.ones(3)}, "origin")
    for read in (read_tensors, read_arrays, read_facts):
        assert read(tmp_path / "a", "another") is None
        assert read(tmp_path / "a", "origin") is not None


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_tensors(path, {"x": np.arange(5.0)}, "origin", {"fact": 1})
    whole = path.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x29
        path.write_bytes(changed)
        for read in (read_facts, read_tensors):
            with pytest.raises(RunError, match="a is damaged: delete it and run again"):
                read(path, "origin")
    for size in (0, 7, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(RunError, match="a is damaged"):
            read_tensors(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(RunError, match="a is damaged"):
        read_tensors(path)


@pytest.mark.parametrize(
    "head", [b"{}", b"[]", b'{"__metadata__":{}}', b'{"__metadata__":{"ddoq":"[]"}}', b"[" * 50_000, b"\xff"]
)
def test_other_files_are_refused(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a").write_bytes(len(head).to_bytes(8, "little") + head)
    with pytest.raises(RunError, match="a is damaged"):
        read_tensors(tmp_path / "a")
