"""WeightedLoss against values worked by hand, torch's own losses, numerical gradients and repeated rows."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from ddoq import _core as core
from ddoq.training.loss import WeightedLoss
from ddoq.training.loss_torch import composed


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


KINDS = ("index", "smoothed", "probs", "logits", "topk")
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float64: 1e-13}  # gradient in norm, loss


def case(
    kind: str, n: int, classes: int, dtype: torch.dtype = torch.float64
) -> tuple[WeightedLoss, torch.Tensor, Any, torch.Tensor]:
    """A loss of that kind, logits, target and weights, one weight of them 0."""
    logits, targets, weight = rows(n, classes)
    weight[0] = 0 if n > 1 else 1.5
    values, indices = targets["probs"].topk(min(3, classes), dim=1)
    if min(3, classes) == classes:
        values = values / values.sum(1, keepdim=True)
    target = targets | {
        "smoothed": targets["index"],
        "topk": (values.to(dtype), indices),
        "probs": targets["probs"].to(dtype),
        "logits": targets["logits"].to(dtype),
    }
    loss = {
        "index": WeightedLoss(),
        "smoothed": WeightedLoss(label_smoothing=0.1),
        "probs": WeightedLoss("probs", 2.0),
        "logits": WeightedLoss("logits", 3.0),
        "topk": WeightedLoss("topk", 1.5),
    }[kind]
    return loss, logits.to(dtype), target[kind], weight


def exact(loss: WeightedLoss, logits: torch.Tensor, target: Any, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Loss and gradient by torch's operations in float64."""
    wide = logits.double().detach().requires_grad_()
    soft, indices = loss._split(target)
    soft = None if soft is None else soft.double()
    value = composed(wide, soft, indices, weight.double(), loss.target, loss.temperature, loss.label_smoothing)
    (gradient,) = torch.autograd.grad(value, wide)
    return value.detach(), gradient


def computed(loss: WeightedLoss, logits: torch.Tensor, target: Any, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    logits = logits.detach().requires_grad_()
    value = loss(logits, target, weight)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def assert_exact(loss: WeightedLoss, logits: torch.Tensor, target: Any, weight: torch.Tensor) -> None:
    value, gradient = computed(loss, logits, target, weight)
    wanted, wanted_gradient = exact(loss, logits, target, weight)
    assert gradient.dtype == logits.dtype
    assert value.dtype == (torch.float64 if logits.dtype == torch.float64 else torch.float32)
    assert value.item() == pytest.approx(wanted.item(), rel=3e-6 if logits.dtype != torch.float64 else 1e-12, abs=1e-6)
    error = (gradient.double() - wanted_gradient).norm()
    assert error <= TOLERANCE[logits.dtype] * wanted_gradient.norm() + 1e-9


@pytest.fixture(params=core.isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DDOQ_ISA", request.param)
    return str(request.param)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_c_is_torch(kind: str, dtype: torch.dtype) -> None:
    for n, classes in [(1, 1), (1, 2), (5, 3), (4, 15), (3, 16), (7, 17), (2, 33), (64, 100), (9, 1000), (2, 5000)]:
        assert_exact(*case(kind, n, classes, dtype))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_threads(kind: str) -> None:
    before, results = torch.get_num_threads(), []
    arguments = case(kind, 600, 1000, torch.float32)
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            results.append(computed(*arguments))
    finally:
        torch.set_num_threads(before)
    for value, gradient in results[1:]:
        assert value == results[0][0]
        assert torch.equal(gradient, results[0][1])


@pytest.mark.skipif(len(core.isas()) < 3, reason="this machine has one instruction set with FMA")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_with_avx2_and_avx512(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    # every number of classes around the lanes: a compiler may round the last entries' products otherwise
    for n, classes in [*((2, classes) for classes in range(1, 70)), (70, 1003), (2, 2049)]:
        arguments, found = case(kind, n, classes, dtype), []
        for isa in ("avx2", "avx512"):
            monkeypatch.setenv("DDOQ_ISA", isa)
            found.append(computed(*arguments))
        (value, gradient), (other_value, other_gradient) = found
        assert value == other_value, classes
        assert torch.equal(gradient, other_gradient), classes


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("kind", ["index", "probs", "logits", "topk"])
def test_extreme_and_masked_logits(kind: str, dtype: torch.dtype) -> None:
    loss, logits, target, weight = case(kind, 6, 20, dtype)
    logits[0, 3], logits[1, 4], logits[2] = 1e4, -1e4, 1e4
    if kind == "logits":
        target[1, 5] = logits[1, 5] = target[2, 7] = -math.inf
        target[3, 6], target[4, 6] = 1e4, -1e4
    elif kind == "index":
        logits[1, (int(target[1]) + 1) % 20] = -math.inf
    assert_exact(loss, logits, target, weight)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("temperature", [1e-6, 1e6])
@pytest.mark.parametrize("kind", ["probs", "logits", "topk"])
def test_extreme_temperatures(kind: str, temperature: float) -> None:
    _, logits, target, weight = case(kind, 6, 20, torch.float32)
    assert_exact(WeightedLoss(kind, temperature), logits, target, weight)  # type: ignore[arg-type]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_nan_is_passed_on(dtype: torch.dtype) -> None:
    loss, logits, target, weight = case("index", 3, 40, dtype)
    logits[1, 7] = math.nan
    value, gradient = computed(loss, logits, target, weight)
    assert value.isnan()
    assert gradient[1].isnan().any()
    assert gradient[0].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_views_and_mixed_types(kind: str) -> None:
    loss, logits, target, weight = case(kind, 8, 12)
    strided = torch.stack([logits, logits], dim=2)[:, :, 0].float()
    assert_exact(loss, logits.float().t().contiguous().t(), target, weight)
    assert_exact(loss, strided, target, weight.float())
    if kind == "index":
        assert_exact(loss, logits, target.to(torch.uint8), weight)


def test_topk_by_hand() -> None:
    # uniform student over 4 classes; the 0.4 left over goes to the two other classes
    loss = WeightedLoss("topk")(
        torch.zeros(1, 4), (torch.tensor([[0.5, 0.1]]), torch.tensor([[2, 0]])), torch.tensor([3.0])
    )
    target = [0.1, 0.2, 0.5, 0.2]
    assert loss.item() == pytest.approx(3 * sum(t * math.log(4 * t) for t in target))


@pytest.mark.parametrize("kind", KINDS)
def test_operator(kind: str) -> None:
    loss, logits, target, weight = case(kind, 5, 7)
    soft, indices = loss._split(target)
    arguments = (soft, indices, weight, loss.target, loss.temperature, loss.label_smoothing)
    torch.library.opcheck(torch.ops.ddoq.weighted_loss.default, (logits.detach(), *arguments))
    assert torch.autograd.gradcheck(lambda s: loss(s, target, weight), (logits.requires_grad_(),))


# torch.compile itself makes an instance of every autograd.Function that it traces
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_compiled(kind: str) -> None:
    loss, logits, target, weight = case(kind, 5, 7, torch.float32)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    value, gradient = computed(loss, logits, target, weight)
    compiled_value, compiled_gradient = computed(compiled, logits, target, weight)
    assert value == compiled_value
    assert torch.equal(gradient, compiled_gradient)


def test_a_kept_graph_gives_the_gradient_again() -> None:
    loss, logits, target, weight = case("probs", 4, 5)
    _, gradient = computed(loss, logits, target, weight)
    logits.requires_grad_()
    value = loss(logits, target, weight)
    for passes in (1, 2, 3):
        value.backward(retain_graph=True)
        torch.testing.assert_close(logits.grad, passes * gradient)
    assert logits.grad is not None
    logits.grad.zero_()
    (4 * value).backward()
    torch.testing.assert_close(logits.grad, 4 * gradient)


@pytest.mark.parametrize("needs_gradient", [False, True])
def test_a_traced_step_holds_the_operator(needs_gradient: bool) -> None:
    loss, logits, target, weight = case("index", 4, 5)
    logits.requires_grad_(needs_gradient)
    graph = make_fx(lambda s: loss(s, target, weight))(logits)
    assert torch.ops.ddoq.weighted_loss.default in [node.target for node in graph.graph.nodes]
    assert graph(2 * logits) == loss(2 * logits, target, weight)


def test_gradients_of_weights_and_targets() -> None:
    loss, logits, target, weight = case("probs", 4, 5)
    weight = (weight + 0.1).requires_grad_()  # away from 0, which the numerical step must not cross
    assert torch.autograd.gradcheck(lambda w: loss(logits, target, w), (weight,))
    assert torch.autograd.grad(loss(logits, target.requires_grad_(), weight), target)[0].abs().sum() > 0


def test_no_second_derivative() -> None:
    loss, logits, target, weight = case("index", 4, 5)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, target, weight), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        gradient.sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own formulas of tangents
def test_forward_mode() -> None:
    loss, logits, target, weight = case("logits", 4, 5)
    _, gradient = computed(loss, logits, target, weight)
    direction = torch.ones_like(logits).cumsum(1)
    _, tangent = torch.func.jvp(lambda s: loss(s, target, weight), (logits,), (direction,))
    torch.testing.assert_close(tangent, (gradient * direction).sum())


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_its_parents_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        arguments = case("index", 600, 1000, torch.float32)
        with torch.no_grad():
            loss, *tensors = arguments
            expected = loss(*tensors)
            child = os.fork()
            if child == 0:
                os._exit(int(loss(*tensors).item() != expected.item()))
    finally:
        torch.set_num_threads(before)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_first_call_in_a_forked_child_does_not_wait_either() -> None:
    code = """
import os, torch
from ddoq.training.loss import WeightedLoss
torch.set_num_threads(2)
logits = torch.randn(1000, 1000)
logits.exp()  # torch's threads are the parent's
child = os.fork()
if child == 0:
    WeightedLoss("index")(logits, torch.zeros(1000, dtype=torch.long), torch.ones(1000))
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        try:
            assert process.wait(60) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the child, too


TOP = torch.tensor([[0.5, 0.3]] * 3), torch.tensor([[0, 1], [2, 3], [1, 3]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["C", "torch"])
@pytest.mark.parametrize(
    ("values", "indices", "message"),
    [
        (TOP[0][:, :1], TOP[1], "shape"),
        (TOP[0], TOP[1] + 1, "4 in row 1"),
        (TOP[0], torch.tensor([[0, 1], [0, 1], [2, 2]]), "2 twice in row 2"),
        (-TOP[0], TOP[1], "-0.5 in row 0"),
        (2 * TOP[0], TOP[1], "at most 1.*1.6.* in row 0"),
        (torch.zeros(3, 5), torch.zeros(3, 5, dtype=torch.long), "from 1 to 4"),
    ],
)
def test_bad_topk(values: torch.Tensor, indices: torch.Tensor, message: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedLoss("topk")(LOGITS.to(dtype), (values, indices), ONES)
    with pytest.raises(ValueError, match="pair"):
        WeightedLoss("topk")(LOGITS, TOP[0], ONES)


def test_core_refuses_what_does_not_fit() -> None:
    def call(**changes: Any) -> float:
        arguments = {
            "logits": np.zeros((2, 3), np.float32),
            "soft": np.full((2, 3), 1 / 3, np.float32),
            "indices": None,
            "weight": np.ones(2),
            "target": "probs",
            "temperature": 1.0,
            "label_smoothing": 0.0,
            "n_threads": 1,
            "isa": core.isas()[0],
            "gradient": np.empty((2, 3), np.float32),
        }
        return core.weighted_loss(*(arguments | changes).values())

    assert call() == pytest.approx(0, abs=1e-6)
    for error, changes in [
        (ValueError, {"target": "top"}),
        (ValueError, {"soft": np.zeros((2, 2), np.float32)}),
        (ValueError, {"weight": np.ones(3)}),
        (ValueError, {"gradient": np.empty((3, 3), np.float32)}),
        (ValueError, {"target": "index", "indices": np.array([0, 3])}),
        (ValueError, {"target": "topk", "soft": np.zeros((2, 4), np.float32), "indices": np.zeros((2, 4), np.int64)}),
        (TypeError, {"soft": None}),
        (TypeError, {"soft": np.full((2, 3), 1 / 3)}),
        (TypeError, {"gradient": np.empty((2, 3))}),
        (TypeError, {"target": "index", "indices": np.zeros(2, np.int32)}),
        (ValueError, {"logits": np.zeros((2, 0), np.float32), "gradient": np.zeros((2, 0), np.float32)}),
    ]:
        with pytest.raises(error):
            call(**changes)


@pytest.mark.parametrize("at", range(3))
def test_what_is_not_a_tensor_is_refused(at: int) -> None:
    given: list[Any] = [torch.zeros(2, 3), torch.tensor([0, 1]), torch.ones(2)]
    given[at] = given[at].numpy()
    with pytest.raises(TypeError, match="tensor"):
        WeightedLoss()(*given)
    with pytest.raises(TypeError, match="weight must be real"):
        WeightedLoss()(torch.zeros(2, 3), torch.tensor([0, 1]), torch.ones(2, dtype=torch.complex64))
