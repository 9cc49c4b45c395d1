"""The loss on the GPU: its model in NumPy against float64, its source on the CPU against the model, and the real thing.

The emulator runs the threads of a block in any order, here with few parts of rows; the last part needs a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import cuda_loss_model as model
import numpy as np
import pytest
import torch
from gpus import emulator
from test_loss_core import KINDS, case, exact

import ddoq.cuda
import ddoq.machine.gpu
from ddoq.machine import backend as _backend
from ddoq.training import loss_gpu
from ddoq.training.loss import WeightedLoss

__all__ = ["emulator"]

BUILT = _backend.cuda_module()
WHY_NOT = ddoq.cuda.why_not() or (None if torch.cuda.is_available() else "this torch has no CUDA")
needs_build = pytest.mark.skipif(isinstance(BUILT, str), reason=str(BUILT))
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
SIZES = [(1, 2), (5, 3), (4, 16), (7, 17), (9, 100), (8, 1000), (3, 1024), (2, 1025), (2, 5000), (1, 8193), (2, 9000)]
# float32 throughout: of the gradient in norm, and of the loss; absolute where a row's gradient all but vanishes
GRADIENT, LOSS, NOTHING = 1e-6, 3e-6, 3e-7
ROUNDED = {torch.float32: 0.0, torch.float16: 0.0, torch.bfloat16: 2.0**-8}  # of the gradient's own type


def modelled(loss: WeightedLoss, logits: torch.Tensor, target: Any, weight: torch.Tensor) -> model.Result:
    soft, indices = loss._split(target)
    return model.weighted_loss(
        logits.float().numpy(),
        None if soft is None else soft.float().numpy(),
        None if indices is None else indices.numpy(),
        weight.numpy(),
        loss.target,
        loss.temperature,
        loss.label_smoothing,
    )


def assert_close(value: float, gradient: Any, wanted: float, wanted_gradient: Any, rounding: float = 0.0) -> None:
    assert value == pytest.approx(wanted, rel=LOSS, abs=1e-6)
    gradient, wanted_gradient = np.asarray(gradient, float), np.asarray(wanted_gradient, float)
    error = np.linalg.norm(gradient - wanted_gradient)
    assert error <= (GRADIENT + rounding) * np.linalg.norm(wanted_gradient) + NOTHING


# ---- the model ----


@pytest.mark.parametrize(
    ("classes", "width"), [(1, 1), (1000, 4), (1024, 1), (1028, 4), (8192, 4), (8193, 1), (20000, 1)]
)
def test_every_entry_has_one_place(classes: int, width: int) -> None:
    entries = model.lay_out(classes, width)
    inside = entries < classes
    assert np.array_equal(np.sort(entries[inside]), np.arange(classes))
    thread, place = model.place_of(entries, width)
    part, at, of = np.indices(entries.shape)
    assert np.array_equal(thread, part * entries.shape[1] + at)
    assert np.array_equal(place, of)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_model_is_exact(kind: str, dtype: torch.dtype) -> None:
    for n, classes in [(1, 1), *SIZES, (1, 20000)]:
        arguments = case(kind, n, classes, dtype)
        found, (wanted, gradient) = modelled(*arguments), exact(*arguments)
        assert_close(found.loss, found.gradient, wanted.item(), gradient)


def test_rows_are_added_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).random(1000).astype(np.float32)
    whole = model.add_rows(rows, 10)
    monkeypatch.setattr(model, "PARTS", 64)
    assert model.add_rows(rows, 10) == pytest.approx(whole, rel=1e-7)
    assert whole == pytest.approx(rows.astype(float).mean(), rel=1e-7)


# ---- the kernel, emulated ----

Run = Callable[..., tuple[float, torch.Tensor]]
GUARD = 64  # entries around the gradient that must stay as they are


@pytest.fixture
def run(emulator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The emulated launch: of WeightedLoss's arguments the loss and the gradient, both float32."""
    workspace = torch.full((emulator.LOSS_WORKSPACE,), 255, dtype=torch.uint8)
    workspace[:8] = 0

    def launch(
        loss: WeightedLoss, logits: torch.Tensor, target: Any, weight: torch.Tensor, order: int = 0
    ) -> tuple[float, torch.Tensor]:
        monkeypatch.setenv("EMULATOR_ORDER", str(order))
        soft, indices = loss._split(target)
        n, classes = logits.shape
        gradient = torch.full((n * classes + 2 * GUARD,), 77.0, dtype=loss_gpu.gradient_dtype(logits.dtype))
        value = torch.full((1,), math.nan)
        assert all(each is None or each.is_contiguous() for each in (logits, soft, indices, weight))
        emulator.weighted_loss(
            logits.data_ptr(),
            name_of(logits),
            None if soft is None else soft.data_ptr(),
            None if soft is None else name_of(soft),
            None if indices is None else indices.data_ptr(),
            weight.data_ptr(),
            name_of(weight),
            loss.target,
            n,
            classes,
            0 if soft is None or indices is None else soft.shape[1],
            loss.temperature,
            loss.label_smoothing,
            gradient[GUARD:].data_ptr(),
            value.data_ptr(),
            workspace.data_ptr(),
            0,
            0,
        )
        assert (workspace[:8] == 0).all()
        assert (gradient[:GUARD] == 77).all()
        assert (gradient[-GUARD:] == 77).all()
        return value.item(), gradient[GUARD:-GUARD].view(n, classes).float()

    return launch


def name_of(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_kernel_is_the_model(run: Run, kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "PARTS", 16)
    for n, classes in [(1, 1), *SIZES, (37, 10)]:
        arguments = case(kind, n, classes, dtype)
        found, (value, gradient) = modelled(*arguments), run(*arguments)
        assert_close(value, gradient, found.loss, found.gradient, ROUNDED[dtype])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [24, 2052, 8197])
def test_kernel_does_not_depend_on_the_order_of_threads(run: Run, kind: str, classes: int) -> None:
    arguments = case(kind, 19 if classes < 1000 else 3, classes, torch.float32)
    value, gradient = run(*arguments)
    for order in (1, 2, 3):
        again, gradient_again = run(*arguments, order)
        assert again == value
        assert torch.equal(gradient_again, gradient)


@pytest.mark.parametrize("kind", ["probs", "logits", "topk"])
@pytest.mark.parametrize("soft", FLOATS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_kernel_takes_any_pair_of_types(run: Run, kind: str, soft: torch.dtype, dtype: torch.dtype) -> None:
    for classes in (31, 132):
        loss, logits, target, weight = case(kind, 3, classes, dtype)
        target = (target[0].to(soft), target[1]) if kind == "topk" else target.to(soft)
        for arguments in ((loss, logits, target, weight), (loss, logits, target, weight.float())):
            found, (value, gradient) = modelled(*arguments), run(*arguments)
            assert_close(value, gradient, found.loss, found.gradient, ROUNDED[dtype])


@pytest.mark.parametrize("kind", KINDS)
def test_kernel_takes_rows_at_any_address(run: Run, kind: str) -> None:
    loss, logits, target, weight = case(kind, 5, 64, torch.float16)
    shifted = torch.cat([torch.zeros(1, dtype=logits.dtype), logits.flatten()])[1:].view(5, 64)
    found, (value, gradient) = modelled(loss, logits, target, weight), run(loss, shifted, target, weight)
    assert_close(value, gradient, found.loss, found.gradient)


def bad_rows() -> list[tuple[str, WeightedLoss, torch.Tensor, Any, torch.Tensor]]:
    """Six rows of which the third and the last break a rule each."""
    found = []
    for kind in ("index", "probs", "topk"):
        loss, logits, target, weight = case(kind, 6, 40, torch.float32)
        weight += 0.5

        def changed(change: Callable[[Any, int], None]) -> Any:
            copy = tuple(part.clone() for part in target) if kind == "topk" else target.clone()  # noqa: B023
            change(copy, 2)
            change(copy, 5)
            return copy

        wrong = weight.clone()
        wrong[2], wrong[5] = -1, math.inf
        found.append((f"{kind} weight", loss, logits, target, wrong))
        if kind == "index":
            for y in (-1, 40, -100, 2**40 + 1):
                found.append((f"index {y}", loss, logits, changed(lambda t, i, y=y: t.__setitem__(i, y)), weight))
        elif kind == "probs":
            for name, value in (("negative", -0.1), ("NaN", math.nan), ("sum", 2.0)):
                found.append((name, loss, logits, changed(lambda t, i, v=value: t[i].__setitem__(7, v)), weight))
            found.append(("sums to 0.9", loss, logits, changed(lambda t, i: t[i].mul_(0.9)), weight))
        else:
            for y in (-1, 40, 2**40):
                found.append((f"topk {y}", loss, logits, changed(lambda t, i, y=y: t[1][i].__setitem__(0, y)), weight))
            found.append(("twice", loss, logits, changed(lambda t, i: t[1][i].__setitem__(0, t[1][i, 2])), weight))
            found.append(("negative", loss, logits, changed(lambda t, i: t[0][i].__setitem__(0, -0.1)), weight))
            found.append(("above 1", loss, logits, changed(lambda t, i: t[0][i].__setitem__(0, 1.2)), weight))
    return found


def assert_bad(value: float, gradient: torch.Tensor) -> None:
    assert math.isnan(value)
    bad = torch.tensor([2, 5])
    good = torch.tensor([0, 1, 3, 4])
    assert gradient[bad].isnan().all()
    assert gradient[good].isfinite().all()


@pytest.mark.parametrize("at", range(len(bad_rows())), ids=[row[0] for row in bad_rows()])
def test_rows_that_break_a_rule_are_nan(run: Run, at: int) -> None:
    arguments = bad_rows()[at][1:]
    assert_bad(*run(*arguments))
    found = modelled(*arguments)
    assert_bad(found.loss, torch.from_numpy(found.gradient))


@pytest.mark.parametrize("kind", ["index", "probs", "logits", "topk"])
def test_extreme_and_masked_logits(run: Run, kind: str) -> None:
    loss, logits, target, weight = case(kind, 6, 20, torch.float32)
    logits[0, 3], logits[1, 4], logits[2] = 1e4, -1e4, 1e4
    if kind == "logits":
        target[1, 5] = logits[1, 5] = target[2, 7] = -math.inf
        target[3, 6], target[4, 6] = 1e4, -1e4
    elif kind == "index":
        logits[1, (int(target[1]) + 1) % 20] = -math.inf
    wanted, wanted_gradient = exact(loss, logits, target, weight)
    found, (value, gradient) = modelled(loss, logits, target, weight), run(loss, logits, target, weight)
    assert_close(found.loss, found.gradient, wanted.item(), wanted_gradient)
    assert_close(value, gradient, wanted.item(), wanted_gradient)


def test_nan_is_passed_on(run: Run) -> None:
    loss, logits, target, weight = case("index", 3, 40, torch.float32)
    logits[1, 7] = math.nan
    value, gradient = run(loss, logits, target, weight)
    assert math.isnan(value)
    assert gradient[1].isnan().all()
    assert gradient[0].isfinite().all()


# ---- around the kernel, without a GPU ----


@pytest.mark.parametrize("kind", KINDS)
def test_from_torch_to_the_kernel(kind: str, emulator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `loss_gpu` hands over, of tensors on the CPU: strides, and dtypes that the kernel does not take."""
    monkeypatch.setattr(_backend, "cuda_module", lambda: emulator)
    monkeypatch.setattr(loss_gpu, "_workspaces", {})
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    loss, logits, target, weight = case(kind, 6, 24, torch.float32)
    soft, indices = loss._split(target)
    options = (loss.target, loss.temperature, loss.label_smoothing)
    wanted, wanted_gradient = exact(loss, logits, target, weight)
    strided = torch.stack([logits, logits], dim=2)[:, :, 0]
    for given in [
        (logits, soft, indices, weight),
        (strided, None if soft is None else soft.double(), None if indices is None else indices.int(), weight.float()),
    ]:
        value, gradient = loss_gpu.weighted_loss(*given, *options)
        assert_close(value.item(), gradient, wanted.item(), wanted_gradient)
    assert len(loss_gpu._workspaces) == 1
    loss_gpu._workspaces.clear()
    value, gradient = loss_gpu.operator(logits, soft, indices, weight, *options)
    assert_close(value.item(), gradient, wanted.item(), wanted_gradient)
    assert not loss_gpu._workspaces, "torch.compile takes back what is left in a graph's memory"
    half = loss_gpu.weighted_loss(logits.half(), soft, indices, weight.bfloat16(), *options)[1]
    assert half.dtype == torch.float32
    assert torch.equal(loss_gpu.scaled(half.clone(), torch.tensor(8.0), torch.float16), (half * 8).half())
    assert torch.equal(loss_gpu.scaled(half.clone(), torch.tensor(8.0), torch.float32), half * 8)


@needs_build
@pytest.mark.skipif(WHY_NOT is None, reason="a real launch would read these addresses")
def test_binding_refuses_what_does_not_fit() -> None:
    assert isinstance(BUILT, ModuleType)
    valid: dict[str, Any] = {
        "logits": 64, "type": "float32", "soft": 64, "soft_type": "float16", "indices": None, "weight": 64,
        "weight_type": "float64", "target": "probs", "n_rows": 2, "n_classes": 3, "k": 0, "temperature": 1.0,
        "label_smoothing": 0.0, "gradient": 64, "loss": 64, "workspace": 64, "device": 0, "stream": 0,
    }  # fmt: skip
    for error, match, changes in [
        (TypeError, "address", {"logits": "here"}),
        (TypeError, "address", {"soft": None}),
        (TypeError, "address", {"target": "index"}),
        (ValueError, "address 0", {"workspace": 0}),
        (ValueError, "type cannot be 'int8'", {"type": "int8"}),
        (ValueError, "float64", {"type": "float64"}),
        (ValueError, "float64", {"soft_type": "float64"}),
        (ValueError, "weights only", {"weight_type": "float16"}),
        (ValueError, "target cannot be", {"target": "top"}),
        (ValueError, "n_rows", {"n_rows": 0}),
        (ValueError, "n_classes", {"n_classes": 2**31}),
        (ValueError, "k of at most", {"target": "topk", "indices": 64, "k": 4}),
        (ValueError, "temperature", {"temperature": math.nan}),
        (ValueError, "label_smoothing", {"label_smoothing": 1}),
        (ValueError, "device", {"device": -1}),
        (OverflowError, "large", {"stream": 2**70}),
        (RuntimeError, "the weighted loss on the GPU failed: .*cudaGetDevice", {}),
    ]:
        with pytest.raises(error, match=match):
            BUILT.weighted_loss(*(valid | changes).values())
    with pytest.raises(TypeError, match="18 positional"):
        BUILT.weighted_loss()


def test_without_a_gpu_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_gpu.gpu, "is_available", lambda: False)
    loss_gpu._find_limits.cache_clear()
    assert loss_gpu._limits() == (0, 0)
    assert not loss_gpu.fits(torch.zeros(2, 3), None, torch.zeros(2, dtype=torch.long), torch.ones(2))
    compiled = torch.compile(lambda x: x + len(loss_gpu._limits()), backend="aot_eager", fullgraph=True)
    assert compiled(torch.ones(2)).tolist() == [3.0, 3.0]
    loss_gpu._find_limits.cache_clear()


# ---- on a GPU ----
