"""WeightedLoss against values worked by hand, torch's own losses, numerical gradients and repeated rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from ddoq.training.loss import WeightedLoss


def rows(n: int = 6, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Float64 logits, targets of each kind, weights."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64) * 2
    teacher = torch.randn(n, classes, generator=generator, dtype=torch.float64) * 2
    index = torch.randint(classes, (n,), generator=generator)
    weight = torch.rand(n, generator=generator, dtype=torch.float64) * 2
    return logits, {"index": index, "probs": teacher.softmax(1), "logits": teacher}, weight


def test_index_by_hand() -> None:
    # softmax of (0, log 3) is (1/4, 3/4)
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    loss = WeightedLoss()(logits, torch.tensor([0, 1]), torch.tensor([0.5, 3.0]))
    assert loss.item() == pytest.approx((0.5 * math.log(4) + 3 * math.log(4 / 3)) / 2)


def test_label_smoothing_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])
    loss = WeightedLoss(label_smoothing=0.2)(logits, torch.tensor([1]), torch.tensor([2.0]))
    spread = (math.log(4) + math.log(4 / 3)) / 2
    assert loss.item() == pytest.approx(2 * (0.8 * math.log(4 / 3) + 0.2 * spread))


def test_probs_by_hand() -> None:
    # at temperature 2 the student's logits (0, 2 log 3) give (1/4, 3/4); a probability of 0 adds 0
    logits = torch.tensor([[0.0, 2 * math.log(3)], [0.0, 2 * math.log(3)]])
    target = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    loss = WeightedLoss("probs", temperature=2)(logits, target, torch.tensor([1.0, 4.0]))
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert loss.item() == pytest.approx((first + 4 * math.log(4 / 3)) / 2)


def test_logits_by_hand() -> None:
    # at temperature 4: teacher (1/2, 1/2), student (1/4, 3/4)
    logits, teacher = torch.tensor([[0.0, 4 * math.log(3)]]), torch.tensor([[7.0, 7.0]])
    loss = WeightedLoss("logits", temperature=4)(logits, teacher, torch.tensor([3.0]))
    assert loss.item() == pytest.approx(3 * (0.5 * math.log(2) + 0.5 * math.log(2 / 3)))


def test_masked_teacher_logits_add_nothing() -> None:
    logits, teacher = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, -math.inf]])
    loss = WeightedLoss("logits")(logits, teacher, torch.ones(1))
    assert loss.item() == pytest.approx(math.log(1 / 2) - math.log(1 / 3))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_unit_weights_are_cross_entropy(label_smoothing: float) -> None:
    logits, targets, weight = rows()
    ours = WeightedLoss(label_smoothing=label_smoothing)(logits, targets["index"], torch.ones_like(weight))
    torch.testing.assert_close(
        ours, functional.cross_entropy(logits, targets["index"], label_smoothing=label_smoothing)
    )


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_unit_weights_are_kl_div(temperature: float) -> None:
    logits, targets, weight = rows()
    ours = WeightedLoss("logits", temperature)(logits, targets["logits"], torch.ones_like(weight))
    soft = (targets["logits"] / temperature).softmax(1)
    torch.testing.assert_close(
        ours, functional.kl_div((logits / temperature).log_softmax(1), soft, reduction="batchmean")
    )
    torch.testing.assert_close(WeightedLoss("probs", temperature)(logits, soft, torch.ones_like(weight)), ours)


@pytest.mark.parametrize(
    "loss",
    [WeightedLoss(), WeightedLoss(label_smoothing=0.1), WeightedLoss("probs", 2.0), WeightedLoss("logits", 2.0)],
    ids=["index", "smoothed", "probs", "logits"],
)
def test_gradient(loss: WeightedLoss) -> None:
    logits, targets, weight = rows()
    target = targets[loss.target]
    assert torch.autograd.gradcheck(lambda s: loss(s, target, weight), (logits.requires_grad_(),))
    # the closed form: w / (B tau) (softmax(s / tau) - target)
    loss(logits, target, weight).backward()
    p = (logits.detach() / loss.temperature).softmax(1)
    if loss.target == "index":
        eps = loss.label_smoothing
        soft = functional.one_hot(target, 5) * (1 - eps) + eps / 5
    else:
        soft = target if loss.target == "probs" else (target / loss.temperature).softmax(1)
    torch.testing.assert_close(logits.grad, weight[:, None] * (p - soft) / (len(logits) * loss.temperature))


@pytest.mark.parametrize("kind", ["index", "probs", "logits"])
def test_weights_are_repeats(kind: str) -> None:
    """Integer weights give the total gradient of rows repeated so often; nothing is renormalised inside a batch."""
    logits, targets, _ = rows()
    repeats = torch.tensor([3, 1, 0, 2, 1, 4])
    weighted = logits.clone().requires_grad_()
    WeightedLoss(kind)(weighted, targets[kind], repeats.double()).backward()
    repeated = logits.clone().requires_grad_()
    many = torch.repeat_interleave(torch.arange(6), repeats)
    WeightedLoss(kind)(repeated[many], targets[kind][many], torch.ones(len(many), dtype=torch.float64)).backward()
    assert weighted.grad is not None
    assert repeated.grad is not None
    torch.testing.assert_close(weighted.grad * 6, repeated.grad * len(many))


def test_batches_add_up() -> None:
    """The mean over equal batches is the loss of the whole set."""
    logits, targets, weight = rows(12)
    loss, index = WeightedLoss(), targets["index"]
    parts = [loss(*part) for part in zip(logits.split(4), index.split(4), weight.split(4), strict=True)]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(logits, index, weight))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    logits, targets, weight = rows()
    loss = WeightedLoss("probs")(logits.to(dtype), targets["probs"].to(dtype), weight)
    assert loss.dtype == torch.float32
    exact = WeightedLoss("probs")(logits.to(dtype).double(), targets["probs"].to(dtype).double(), weight)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "labels"}, "labels"),
        ({"target": "probs", "temperature": 0}, "temperature"),
        ({"target": "probs", "temperature": math.nan}, "temperature"),
        ({"target": "probs", "temperature": 1e-39}, "temperature"),
        ({"target": "probs", "temperature": 1e37}, "temperature"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"temperature": 2.0}, "index"),
        ({"target": "probs", "label_smoothing": 0.1}, "label_smoothing"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedLoss(**options)


LOGITS, INDEX, ONES = torch.zeros(3, 4), torch.tensor([0, 1, 2]), torch.ones(3)
EVEN = torch.full((3, 4), 0.25)


@pytest.mark.parametrize(
    ("kind", "logits", "target", "weight", "message"),
    [
        ("index", torch.zeros(3), INDEX, ONES, "logits"),
        ("index", torch.zeros(0, 4), INDEX[:0], ONES[:0], "B >= 1"),
        ("index", LOGITS, INDEX[:2], ONES, "shape"),
        ("index", LOGITS, EVEN, ONES, "shape"),
        ("probs", LOGITS, INDEX, ONES, "shape"),
        ("index", LOGITS, INDEX, torch.ones(3, 1), "weight"),
        ("index", LOGITS, torch.tensor([0, 4, 1]), ONES, "4 in row 1"),
        ("index", LOGITS, torch.tensor([0, 1, -100]), ONES, "-100 in row 2"),
        ("index", LOGITS, INDEX, torch.tensor([1.0, -1.0, 1.0]), "-1.0 in row 1"),
        ("index", LOGITS, INDEX, torch.tensor([1.0, 1.0, math.nan]), "nan in row 2"),
        ("index", LOGITS, INDEX, torch.tensor([math.inf, 1.0, 1.0]), "inf in row 0"),
        ("probs", LOGITS, EVEN * 2, ONES, "sum to 1.*2.0 in row 0"),
        ("probs", LOGITS, torch.tensor([[1.5, -0.5, 0.0, 0.0]] * 3), ONES, "-0.5 in row 0"),
    ],
)
def test_bad_rows(kind: str, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedLoss(kind)(logits, target, weight)


def test_bad_types() -> None:
    with pytest.raises(TypeError, match="integers"):
        WeightedLoss()(LOGITS, ONES, ONES)
    with pytest.raises(TypeError, match="floating"):
        WeightedLoss("logits")(LOGITS, LOGITS.long(), ONES)
    with pytest.raises(TypeError, match="floating"):
        WeightedLoss()(LOGITS.long(), INDEX, ONES)


# The C core against torch's own operations
