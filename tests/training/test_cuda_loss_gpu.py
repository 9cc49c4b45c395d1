"""The weighted loss on a GPU: exactness, bad rows, the operator, graphs, streams, compilation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_cuda_loss import FLOATS, GRADIENT, LOSS, NOTHING, SIZES, WHY_NOT, assert_bad, bad_rows
from test_loss_core import KINDS, case, computed, exact

from ddoq.training.loss import WeightedLoss

needs_gpu = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


def on_gpu(arguments: tuple[WeightedLoss, torch.Tensor, Any, torch.Tensor]) -> tuple[Any, ...]:
    loss, logits, target, weight = arguments
    target = tuple(part.cuda() for part in target) if isinstance(target, tuple) else target.cuda()
    return loss, logits.cuda(), target, weight.cuda()


@needs_gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_gpu_is_exact(kind: str, dtype: torch.dtype) -> None:
    for n, classes in [(1, 1), *SIZES, (300, 1000), (2, 30001), (40000, 10)]:
        arguments = case(kind, n, classes, dtype)
        (value, gradient), (wanted, wanted_gradient) = computed(*on_gpu(arguments)), exact(*arguments)
        assert gradient.dtype == dtype
        rounding = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-10 if dtype == torch.float16 else 0.0
        tiny = 6e-8 * math.sqrt(n * classes) if dtype == torch.float16 else 0  # float16's subnormal numbers
        error = (gradient.double().cpu() - wanted_gradient).norm()
        assert error <= (2 * GRADIENT + rounding) * wanted_gradient.norm() + NOTHING + tiny
        assert value.item() == pytest.approx(wanted.item(), rel=LOSS, abs=1e-6)


@needs_gpu
@pytest.mark.parametrize("at", range(len(bad_rows())), ids=[row[0] for row in bad_rows()])
def test_gpu_rows_that_break_a_rule_are_nan(at: int) -> None:
    _, loss, logits, target, weight = bad_rows()[at]
    value, gradient = computed(*on_gpu((loss, logits, target, weight)))
    assert_bad(value.item(), gradient.cpu())


@needs_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_gpu_operator(kind: str) -> None:
    loss, logits, target, weight = on_gpu(case(kind, 5, 7, torch.bfloat16))
    soft, indices = loss._split(target)
    options = (loss.target, loss.temperature, loss.label_smoothing)
    torch.library.opcheck(torch.ops.ddoq.weighted_loss.default, (logits, soft, indices, weight, *options))


@needs_gpu
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_gpu_graph(kind: str, dtype: torch.dtype) -> None:
    """A captured step gives the bits of an eager one, also of new values and while eager steps run beside it."""
    loss, logits, target, weight = on_gpu(case(kind, 300, 100, dtype))
    logits.requires_grad_()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.autograd.grad(loss(logits, target, weight) * 3, logits)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(logits, target, weight)
        (gradient,) = torch.autograd.grad(value * 3, logits)
    for _ in range(3):
        with torch.no_grad():
            logits.add_(0.25 * torch.randn_like(logits))
        graph.replay()
        again = loss(logits, target, weight)
        (gradient_again,) = torch.autograd.grad(again * 3, logits)
        assert torch.equal(value, again)
        assert torch.equal(gradient, gradient_again)


@needs_gpu
def test_gpu_streams() -> None:
    """Steps in several streams at once have the bits of steps one after the other."""
    arguments = [on_gpu(case("logits", 4096, 1000 + i, torch.float32)) for i in range(4)]
    wanted = [computed(*each) for each in arguments]
    streams = [torch.cuda.Stream() for _ in arguments]
    torch.cuda.synchronize()
    found = []
    for _ in range(5):
        for stream, each in zip(streams, arguments, strict=True):
            with torch.cuda.stream(stream):
                found.append(computed(*each))
    torch.cuda.synchronize()
    for i, (value, gradient) in enumerate(found):
        assert torch.equal(value, wanted[i % 4][0])
        assert torch.equal(gradient, wanted[i % 4][1])


@needs_gpu
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("backend", ["aot_eager", "cudagraphs", "inductor"])
@pytest.mark.parametrize("kind", KINDS)
def test_gpu_compiled(kind: str, backend: str) -> None:
    if backend == "inductor":
        pytest.importorskip("triton")
    loss, logits, target, weight = on_gpu(case(kind, 64, 100, torch.bfloat16))
    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    for _ in range(3):
        value, gradient = computed(loss, logits, target, weight)
        compiled_value, compiled_gradient = computed(compiled, logits, target, weight)
        assert torch.equal(value, compiled_value)
        assert torch.equal(gradient, compiled_gradient)


@needs_gpu
def test_gpu_backward() -> None:
    loss, logits, target, weight = on_gpu(case("probs", 8, 50, torch.float32))
    logits.requires_grad_()
    value = loss(logits, target, weight)
    first = torch.autograd.grad(value, logits, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(value * 8, logits, retain_graph=True)[0], first * 8)
    (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        gradient.sum().backward()


@needs_gpu
def test_gpu_gradient_scaler_keeps_what_float16_would_lose() -> None:
    """Entries of 1e-7 and less come through: the gradient is rounded to float16 after its factor."""
    loss, logits, target, weight = case("index", 1024, 100, torch.float16)
    _, wanted = exact(loss, logits, target, weight)
    on_device = on_gpu((loss, logits, target, weight))
    scaled = on_device[1].requires_grad_()
    (loss(*on_device[1:]) * 2.0**16).backward()
    assert scaled.grad is not None
    error = (scaled.grad.double().cpu() / 2.0**16 - wanted).norm()
    assert error <= 2.0**-10 * wanted.norm()
