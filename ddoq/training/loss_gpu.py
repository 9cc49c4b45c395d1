"""Computes the weighted loss on a CUDA device, in one launch on torch's current stream.

Nothing waits for the device and nothing is allocated but by torch, so that a CUDA graph can hold it. Rows that break a
rule cannot raise without waiting: their loss and gradient are NaN.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ddoq.machine import backend, gpu

_TYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float64: "float64"}
_WEIGHTS = (torch.float32, torch.float64)
_LOGITS = (torch.float32, torch.float16, torch.bfloat16)

# By device and stream: launches in one stream do not overlap, so one workspace serves all of them.
_workspaces: dict[tuple[int, int], Tensor] = {}


@cache
def _find_limits() -> tuple[int, int]:
    """Most classes, and most with top-k targets; 0 where the CUDA part cannot be used. Looked for once."""
    if not gpu.is_available():
        return 0, 0
    return _module().LOSS_CLASSES, _module().LOSS_TOPK_CLASSES


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _limits() -> tuple[int, int]:
    return _find_limits()


def _module() -> ModuleType:
    module = backend.cuda_module()
    assert not isinstance(module, str)
    return module


def fits(logits: Tensor, soft: Tensor | None, indices: Tensor | None, weight: Tensor) -> bool:
    """Whether all is on one CUDA device, of dtypes and sizes that the CUDA part takes."""
    if not logits.is_cuda or logits.dtype not in _LOGITS:
        return False
    if any(tensor is not None and tensor.device != logits.device for tensor in (soft, indices, weight)):
        return False
    limits: tuple[int, int] = _limits()
    classes, topk_classes = limits
    return logits.shape[1] <= (classes if soft is None or indices is None else topk_classes)


def gradient_dtype(dtype: torch.dtype) -> torch.dtype:
    """In float16 most of the gradient would be lost before a gradient scaler's factor comes to it."""
    return torch.float32 if dtype == torch.float16 else dtype


def weighted_loss(
    logits: Tensor,
    soft: Tensor | None,
    indices: Tensor | None,
    weight: Tensor,
    target: str,
    temperature: float,
    label_smoothing: float,
    *,
    keeps_workspace: bool = True,
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient by the logits."""
    with torch.cuda.device(logits.device):
        logits = logits.contiguous()
        if soft is not None:
            soft = (soft if soft.dtype in _LOGITS else soft.float()).contiguous()
        if indices is not None:
            indices = indices.long().contiguous()
        weight = (weight if weight.dtype in _WEIGHTS else weight.float()).contiguous()
        gradient = torch.empty_like(logits, dtype=gradient_dtype(logits.dtype))
        loss = torch.empty((), dtype=torch.float32, device=logits.device)
        device, stream = torch.cuda.current_device(), torch.cuda.current_stream().cuda_stream
        workspace = _workspace(logits, device, stream, keeps_workspace)
        _module().weighted_loss(
            logits.data_ptr(),
            _TYPES[logits.dtype],
            None if soft is None else soft.data_ptr(),
            None if soft is None else _TYPES[soft.dtype],
            None if indices is None else indices.data_ptr(),
            weight.data_ptr(),
            _TYPES[weight.dtype],
            target,
            *logits.shape,
            0 if indices is None or soft is None else soft.shape[1],
            temperature,
            label_smoothing,
            gradient.data_ptr(),
            loss.data_ptr(),
            workspace.data_ptr(),
            device,
            stream,
        )
    return loss, gradient


def operator(*arguments: Any) -> tuple[Tensor, Tensor]:
    """The same for torch.compile, which may run it in a CUDA graph's memory, where nothing may stay behind."""
    return weighted_loss(*arguments, keeps_workspace=False)


def scaled(gradient: Tensor, by_loss: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient, given up by the caller, times a number on the device, in the logits' dtype: one launch."""
    if gradient.dtype == dtype:
        return gradient.mul_(by_loss)
    return torch.mul(gradient, by_loss, out=torch.empty_like(gradient, dtype=dtype))


def _workspace(like: Tensor, device: int, stream: int, keeps: bool) -> Tensor:
    """What the launches of one stream share; a graph, which may be replayed in any stream, has its own."""
    keeps, key = keeps and not torch.cuda.is_current_stream_capturing(), (device, stream)
    if keeps and key in _workspaces:
        return _workspaces[key]
    workspace = torch.empty(_module().LOSS_WORKSPACE, dtype=torch.uint8, device=like.device)
    workspace[:8].zero_()  # the counter
    return _workspaces.setdefault(key, workspace) if keeps else workspace
