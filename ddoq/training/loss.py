"""Computes the weighted training loss: each image's loss times its weight, divided by the batch size.

    index     loss = sum_i w_i (-(1 - eps) log p_i[y_i] - eps mean_c log p_i[c]) / B        p_i = softmax(s_i)
    probs     loss = sum_i w_i KL(t_i || softmax(s_i / tau)) / B
    logits    loss = sum_i w_i KL(softmax(t_i / tau) || softmax(s_i / tau)) / B
    topk      as probs; what the k given probabilities leave of 1 is spread evenly over the other classes

The divisor is the number of rows B, never the sum of the batch's weights: renormalising inside a batch would change
what each image counts from step to step, and the batches' mean would no longer be the weighted mean of the data set.

On the CPU float32, bfloat16 and float64 logits go to the C core, on an NVIDIA GPU float32, float16 and bfloat16 ones to
the CUDA part, which give the loss and its gradient by the logits in one pass: directly, or through the custom operator
`ddoq::weighted_loss` where torch traces or wraps its tensors. Other devices and dtypes, weights or targets that
need a gradient, and forward-mode differentiation use the same formulas in torch (`composed`).

docs/guide.md says what processes that are forked must do.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ddoq.training import loss_gpu
from ddoq.training.loss_operator import IN_C, LossStep, TracedStep, in_core, operator
from ddoq.training.loss_torch import check_values, composed

_KINDS = ("index", "probs", "logits", "topk")


class WeightedLoss(nn.Module):
    """Weighted cross-entropy with class indices, or weighted Kullback-Leibler divergence with soft targets.

    Parameters
    ----------
    target
        What the targets are, never guessed from them: "index" class indices (B,), any integer dtype; "probs" class
        probabilities (B, C), each row summing to 1; "logits" a teacher's logits (B, C), of which the softmax at
        `temperature` is taken; "topk" a pair of the k largest class probabilities (B, k), each row summing to at most
        1, and their class indices (B, k), distinct in each row. What a row of "topk" leaves of 1 is spread evenly over
        its other classes, which is the marginal smoothing of FKD (Shen and Xing, ECCV 2022); divide each row by its
        sum to renormalise instead.
    temperature
        From 1e-6 to 1e6; divides the student's logits and the teacher's. "probs" and "topk" must already be at this
        temperature. The loss is not multiplied by its square. Must be 1 for "index".
    label_smoothing
        Share eps in [0, 1) of the target that is spread evenly over all classes; for "index" alone.

    Raises
    ------
    ValueError
        An option outside its range; shapes that do not fit; on the CPU also class indices outside [0, C) or repeated in
        a row of "topk", weights that are negative or not finite, rows of probabilities that are negative or do not sum
        to 1 (to at most 1 for "topk"), each with the first bad row. On a GPU such a row's loss and gradient are NaN:
        to raise an error would be to wait for the device at every step.
    TypeError
        Class indices that are not integers, logits or probabilities that are not floating point.
    RuntimeError
        A second derivative in a dtype that the compiled code takes.

    Examples
    --------
    >>> import torch
    >>> logits, target = torch.zeros(2, 4), torch.tensor([3, 0])
    >>> WeightedLoss()(logits, target, torch.tensor([0.5, 1.5]))        # (0.5 + 1.5) log 4 / 2
    tensor(1.3863)
    >>> values, indices = torch.tensor([[0.4], [0.7]]), torch.tensor([[1], [2]])
    >>> WeightedLoss("topk")(logits, (values, indices), torch.ones(2))  # KL of (.2, .4, .2, .2), (.1, .1, .7, .1)
    tensor(0.2500)
    """

    def __init__(
        self,
        target: Literal["index", "probs", "logits", "topk"] = "index",
        temperature: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if target not in _KINDS:
            raise ValueError(f"target must be 'index', 'probs', 'logits' or 'topk', got {target!r}")
        if not 1e-6 <= temperature <= 1e6:
            raise ValueError(f"temperature must be from 1e-6 to 1e6, got {temperature!r}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, got {label_smoothing!r}")
        if target == "index" and temperature != 1:
            raise ValueError(f"temperature is for soft targets; with target='index' it must be 1, got {temperature!r}")
        if target != "index" and label_smoothing != 0:
            raise ValueError(f"label_smoothing is for target='index'; with {target!r} it must be 0")
        self.target = target
        self.temperature = float(temperature)
        self.label_smoothing = float(label_smoothing)

    def forward(self, logits: Tensor, target: Tensor | tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
        """The loss of logits (B, C), targets and weights (B,): a scalar in the logits' dtype, float32 for halves."""
        soft, indices = self._split(target)
        self._check(logits, soft, indices, weight)
        options = (self.target, self.temperature, self.label_smoothing)
        if logits.shape[1] > 0 and _fits_core(logits, soft, indices, weight):
            arguments = (logits, soft, indices, weight, *options)
            eager, loss = _is_eager(logits, soft, indices, weight), None
            if not (logits.requires_grad and torch.is_grad_enabled()):
                loss = (in_core if eager else operator)(*arguments)[0]
            elif eager:
                loss = LossStep.apply(*arguments)  # type: ignore[no-untyped-call]
            else:
                loss = TracedStep.apply(*arguments)[0]  # type: ignore[no-untyped-call]
            return loss
        check_values(logits, soft, indices, weight, self.target)
        return composed(logits, soft, indices, weight, *options)

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"target={self.target!r}, temperature={self.temperature}, label_smoothing={self.label_smoothing}"

    def _split(self, target: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Soft targets and class indices, each where the kind of target has them."""
        if self.target == "topk":
            if isinstance(target, Tensor) or len(target) != 2:
                raise ValueError("target='topk' needs a pair (probabilities, class indices)")
            return target[0], target[1]
        if not isinstance(target, Tensor):
            raise TypeError(f"target={self.target!r} needs a tensor, got {type(target).__name__}")
        return (None, target) if self.target == "index" else (target, None)

    def _check(self, logits: Tensor, soft: Tensor | None, indices: Tensor | None, weight: Tensor) -> None:
        """Shapes and dtypes."""
        for name, tensor in (("logits", logits), ("target", soft), ("target", indices), ("weight", weight)):
            if tensor is not None and not isinstance(tensor, Tensor):
                raise TypeError(f"{name} must hold tensors, got {type(tensor).__name__}")
        if logits.ndim != 2 or len(logits) == 0:
            raise ValueError(f"logits must have shape (B, C) with B >= 1, got {tuple(logits.shape)}")
        if not logits.is_floating_point():
            raise TypeError(f"logits must be floating point, got {logits.dtype}")
        rows, classes = logits.shape
        expected: tuple[int, ...] = (rows,) if self.target == "index" else (rows, classes)
        if self.target == "topk" and soft is not None and soft.ndim == 2:
            expected = (rows, soft.shape[1])
            if not 1 <= soft.shape[1] <= classes:
                raise ValueError(f"target='topk' needs from 1 to {classes} probabilities a row, got {soft.shape[1]}")
        for tensor in (soft, indices):
            if tensor is not None and tuple(tensor.shape) != expected:
                raise ValueError(f"target={self.target!r} needs shape {expected}, got {tuple(tensor.shape)}")
        if tuple(weight.shape) != (rows,):
            raise ValueError(f"weight must have shape {(rows,)}, got {tuple(weight.shape)}")
        if weight.is_complex():
            raise TypeError(f"weight must be real, got {weight.dtype}")
        if indices is not None and (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool):
            raise TypeError(f"class indices must be integers, got {indices.dtype}")
        if soft is not None and not soft.is_floating_point():
            raise TypeError(f"{self.target} must be floating point, got {soft.dtype}")


def _fits_core(logits: Tensor, soft: Tensor | None, indices: Tensor | None, weight: Tensor) -> bool:
    """Whether compiled code takes all of it, and the gradient by the logits is the only one asked for."""
    if logits.is_cpu:
        if logits.dtype not in IN_C or not weight.is_cpu:
            return False
        if not ((soft is None or soft.is_cpu) and (indices is None or indices.is_cpu)):
            return False
    elif not loss_gpu.fits(logits, soft, indices, weight):
        return False
    if forward_ad._current_level >= 0:  # tensors may have tangents
        return False
    needs = weight.requires_grad or (soft is not None and soft.requires_grad)
    return not (needs and torch.is_grad_enabled())


def _is_eager(*tensors: Tensor | None) -> bool:
    """Whether all are plain tensors with memory of their own, and nothing records or replaces what is done to them."""
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return False
    return all(tensor is None or type(tensor) in (Tensor, nn.Parameter) for tensor in tensors)
