"""The weighted loss in the C core and as an operator: the bits of torch, threads, compilation, forks, bad input."""

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
from test_loss import LOGITS, ONES, rows
from torch.fx.experimental.proxy_tensor import make_fx

from ddoq import _core as core
from ddoq.training.loss import WeightedLoss
from ddoq.training.loss_torch import composed

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
