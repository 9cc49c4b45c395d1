"""Makes the weighted loss a torch operator: the call of the C core, its gradient, and what torch.compile sees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddoq.machine import backend
from ddoq.training import loss_gpu
from ddoq.training.loss_torch import check_values

IN_C = (torch.float32, torch.bfloat16, torch.float64)


def weighted_loss(
    logits: Tensor,
    soft: Tensor | None,
    indices: Tensor | None,
    weight: Tensor,
    target: str,
    temperature: float,
    label_smoothing: float,
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient by the logits, in the C core."""
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    if soft is not None and soft.dtype != wide and (soft.dtype != torch.bfloat16 or wide == torch.float64):
        soft = soft.to(wide)
    if weight.dtype not in (torch.float32, torch.float64):
        weight = weight.double()
    try:
        loss = backend.core.weighted_loss(
            _array(logits),
            None if soft is None else _array(soft),
            None if indices is None else _array(indices.long()),
            _array(weight),
            target,
            temperature,
            label_smoothing,
            torch.get_num_threads(),
            backend.isa(),
            _array(gradient),
        )
    except ValueError:
        check_values(logits, soft, indices, weight, target)
        raise
    return torch.scalar_tensor(loss, dtype=wide), gradient


def shapes(logits: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    """What the operator gives, without values."""
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    gradient = torch.empty_like(
        logits, dtype=loss_gpu.gradient_dtype(logits.dtype), memory_format=torch.contiguous_format
    )
    return logits.new_empty((), dtype=wide), gradient


def in_core(logits: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    """The loss and its gradient by the logits, where these are."""
    return weighted_loss(logits, *others) if logits.is_cpu else loss_gpu.weighted_loss(logits, *others)


torch.library.define(
    "ddoq::weighted_loss",
    "(Tensor logits, Tensor? soft, Tensor? indices, Tensor weight, str target, float temperature,"
    " float label_smoothing) -> (Tensor, Tensor)",
)
torch.library.impl("ddoq::weighted_loss", "cpu", weighted_loss)
torch.library.impl("ddoq::weighted_loss", "cuda", loss_gpu.operator)
torch.library.register_fake("ddoq::weighted_loss", shapes)
operator = torch.ops.ddoq.weighted_loss.default


class LossStep(torch.autograd.Function):
    """The loss with its gradient, in an eager step."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        loss, ctx.gradient = in_core(*arguments)
        ctx.options = arguments[4:]
        ctx.save_for_backward(*arguments[:4])
        return loss

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor) -> Any:
        # The gradient is given away, and scaled in place: what takes it may add to it. A second pass through a graph
        # that was kept computes it anew.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            gradient = in_core(*ctx.saved_tensors, *ctx.options)[1]
        if not by_loss.is_cpu:
            gradient = loss_gpu.scaled(gradient, by_loss.detach(), ctx.saved_tensors[0].dtype)
        elif by_loss.item() != 1:
            gradient.mul_(by_loss.detach())
        if torch.is_grad_enabled():
            gradient = _Underivable.apply(ctx.saved_tensors[0], gradient)  # type: ignore[no-untyped-call]
        return gradient, None, None, None, None, None, None


class _Underivable(torch.autograd.Function):
    """A gradient by the logits of which no derivative may be taken."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, gradient: Tensor) -> Tensor:
        return gradient

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            "WeightedLoss has no second derivative in compiled code: give float16 logits on the CPU, float64 ones on a "
            "GPU, or write the loss in torch"
        )


class TracedStep(torch.autograd.Function):
    """The operator with its gradient, for torch.compile, which refuses second derivatives itself.

    The operator itself has none: torch.library's own way to give it one takes longer than the loss of a small batch.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        loss, gradient = operator(*arguments)
        ctx.save_for_backward(gradient)
        ctx.dtype = arguments[0].dtype
        ctx.mark_non_differentiable(gradient)
        return loss, gradient

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor, _: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return (gradient * by_loss).to(ctx.dtype), None, None, None, None, None, None


def _array(tensor: Tensor) -> Any:
    """The tensor's memory as a C-contiguous NumPy array, bfloat16 as uint16."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    tensor = tensor.contiguous()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
