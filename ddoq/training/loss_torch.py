"""Computes the weighted loss in plain torch, for devices and types that the core does not take, and checks it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_HALVES = (torch.float16, torch.bfloat16)


def composed(
    logits: Tensor,
    soft: Tensor | None,
    indices: Tensor | None,
    weight: Tensor,
    target: str,
    temperature: float,
    label_smoothing: float,
) -> Tensor:
    """The loss from torch's own operations."""
    if logits.dtype in _HALVES:
        logits = logits.float()
    log_p = torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=1)
    if soft is None:
        assert indices is not None
        # gather, not torch's cross_entropy: that silently leaves out rows whose target is -100
        per_row = -log_p.gather(1, indices.long()[:, None])[:, 0]
        if label_smoothing:
            per_row = torch.lerp(per_row, -log_p.mean(dim=1), label_smoothing)
    else:
        soft = soft.to(logits.dtype)
        if target == "logits":
            soft = torch.softmax(soft / temperature, dim=1)
        if indices is not None:
            rest = (1 - soft.sum(dim=1, keepdim=True)).clamp(min=0) / max(1, logits.shape[1] - soft.shape[1])
            soft = rest.expand(logits.shape).scatter(1, indices.long(), soft)
        # a class of probability 0 adds 0, whatever its logits (masked ones are -inf)
        per_row = nn.functional.kl_div(log_p.masked_fill(soft == 0, 0), soft, reduction="none").sum(dim=1)
    return (weight.to(per_row.dtype) * per_row).sum() / len(logits)


def check_values(logits: Tensor, soft: Tensor | None, indices: Tensor | None, weight: Tensor, target: str) -> None:
    """ValueError for the first row that breaks a rule.

    Values are looked at on the CPU alone: on a GPU reading one back would stop the host at every step.
    """
    if weight.device.type == "cpu":
        _check_rows(~((weight >= 0) & (weight < float("inf"))), weight, "weights must be finite and at least 0")
    if indices is not None and indices.device.type == "cpu":
        n_classes, index = logits.shape[1], indices.reshape(len(indices), -1)
        bad = (index < 0) | (index >= n_classes)
        first = index.gather(1, bad.int().argmax(dim=1, keepdim=True))[:, 0]
        rule = f"class indices must be at least 0 and below {n_classes}, the number of logits"
        _check_rows(bad.any(dim=1), first, rule)
        ordered = index.sort(dim=1).values
        twice = ordered[:, 1:] == ordered[:, :-1]
        if twice.any():
            row, at = (int(i) for i in twice.nonzero()[0])
            raise ValueError(
                f"class indices must be distinct in each row, got {ordered[row, at].item()} twice in row {row}"
            )
    if soft is not None and soft.device.type == "cpu" and target != "logits":
        sums = soft.float().sum(dim=1)  # 1e-2: rows stored as float16 or bfloat16
        _check_rows((soft < 0).any(dim=1), soft.amin(dim=1), "probabilities must be at least 0")
        if target == "probs" or soft.shape == logits.shape:
            _check_rows(~((sums - 1).abs() <= 1e-2), sums, "probabilities must sum to 1 in each row")
        else:
            _check_rows(~(sums <= 1 + 1e-2), sums, "probabilities must sum to at most 1 in each row")


def _check_rows(bad: Tensor, values: Tensor, rule: str) -> None:
    """ValueError with the first bad row, if there is one."""
    if bad.any():
        row = int(bad.int().argmax())
        raise ValueError(f"{rule}, got {values[row].item()} in row {row}")
