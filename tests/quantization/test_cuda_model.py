"""The model of the kernels in NumPy: against the textbook, and bit for bit against the kernels themselves."""

from __future__ import annotations

from typing import Any

import cuda_model as model
import numpy as np
import pytest
from gpus import Job, emulated, emulator, gpu, n_uniforms, small_integers
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from ddoq.quantization import reference
from ddoq.quantization.forms import GRAM, GRAM_MOVES

__all__ = ["emulated", "emulator", "gpu"]

LENGTHS = (1, 2, 3, 5, 8, 17, 31, 32, 33, 63, 65, 97, 255, 256, 257, 300, 513)


def gram_of(X: NDArray[Any]) -> NDArray[np.float32]:
    wide = X.astype(np.float64)
    return (wide @ wide.T).astype(np.float32)


def class_of(X: NDArray[Any], w: NDArray[Any], k: int, **options: Any) -> model.Class:
    return model.Class(gram_of(X), w, k, **options)


# Against the textbook


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("n", LENGTHS)
def test_the_model_is_the_textbook_s(n: int, moves: bool) -> None:
    rng = np.random.default_rng(n)
    k = max(1, min(n // 4, 11))
    X, w = rng.normal(size=(n, 12)).astype(np.float32), rng.uniform(0.5, 3.0, size=n)
    uniforms = rng.random((3, n_uniforms(k)))
    centred = X.astype(np.float64) - w @ X / w.sum()
    fit = model.fit_class(class_of(centred, w, k, moves=moves), uniforms)
    expected = reference.quantize_class(X, w, k, uniforms=uniforms, use_hartigan=moves)
    assert fit.problem == model.FINE
    assert_array_equal(fit.label, expected.labels)
    assert fit.n_iter == expected.n_iter
    assert_allclose(fit.weights, expected.weights, rtol=1e-12)
    points, distortion = model.points(X, w, fit, k)
    assert_allclose(points, expected.points, rtol=0, atol=1e-6)
    assert_allclose(distortion, expected.distortion, rtol=5e-6, atol=1e-12)


def test_sums_of_a_block_are_sums() -> None:
    for n in LENGTHS:
        values = np.random.default_rng(n).integers(-50, 50, size=n).astype(float)
        assert model.block_sum(model.shared_out(values, model.THREADS)) == values.sum()
        assert model.warp_sum(model.shared_out(values, model.LANES)) == values.sum()


def test_shares_add_up_to_the_cumulative_sum() -> None:
    for n in LENGTHS:
        w = np.random.default_rng(n).integers(1, 50, size=n).astype(float)
        c = model.Class(np.eye(n, dtype=np.float32), w, 1)
        inclusive, share = model.accumulate(c, False), -(-n // model.THREADS)
        ends = np.minimum((np.arange(model.THREADS) + 1) * share, n)
        assert_array_equal(inclusive, np.cumsum(w)[ends - 1])
        for u in (0.0, 0.25, 0.5, np.nextafter(1.0, 0.0)):
            assert model.draw(c, inclusive, u, False) == np.argmax(np.cumsum(w) > u * w.sum())


def test_a_far_mean_is_seen() -> None:
    X = np.random.default_rng(0).normal(size=(60, 8))
    for shift, problem in ((1.0, model.FINE), (100.0, model.TOO_FAR)):
        c = class_of(X + shift, np.ones(60), 3, guarded=True)
        assert model.look_at_gram(c) == problem


# Against the kernels


def both(X: NDArray[np.float16], w: NDArray[Any], k: int, n_init: int, moves: bool, **start: Any) -> None:
    forms = np.array([GRAM_MOVES if moves else GRAM], dtype=np.uint8)
    job = Job(X, [k], sample_weight=w, n_init=n_init, forms=forms, **start).run()
    scaled = w * 2.0 ** -np.frexp(w.max())[1]
    c = class_of(X, scaled, k, moves=moves, guarded=True)
    uniforms = job.uniforms if job.uniforms is None else job.uniforms.reshape(n_init, -1)
    rows = start["start_rows"].reshape(n_init, k) if "start_rows" in start else None
    fit = model.fit_class(c, uniforms, rows)
    if fit.problem == model.TOO_FAR:  # once more from centred samples, whose products are not exact
        return
    assert fit.problem == job.problems[0]
    if fit.problem != model.FINE:
        return
    points, distortion = model.points(X, scaled, fit, k)
    assert_array_equal(job.labels, fit.label)
    assert_array_equal(job.counts, np.bincount(fit.label, minlength=k))
    assert_array_equal(job.weights, fit.weights)
    assert_array_equal(job.points, points)
    assert_array_equal(job.n_iter, [fit.n_iter])
    assert_array_equal(job.distortion, [distortion])


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("n", LENGTHS)
def test_same_bits_as_the_kernels(n: int, moves: bool) -> None:
    w = np.random.default_rng(n).uniform(0.5, 3.0, size=n)
    both(small_integers(n, 9), w, max(1, n // 8), 2, moves)


@pytest.mark.usefixtures("gpu")
def test_same_bits_where_sums_are_not_in_shared_memory() -> None:
    both(small_integers(520, 40), np.random.default_rng(0).uniform(0.5, 3.0, size=520), 12, 1, True)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("k", [405, 1100])
def test_same_bits_with_as_many_candidates_as_are_tried_together_and_more(k: int) -> None:
    both(small_integers(k + 7, 24), np.ones(k + 7), k, 1, False)


@pytest.mark.usefixtures("gpu")
def test_same_bits_from_given_samples_with_empty_cells_on_the_way() -> None:
    X = small_integers(150, 3)
    X[:60] = X[0]  # of equal starting points all but the first have empty cells
    start = np.concatenate([np.arange(9), np.arange(141, 150)])
    both(X, np.ones(150), 9, 2, True, start_rows=start)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("order", ["1", "7", "8"])
def test_the_order_of_the_threads_changes_nothing(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for n, k in ((97, 9), (300, 16)):
        X, w = small_integers(n, 9), np.random.default_rng(n).uniform(0.5, 3.0, size=n)
        forms = np.array([GRAM_MOVES], dtype=np.uint8)
        monkeypatch.setenv("EMULATOR_ORDER", "0")
        expected = Job(X, [k], sample_weight=w, forms=forms, n_init=2).run()
        monkeypatch.setenv("EMULATOR_ORDER", order)
        result = Job(X, [k], sample_weight=w, forms=forms, n_init=2).run()
        for a, b in zip(expected.outputs(), result.outputs(), strict=True):
            assert_array_equal(a, b)
