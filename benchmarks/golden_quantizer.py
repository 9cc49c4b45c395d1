"""Cases of golden.py that need no training: the quantiser in every form and type, W2 and its like, the weighted loss.

The samples are made of NumPy's uniform numbers by sums alone, so that they are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import ddoq

Case = tuple[str, Any]  # dotted key, and what came out

DTYPES = ("float16", "bfloat16", "float32", "float64")
FORMS: dict[str, tuple[int, int, int, dict[str, Any]]] = {  # samples, features, points, options
    "gram_none": (300, 37, 10, {"form": "gram", "refine": "none"}),
    "gram_hartigan": (300, 37, 10, {"form": "gram", "refine": "hartigan"}),
    "gram_auto_few_samples": (120, 19, 30, {}),
    "gram_auto": (600, 33, 12, {}),
    "sketch_few_points": (530, 1030, 12, {}),
    "sketch": (700, 1024, 40, {}),
    "streaming": (1500, 40, 25, {"form": "streaming"}),
    "streaming_many_points": (900, 24, 150, {"form": "streaming"}),
    "streaming_auto": (4200, 9, 7, {}),
}


def samples(n: int, d: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """float64 (n, d) around 12 centres so near that iterations are many."""
    rng = np.random.default_rng(seed)
    centres = rng.random((12, d))
    return centres[rng.integers(12, size=n)] + rng.random((n, d)) + rng.random((n, d)) - 1.5


def masses(n: int) -> np.ndarray[Any, Any]:
    """float64 (n,) weights of samples, some of them zero."""
    found = np.random.default_rng(1).random(n)
    found[::7] = 0
    return found


def typed(X: np.ndarray[Any, Any], dtype: str) -> Any:
    return torch.from_numpy(X).to(torch.bfloat16) if dtype == "bfloat16" else X.astype(dtype)


def quantizer() -> Iterator[Case]:
    """All that the C core makes alone, whose bits are of the instruction set and of no library."""
    for form, (n, d, k, options) in FORMS.items():
        for dtype in DTYPES:
            X = typed(samples(n, d), dtype)
            yield f"{form}.{dtype}", ddoq.quantize(X, k, random_state=0, n_threads=2, **options)
    yield from _options()
    yield from _classes()
    yield from _streams()
    yield from _estimator()
    yield from _curves()


def _options() -> Iterator[Case]:
    """Every option of `quantize` that changes the result."""
    X, k = samples(400, 21).astype(np.float32), 9
    w, start = masses(len(X)), X[5 : 5 + k].copy()
    twice = np.concatenate([X[:100], X[:100], X[100:200]])
    cases: dict[str, dict[str, Any]] = {
        "sample_weight": {"sample_weight": w},
        "sample_weight_hartigan": {"sample_weight": w, "refine": "hartigan"},
        "sample_weight_streaming": {"sample_weight": w, "form": "streaming"},
        "random": {"init": "random"},
        "random_sample_weight": {"init": "random", "sample_weight": w, "n_init": 3},
        "random_streaming": {"init": "random", "form": "streaming", "n_init": 2},
        "given": {"init": start},
        "given_none": {"init": start, "refine": "none"},
        "given_streaming": {"init": start, "form": "streaming"},
        "starts": {"n_init": 5, "refine": "none"},
        "starts_streaming": {"n_init": 3, "form": "streaming"},
        "max_iter": {"max_iter": 2},
        "max_iter_streaming": {"max_iter": 2, "form": "streaming"},
        "tol": {"tol": 0.0, "form": "streaming"},
        "threads": {"n_threads": 1},
        "threads_streaming": {"n_threads": 1, "form": "streaming"},
        "fortran_order": {"X": np.asfortranarray(X)},
        "integers": {"X": np.round(10 * X).astype(np.int32)},
        "repeated_rows": {"X": twice},
        "one_point": {"k": 1},
        "all_points": {"X": X[:k]},
        "generator": {"random_state": np.random.default_rng(2)},
        "seed_sequence": {"random_state": np.random.SeedSequence(2, spawn_key=(3,))},
    }
    for name, options in cases.items():
        yield f"options.{name}", ddoq.quantize(**{"X": X, "k": k, "random_state": 0, "n_threads": 2, **options})
    for dtype in DTYPES:
        for clock in ("global", "point"):
            for average in (False, True):
                how: dict[str, Any] = {"method": "clvq", "clock": clock, "average": average, "random_state": 0}
                q = ddoq.quantize(typed(X, dtype), k, **how, n_threads=2)
                yield f"clvq.{dtype}.{clock}.{'means' if average else 'last'}", q
    yield "clvq.step", ddoq.quantize(X, k, method="clvq", step=(5.0, 0.7), random_state=0, n_threads=2)


def _classes() -> Iterator[Case]:
    X = samples(900, 21).astype(np.float32)
    sizes = (40, 300, 260, 300)
    y = np.random.default_rng(3).permutation(np.repeat([0, 1, 2, 3], sizes))
    names = np.array(["fox", "ant", "elk", "bee"])[y]
    seeds = [np.random.SeedSequence(c) for c in range(4)]
    start = np.concatenate([X[y == c][:3] for c in range(4)])
    cases: dict[str, dict[str, Any]] = {
        "alike": {"k": 5},
        "float64": {"X": X.astype(np.float64), "k": 5},
        "float16": {"X": X.astype(np.float16), "k": 5},
        "bfloat16": {"X": typed(X, "bfloat16"), "k": 5},
        "names": {"y": names, "k": 5},
        "several_k": {"k": [1, 25, 10, 3]},
        "sample_weight": {"k": 5, "sample_weight": masses(len(X))},
        "hartigan": {"k": 30, "refine": "hartigan"},
        "random": {"k": 5, "init": "random"},
        "given": {"k": 3, "init": start},
        "streaming": {"k": 5, "form": "streaming"},
        "seeds": {"k": 5, "random_state": seeds},
        "one_thread": {"k": 5, "n_threads": 1},
        "clvq": {"k": 5, "method": "clvq"},
        "budget": {"budget": 40},
        "budget_random": {"budget": 25, "init": "random", "refine": "none"},
        "budget_sample_weight": {"budget": 40, "sample_weight": masses(len(X))},
        "budget_streaming": {"budget": 30, "form": "streaming"},
        "sketch": {"X": samples(1300, 1024), "y": np.arange(1300) % 13 // 5, "k": [9, 20, 4], "refine": "auto"},
        "all_forms": {"X": samples(6000, 6), "y": np.sqrt(np.arange(6000) // 700).astype(int), "k": [40, 9, 3]},
    }
    for name, options in cases.items():
        made = ddoq.quantize_classes(**{"X": X, "y": y, "random_state": 0, "n_threads": 2, **options})
        yield f"classes.{name}", made


def _streams() -> Iterator[Case]:
    X = samples(700, 21)
    for dtype in ("float16", "float32", "float64"):
        for clock in ("global", "point"):
            for average in (False, True):
                stream = ddoq.OnlineQuantizer(9, clock=clock, average=average, n_threads=2)
                for part in np.split(X.astype(dtype), [4, 250]):  # the first has fewer than k samples
                    stream.update(part)
                yield f"online.{dtype}.{clock}.{'means' if average else 'last'}", _stream(stream, X.astype(dtype))
    q = ddoq.quantize(X, 9, random_state=0, n_threads=2)
    for clock in ("global", "point"):
        stream = ddoq.OnlineQuantizer.from_quantization(q, step=(20.0, 0.6), clock=clock, average=True)
        stream.update(samples(300, 21, seed=1))
        yield f"online.continued.{clock}", _stream(stream, X)


def _stream(stream: ddoq.OnlineQuantizer, X: np.ndarray[Any, Any]) -> dict[str, Any]:
    found = {name: getattr(stream, name) for name in ("points", "online_weights", "steps")}
    return {**found, "quantization": stream.quantization(X)}


def _estimator() -> Iterator[Case]:
    X = samples(400, 21)
    for dtype in ("float32", "float64"):
        model = ddoq.OptimalQuantizer(9, random_state=0, n_threads=2)
        model.fit(X.astype(dtype), sample_weight=masses(len(X)))
        yield f"estimator.fit.{dtype}", _fitted(model, X.astype(dtype))
        for part in np.split(samples(300, 21, seed=1).astype(dtype), 3):
            model.partial_fit(part)
        yield f"estimator.fit_then_partial_fit.{dtype}", _fitted(model, X.astype(dtype))
    model = ddoq.OptimalQuantizer(9)
    for part in np.split(X, [4, 200]):
        model.partial_fit(part)
    yield "estimator.partial_fit", _fitted(model, X)


def _fitted(model: ddoq.OptimalQuantizer, X: np.ndarray[Any, Any]) -> dict[str, Any]:
    public = {name: value for name, value in vars(model).items() if name.endswith("_") and not name.startswith("_")}
    return {**public, "predicted": model.predict(X)}


def _curves() -> Iterator[Case]:
    X, y = samples(600, 21), np.arange(600) % 3
    cases: dict[str, dict[str, Any]] = {
        "classes": {"y": y},
        "one_class": {},
        "float16": {"X": X.astype(np.float16), "y": y},
        "sample_weight": {"y": y, "sample_weight": masses(len(X))},
        "hartigan": {"y": y, "refine": "hartigan", "init": "random"},
        "streaming": {"y": y, "form": "streaming"},
        "sketch": {"X": samples(600, 1024)},
    }
    for name, options in cases.items():
        given = {"X": X, "k": [1, 2, 9, 20, 5], "random_state": 0, "n_threads": 2, **options}
        yield f"rate_distortion.{name}", ddoq.rate_distortion(**given)


def libraries() -> Iterator[Case]:
    """What NumPy's BLAS, scikit-learn or POT have a part in."""
    X, w = samples(300, 21), masses(300)
    for dtype in ("float32", "float64"):
        data, points = X.astype(dtype), samples(12, 21, seed=1).astype(dtype)
        weights = masses(12)
        yield f"w2.cells.{dtype}", ddoq.w2(data, points)
        yield f"w2.cells_sample_weight.{dtype}", ddoq.w2(data, points, sample_weight=w)
        yield f"w2.weights.{dtype}", ddoq.w2(data, points, weights)
        yield f"w2.weights_sample_weight.{dtype}", ddoq.w2(data, points, weights, sample_weight=w)
        model = ddoq.OptimalQuantizer(9, random_state=0, n_threads=2).fit(data)
        yield f"estimator.{dtype}", {"transform": model.transform(data), "score": model.score(data, sample_weight=w)}
    for dtype in DTYPES:
        yield f"minibatch.{dtype}", ddoq.quantize(typed(X, dtype), 9, method="minibatch", random_state=0)
    yield "minibatch.classes", ddoq.quantize_classes(X, np.arange(300) % 4, 5, method="minibatch", random_state=0)


def loss() -> Iterator[Case]:
    """Value and gradient of the weighted loss; float16 is not of the C core, but of the same formulas in torch."""
    rng = np.random.default_rng(4)
    n, classes = 37, 53
    logits, teacher = (torch.from_numpy(12 * rng.random((n, classes)) - 6) for _ in range(2))
    probabilities = torch.from_numpy(rng.random((n, classes)) ** 4)
    probabilities /= probabilities.sum(1, keepdim=True)
    largest = probabilities.topk(5)
    weight = torch.from_numpy(masses(n))
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        targets: dict[str, Any] = {
            "index": torch.from_numpy(rng.permutation(classes)[:n].copy()),
            "probs": probabilities.to(dtype),
            "logits": teacher.to(dtype),
            "topk": (largest.values.to(dtype), largest.indices),
        }
        cases = [("index", {}), ("index", {"label_smoothing": 0.1})]
        cases += [(kind, {"temperature": tau}) for kind in ("probs", "logits", "topk") for tau in (1.0, 4.0)]
        for kind, options in cases:
            given = logits.to(dtype, copy=True).requires_grad_()
            value = ddoq.WeightedLoss(kind, **options)(given, targets[kind], weight)
            (3 * value).backward()
            told = "".join(f".{name}_{number}" for name, number in options.items())
            key = f"{str(dtype).removeprefix('torch.')}.{kind}{told}"
            yield key, {"value": value, "gradient": given.grad}
