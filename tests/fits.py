"""Samples and comparisons that the quantiser's tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from ddoq import ClassQuantization, Quantization

DTYPES = ("float32", "float64")


def normal(n: int, d: int, dtype: str = "float64", seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng([n, d, seed]).normal(size=(n, d)).astype(dtype)


def assert_identical(a: Quantization | ClassQuantization, b: Quantization | ClassQuantization) -> None:
    for name in ("points", "weights", "counts", "labels", "distortion", "n_iter"):
        assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name, strict=True)
