"""The binding under random and malicious arguments: a result, TypeError or ValueError, never anything else.

`tests/fuzz.py` is the same without end.
"""

from __future__ import annotations

from types import NoneType

import numpy as np
import pytest
from arguments import VALID, changed, scaled_float, valid_gram, valid_quantize

from ddoq import _core as core

RESULT = {"weighted_loss": float, "largest": float}


@pytest.mark.filterwarnings("ignore:.*discards the imaginary part")  # of a mutated argument
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", VALID)
def test_random_arguments(name: str, seed: int) -> None:
    rng = np.random.default_rng([seed, len(name)])
    outcomes = {"result": 0, "refused": 0}
    for round_ in range(400):
        arguments = changed(rng, name, round_)
        try:
            assert isinstance(getattr(core, name)(*arguments), RESULT.get(name, NoneType))
            outcomes["result"] += 1
        except (TypeError, ValueError):
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("seed", range(20))
def test_valid_arguments_are_not_refused(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        getattr(core, name)(*VALID[name](rng))


def test_arrays_that_numpy_lets_be_and_that_are_none() -> None:
    """A dtype without a number, which NumPy's own comparison of numbers does not survive; 2**59 rows of nothing."""
    X, labels, dist2 = np.ones((2, 2)), np.empty(2, dtype=np.int64), np.empty(2)
    with pytest.raises(TypeError, match="labels must have dtype int64"):
        core.assign(X, X.copy(), dist2.astype(scaled_float), dist2, 1, core.isas()[0])
    core.assign(X[:, :0].copy(), np.empty((2**59, 0)), labels, dist2, 1, core.isas()[0])
    assert labels.tolist() == dist2.tolist() == [0, 0]


def test_messages_name_the_argument() -> None:
    arguments = valid_gram(np.random.default_rng(0))
    with pytest.raises(TypeError, match=r"^out must have dtype float32$"):
        core.gram(arguments[0], np.empty(arguments[1].shape), arguments[2])
    with pytest.raises(ValueError, match=r"^out must have size \d+ along axis 0, not \d+$"):
        core.gram(arguments[0], np.empty((99, 99), np.float32), arguments[2])
    with pytest.raises(ValueError, match=r"^isa 'mmx' is none of this machine's$"):
        core.gram(arguments[0], arguments[1], "mmx")
    with pytest.raises(ValueError, match=r"^output out shares memory with X$"):
        core.gram(*2 * [np.ones((3, 3))], core.isas()[0])


def test_values_that_overflow_name_the_class() -> None:
    arguments = valid_quantize(np.random.default_rng(3))
    arguments[0] = np.full_like(arguments[0], 1e38 if arguments[0].dtype == np.float32 else 1e300)
    arguments[0][0] *= -1
    with pytest.raises(ValueError, match=r"squares overflow its dtype \(class \d+\)$"):
        core.quantize_classes(*arguments)
