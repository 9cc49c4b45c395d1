"""Arguments of the core's functions, valid and spoilt, for the tests of the binding and its fuzz run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy._core._multiarray_umath import _get_sfloat_dtype
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
    arguments += [
        n_init,
        rng.integers(1, n_init + 1, size=C),
        *(starts[i] if i == start else None for i in range(3)),
        int(rng.integers(1, 20)),
    ]
    forms = rng.integers(0, 4, size=C).astype(np.uint8)
    arguments += [float(rng.choice([0.0, 1e-2])), forms, int(rng.integers(1, 4)), isa_of(rng)]
    arguments += [np.empty((K, d), dtype), np.empty(K), np.empty(K, dtype=np.int64), np.empty(n, dtype=np.int64)]
    return [*arguments, np.empty(C), np.empty(C, dtype=np.int64), None]


def valid_assign(rng: np.random.Generator) -> list[Any]:
    n, k, d = (int(rng.integers(low, 20)) for low in (0, 1, 0))
    X, points = rng.normal(size=(n, d)), rng.normal(size=(k, d))
    return [X, points, np.empty(n, dtype=np.int64), np.empty(n), int(rng.integers(1, 4)), isa_of(rng)]


def valid_largest(rng: np.random.Generator) -> list[Any]:
    n, d = (int(size) for size in rng.integers(0, 40, size=2))
    dtype = rng.choice(["float16", "float32", "float64", "uint16"])
    return [real(rng.normal(size=(n, d)), dtype), int(rng.integers(1, 4)), isa_of(rng)]


def valid_gram(rng: np.random.Generator) -> list[Any]:
    n, d = (int(size) for size in rng.integers(0, 40, size=2))
    return [rng.normal(size=(n, d)).astype(np.float32), np.empty((n, n), np.float32), isa_of(rng)]


def valid_clvq(rng: np.random.Generator) -> list[Any]:
    n, k, d = (int(rng.integers(low, high)) for low, high in ((0, 150), (1, 20), (1, 50)))
    dtype = rng.choice(["float32", "float64"])
    X, points = (rng.normal(size=(size, d)).astype(dtype) for size in (n, k))
    weights = np.full(k, 1 / k) if rng.integers(2) else None
    wins, winners = rng.integers(0, 9, size=k), np.empty(n, dtype=np.int64)
    average = bool(rng.integers(2))
    sums = rng.normal(size=(k, d)) if average else None
    summed = np.array(wins if weights is None else np.full(k, wins.sum())) if average else None
    weight_sums = rng.random(k) if average and weights is not None else None
    step = [float(rng.uniform(0.1, 9)), float(rng.random())]
    return [X, points, weights, wins, winners, *step, sums, summed, weight_sums, int(rng.integers(1, 4)), isa_of(rng)]


def valid_weighted_loss(rng: np.random.Generator) -> list[Any]:
    target = str(rng.choice(["index", "probs", "logits", "topk"]))
    B, C = int(rng.integers(1, 20)), int(rng.integers(1, 40))
    k = int(rng.integers(1, C + 1)) if target == "topk" else C
    kind = str(rng.choice(["float32", "float64", "uint16"]))
    soft_kind = "float64" if kind == "float64" else str(rng.choice(["float32", "uint16"]))
    soft = rng.random((B, k)) + 0.01
    soft /= soft.sum(axis=1, keepdims=True)
    indices = np.array([rng.permutation(C)[:k] for _ in range(B)]) if target == "topk" else rng.integers(0, C, size=B)
    return [
        real(rng.normal(size=(B, C)), kind),
        None if target == "index" else real(soft, soft_kind),
        indices if target in ("index", "topk") else None,
        rng.uniform(0, 2, size=B).astype(rng.choice(["float32", "float64"])),
        target,
        float(rng.uniform(0.5, 4)) if target != "index" else 1.0,
        0.1 if target == "index" else 0.0,
        int(rng.integers(1, 4)),
        isa_of(rng),
        np.empty((B, C), dtype=kind),
    ]


def real(values: NDArray[Any], kind: str) -> NDArray[Any]:
    """The values in the dtype; uint16 is bfloat16, rounded to nearest."""
    if kind != "uint16":
        return values.astype(kind)
    return ((values.astype(np.float32).view(np.uint32) + 0x8000) >> 16).astype(np.uint16)


def isa_of(rng: np.random.Generator) -> str:
    return str(rng.choice(core.isas()))


VALID: dict[str, Callable[[np.random.Generator], list[Any]]] = {
    "quantize_classes": valid_quantize,
    "assign": valid_assign,
    "gram": valid_gram,
    "largest": valid_largest,
    "clvq": valid_clvq,
    "weighted_loss": valid_weighted_loss,
}


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


def converted(array: np.ndarray, kind: Any) -> np.ndarray:
    """The array as another type; as it is where an earlier change has made it text that is no number."""
    try:
        return array.astype(kind)
    except ValueError:
        return array


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
    if array.dtype.hasobject:  # an earlier change's, of which NumPy makes no view
        return array
    changed = np.frombuffer(bytearray(array.nbytes + 1), dtype=np.uint8)[1:].view(array.dtype).reshape(array.shape)
    changed[...] = array
    return changed


def other(rng: np.random.Generator, value: Any, arguments: list[Any]) -> Any:
    """Use one of the other arguments: the same memory twice."""
    return arguments[int(rng.integers(len(arguments)))]


scaled_float = _get_sfloat_dtype()(1.0)
TYPES = ["f2", "f4", "f8", "i4", "i8", "u1", "u8", "c16", "?", ">f4", ">f8", ">i8", "S3", "O"]
MUTATIONS: list[Mutation] = [
    garbage,
    other,
    of(lambda rng, array: np.resize(array, int(rng.integers(0, 3 * array.size + 2)))),
    of(lambda rng, array: np.resize(array, rng.integers(0, 8, size=int(rng.integers(0, 4))))),
    of(lambda rng, array: converted(array, TYPES[int(rng.integers(len(TYPES)))])),
    of(lambda rng, array: np.asfortranarray(array)),
    of(lambda rng, array: np.repeat(array, 2, axis=0)[::2]),
    of(lambda rng, array: array[::-1]),
    of(lambda rng, array: array.T),
    of(lambda rng, array: np.broadcast_to(array[:1], array.shape)),
    of(lambda rng, array: array.tolist()),
    of(read_only),
    of(misaligned),
]
# What no other mutation may follow: rows without end of nothing, a dtype without a number.
LAST: list[Mutation] = [
    of(lambda rng, array: np.empty((2 ** int(rng.integers(28, 60)), 0), array.dtype)),
    of(lambda rng, array: np.ones(array.shape).astype(scaled_float)),
]
SPECIAL = [0, 1, 3, 100, -1, 2**62, -(2**62), 1e-300, 1e300, -1e300, 3e38, np.nan, np.inf, -np.inf]
POKES: list[Mutation] = [of(poke(SPECIAL))]


def changed(rng: np.random.Generator, name: str, round_: int) -> list[Any]:
    """Arguments of one of the core's functions, with none to two of them spoilt."""
    arguments = VALID[name](rng)
    pool = [MUTATIONS, POKES, MUTATIONS + POKES][round_ % 3]
    for _ in range(int(rng.integers(0, 3))):
        at = int(rng.integers(len(arguments)))
        arguments[at] = pool[int(rng.integers(len(pool)))](rng, arguments[at], arguments)
    if rng.random() < 0.05:
        at = int(rng.integers(len(arguments)))
        arguments[at] = LAST[int(rng.integers(len(LAST)))](rng, arguments[at], arguments)
    if rng.random() < 0.02:
        arguments = arguments[: int(rng.integers(len(arguments)))]
    return arguments
