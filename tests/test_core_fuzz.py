"""The binding under random and malicious arguments: a result, TypeError or ValueError, never anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddoq import _core as core

Mutation = Callable[[np.random.Generator, Any, list[Any]], Any]


def valid_quantize(rng: np.random.Generator) -> list[Any]:
    n, d, C = int(rng.integers(1, 30)), int(rng.integers(1, 20)), int(rng.integers(1, 4))
    C = min(C, n)
    row_offsets = np.sort(rng.choice(np.arange(1, n), size=C - 1, replace=False)) if C > 1 else np.array([], dtype=int)
    row_offsets = np.concatenate([[0], row_offsets, [n]])
    ks = [int(rng.integers(1, size + 1)) for size in np.diff(row_offsets)]
    dtype, K = rng.choice(["float32", "float64"]), sum(ks)
    start = int(rng.integers(3))
    n_init = 1 if start == 2 else int(rng.integers(1, 3))
    uniforms = rng.random(n_init * sum(1 + (k - 1) * (2 + int(np.log(k))) for k in ks))
    rows = [rng.choice(size, size=k) for k, size in zip(ks, np.diff(row_offsets), strict=True) for _ in range(n_init)]
    starts = [uniforms, np.concatenate(rows), rng.normal(size=(K, d)).astype(dtype)]
    X = rng.normal(size=(n, d)).round(int(rng.integers(3))).astype(dtype)  # rounded: with ties and duplicates
    arguments = [
        X,
        rng.uniform(0.1, 2.0, size=n),
        rng.permutation(n),
        row_offsets,
        np.concatenate([[0], np.cumsum(ks)]),
    ]
    arguments += [n_init, *(starts[i] if i == start else None for i in range(3)), int(rng.integers(1, 20))]
    arguments += [
        float(rng.choice([0.0, 1e-2])),
        rng.integers(0, 4, size=C).astype(np.uint8),
        int(rng.integers(1, 4)),
        str(rng.choice(core.isas())),
    ]
    arguments += [np.empty((K, d), dtype), np.empty(K), np.empty(K, dtype=np.int64), np.empty(n, dtype=np.int64)]
    return [*arguments, np.empty(C), np.empty(C, dtype=np.int64), None]


def valid_assign(rng: np.random.Generator) -> list[Any]:
    n, k, d = (int(rng.integers(low, 20)) for low in (0, 1, 0))
    X, points = rng.normal(size=(n, d)), rng.normal(size=(k, d))
    return [X, points, np.empty(n, dtype=np.int64), np.empty(n), int(rng.integers(1, 4)), str(rng.choice(core.isas()))]


def valid_gram(rng: np.random.Generator) -> list[Any]:
    n, d = (int(size) for size in rng.integers(0, 40, size=2))
    return [rng.normal(size=(n, d)).astype(np.float32), np.empty((n, n), np.float32), str(rng.choice(core.isas()))]


def garbage(rng: np.random.Generator, value: Any, arguments: list[Any]) -> Any:
    things = [
        None,
        -1,
        0,
        2**63,
        -(2**70),
        1.5,
        "x",
        "avx2",
        b"",
        [],
        {},
        object,
        float("nan"),
        True,
        int,
        np.float32(1),
    ]
    return things[int(rng.integers(len(things)))]


def of(change: Callable[[np.random.Generator, NDArray[Any]], Any]) -> Mutation:
    """Change an argument that is an array, leave the others alone."""

    def mutate(rng: np.random.Generator, value: Any, arguments: list[Any]) -> Any:
        with np.errstate(all="ignore"):
            return change(rng, value) if isinstance(value, np.ndarray) and value.ndim else value

    return mutate


def poke(values: list[Any]) -> Callable[[np.random.Generator, NDArray[Any]], Any]:
    """Overwrite one random entry by one of the values."""

    def change(rng: np.random.Generator, array: NDArray[Any]) -> Any:
        changed = array.copy()
        if changed.size:
            value = np.array(values[int(rng.integers(len(values)))])
            changed.flat[int(rng.integers(changed.size))] = value.astype(changed.dtype)
        return changed

    return change


def read_only(rng: np.random.Generator, array: NDArray[Any]) -> Any:
    changed = array.copy()
    changed.flags.writeable = False
    return changed


def misaligned(rng: np.random.Generator, array: NDArray[Any]) -> Any:
    changed = np.frombuffer(bytearray(array.nbytes + 1), dtype=np.uint8)[1:].view(array.dtype).reshape(array.shape)
    changed[...] = array
    return changed


def other(rng: np.random.Generator, value: Any, arguments: list[Any]) -> Any:
    """Use one of the other arguments: the same memory twice."""
    return arguments[int(rng.integers(len(arguments)))]


TYPES = ["f2", "f4", "f8", "i4", "i8", "u1", "u8", "c16", "?", ">f4", ">f8", ">i8", "S3", "O"]
MUTATIONS: list[Mutation] = [
    garbage,
    other,
    of(lambda rng, array: np.resize(array, int(rng.integers(0, 3 * array.size + 2)))),
    of(lambda rng, array: np.resize(array, rng.integers(0, 8, size=int(rng.integers(0, 4))))),
    of(lambda rng, array: array.astype(TYPES[int(rng.integers(len(TYPES)))])),
    of(lambda rng, array: np.asfortranarray(array)),
    of(lambda rng, array: np.repeat(array, 2, axis=0)[::2]),
    of(lambda rng, array: array[::-1]),
    of(lambda rng, array: array.tolist()),
    of(read_only),
    of(misaligned),
]
POKES: list[Mutation] = [of(poke([0, 1, 3, 100, -1, 2**62, -(2**62), 1e-300, 1e300, -1e300, 3e38]))]


@pytest.mark.filterwarnings("ignore:.*discards the imaginary part")  # of a mutated argument
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["quantize_classes", "assign", "gram"])
def test_random_arguments(name: str, seed: int) -> None:
    valid = {"quantize_classes": valid_quantize, "assign": valid_assign, "gram": valid_gram}[name]
    rng = np.random.default_rng([seed, len(name)])
    outcomes = {"result": 0, "refused": 0}
    for round_ in range(400):
        arguments = valid(rng)
        pool = [MUTATIONS, POKES, MUTATIONS + POKES][round_ % 3]
        for _ in range(int(rng.integers(0, 3))):
            at = int(rng.integers(len(arguments)))
            arguments[at] = pool[int(rng.integers(len(pool)))](rng, arguments[at], arguments)
        if rng.random() < 0.02:
            arguments = arguments[: int(rng.integers(len(arguments)))]
        try:
            assert getattr(core, name)(*arguments) is None
            outcomes["result"] += 1
        except (TypeError, ValueError):
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


@pytest.mark.parametrize("name", ["quantize_classes", "assign", "gram"])
@pytest.mark.parametrize("seed", range(20))
def test_valid_arguments_are_not_refused(name: str, seed: int) -> None:
    valid = {"quantize_classes": valid_quantize, "assign": valid_assign, "gram": valid_gram}[name]
    rng = np.random.default_rng(seed)
    for _ in range(20):
        assert getattr(core, name)(*valid(rng)) is None


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
