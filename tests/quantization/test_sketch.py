"""Quantisation from a sketch: near the fit in all features, exchanged seeds, nearest labels."""

from __future__ import annotations

import numpy as np
import pytest
from fits import DTYPES, normal
from numpy.testing import assert_allclose, assert_array_equal
from test_quantize import assert_same_fit, draws, isa

import ddoq
from ddoq.machine import backend
from ddoq.quantization import reference
from ddoq.quantization.quantize import quantize

__all__ = ["isa"]


def test_sketch_is_near_the_fit_in_all_features(isa: str) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, 4500))
    X = (centres[rng.integers(30, size=600)] + 2 * rng.normal(size=(600, 4500)) + 10).astype(np.float32)
    w = rng.uniform(0.5, 2, size=600)
    sketched = ddoq.quantize(X, 20, sample_weight=w, random_state=0)
    full = ddoq.quantize(X, 20, sample_weight=w, refine="hartigan", random_state=0)
    assert sketched.distortion != full.distortion
    assert sketched.distortion < 1.01 * full.distortion
    squares = ((X[:, None].astype(float) - sketched.points.astype(float)) ** 2).sum(axis=2)
    assert_array_equal(sketched.labels, squares.argmin(axis=1))
    assert_allclose(sketched.distortion, np.average(squares.min(axis=1), weights=w), rtol=1e-12)
    assert_allclose(sketched.weights, np.bincount(sketched.labels, weights=w) / w.sum(), rtol=1e-12)
    assert_array_equal(sketched.counts, np.bincount(sketched.labels))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 9, 16, 17, 30])
def test_fit_of_a_sketch_that_loses_nothing(k: int, dtype: str, isa: str) -> None:
    # one feature to a bucket and all samples in it: G is the same, and moves in all features find none to make
    X = np.zeros((520, 1200), dtype=dtype)
    X[:, 100:600] = normal(520, 500, dtype)
    w = np.random.default_rng(k).uniform(0.5, 2.0, size=520)
    fit = reference.quantize_class(X, w, k, uniforms=draws(1, k, 2), use_exchanges=True, use_hartigan=True)
    assert_same_fit(quantize(X, k, sample_weight=w, n_init=2, random_state=1), fit, X)


def test_seeds_are_exchanged_in_a_sketch(isa: str) -> None:
    # every start finds all of 40 clusters: greedy k-means++ and all that follows it, without exchanges, in one of ten
    rng = np.random.default_rng(0)
    cluster = rng.permutation(np.arange(800) % 40)
    X = (1.5 * rng.normal(size=(40, 1024))[cluster] + rng.normal(size=(800, 1024))).astype(np.float32)
    for seed in range(5):
        labels = quantize(X, 40, n_init=1, random_state=seed).labels
        assert len(np.unique(np.stack([cluster, labels]), axis=1).T) == 40


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["blobs", "noise", "far", "repeated", "uneven"])
def test_labels_of_a_sketch_are_the_nearest(kind: str, dtype: str, isa: str) -> None:
    # most samples are not compared with all points in the end: bounds must leave none with the wrong one
    n, d, k = 700, 1024, 40
    rng = np.random.default_rng(0)
    X, w = rng.normal(size=(n, d)), rng.uniform(0.5, 2, size=n)
    if kind == "blobs":
        X += rng.normal(size=(50, d))[rng.integers(50, size=n)]
    elif kind == "far":
        X += 1e4
    elif kind == "repeated":
        X = X[rng.integers(60, size=n)]
    elif kind == "uneven":
        w = 10.0 ** rng.integers(-12, 1, size=n)
    X = X.astype(dtype)
    q = quantize(X, k, sample_weight=w, random_state=0)
    labels, squares = np.empty(n, np.int64), np.empty(n)
    backend.core.assign(X, q.points, labels, squares, 1, isa)
    assert_array_equal(q.labels, labels)
    assert_allclose(q.distortion, np.average(squares, weights=w), rtol=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_sketch_in_which_all_samples_are_equal(sign: int) -> None:
    X = np.zeros((600, 4096), dtype=np.float32)
    X[:, 0] = np.arange(600)
    X[:, 2048] = sign * X[:, 0]  # of one bucket: with one of the signs they cancel
    q = ddoq.quantize(X, 30, random_state=0)
    assert (q.counts > 0).all()
    assert_array_equal(q.counts, np.bincount(q.labels))
    assert_array_equal(q.labels, abs(X[:, :1] - q.points[:, 0]).argmin(axis=1))
