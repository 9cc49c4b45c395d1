"""A fuzz run of the binding and of the public functions: fuzz.py --seconds 600 --seed 0.

Whatever is passed, the answer is a result, TypeError, ValueError or MemoryError. A case that ends otherwise is printed
with the seeds that make it again (--case), and the run ends with status 1; what crashed a process is in --log.
"""

from __future__ import annotations

import argparse
import time
import traceback
import warnings
from collections import Counter
from typing import Any

import numpy as np
import torch
from arguments import LAST, MUTATIONS, POKES, SPECIAL, VALID, changed, of, poke

import ddoq
from ddoq import _core as core

REFUSALS = (TypeError, ValueError, MemoryError)
HOSTILE: list[Any] = [
    *(None, 0, 1, 2, -1, 2**63 - 1, 2**63, 2**70, -(2**70), 1.5, np.nan, True, "x", "", b"x", object(), int),
    *([], [[]], [[1.0], [2.0, 3.0]], {}, (), (1,), {1}, np.float32(2), np.int8(1), np.array(3), np.array([]), "none"),
    *("hartigan", "random", "clvq", "minibatch", "point", "probs", range(3), np.ma.masked, 1j, np.datetime64("NaT")),
]


def spoil(rng: np.random.Generator, value: Any) -> Any:
    """A hostile object, or the array changed."""
    if isinstance(value, torch.Tensor):
        kinds = [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool, torch.complex64]
        changes = [value.to(kinds[int(rng.integers(len(kinds)))]), value[:0], value.T, value[:, None]]
        changes += [value.numpy(), torch.full_like(value, np.inf if value.is_floating_point() else 2**62)]
        return changes[int(rng.integers(len(changes)))]
    if not isinstance(value, np.ndarray) or rng.random() < 0.2:
        return HOSTILE[int(rng.integers(len(HOSTILE)))]
    changes = [*MUTATIONS[2:], *POKES, *LAST, of(poke(SPECIAL))]
    return changes[int(rng.integers(len(changes)))](rng, value, [value])


def samples(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    n, d = int(rng.integers(1, 60)), int(rng.integers(1, 12))
    kind = str(rng.choice(["f2", "f4", "f8", "i4"]))
    return rng.normal(scale=9, size=(n, d)).round(int(rng.integers(3))).astype(kind)


def options(rng: np.random.Generator, X: Any) -> dict[str, Any]:
    """Some of the options that the quantising functions share, each valid."""
    every = {
        "sample_weight": rng.uniform(0, 2, size=len(X)),
        "init": str(rng.choice(["k-means++", "random"])),
        "n_init": int(rng.integers(1, 4)),
        "refine": str(rng.choice(["auto", "hartigan", "none"])),
        "max_iter": int(rng.integers(1, 30)),
        "random_state": int(rng.integers(100)),
        "n_threads": int(rng.integers(1, 4)),
    }
    return {name: value for name, value in every.items() if rng.random() < 0.4}


def method(rng: np.random.Generator, X: Any) -> dict[str, Any]:
    """Options of any of the methods."""
    kind = str(rng.choice(["lloyd", "lloyd", "clvq", "minibatch"]))
    if kind == "lloyd":
        return options(rng, X)
    steps = {"step": (2.0, 0.5), "clock": "point"} if kind == "clvq" else {}
    return {"method": kind, "random_state": int(rng.integers(100)), **steps}


def quantize(rng: np.random.Generator) -> dict[str, Any]:
    X = samples(rng)
    return {"X": X, "k": int(rng.integers(1, 9)), **method(rng, X)}


def quantize_classes(rng: np.random.Generator) -> dict[str, Any]:
    X = samples(rng)
    given = {"X": X, "y": rng.integers(0, 3, size=len(X)), **method(rng, X)}
    return {**given, "budget": int(rng.integers(1, 20))} if rng.integers(2) else {**given, "k": int(rng.integers(1, 4))}


def rate_distortion(rng: np.random.Generator) -> dict[str, Any]:
    X = samples(rng)
    return {"X": X, "y": rng.integers(0, 2, size=len(X)), "k": [1, 2, int(rng.integers(1, 9))], **options(rng, X)}


def online(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "k": int(rng.integers(1, 9)),
        "step": (2.0, 0.5),
        "clock": "global",
        "first": (X := samples(rng)),
        "second": X,
    }


def run_online(k: Any, step: Any, clock: Any, first: Any, second: Any) -> None:
    stream = ddoq.OnlineQuantizer(k, step=step, clock=clock)
    stream.update(first)
    stream.update(second)
    stream.quantization(first)


def estimator(rng: np.random.Generator) -> dict[str, Any]:
    X = samples(rng)
    return {"X": X, "n_clusters": int(rng.integers(1, 9)), "weight": rng.uniform(size=len(X))}


def run_estimator(X: Any, n_clusters: Any, weight: Any) -> None:
    fitted = ddoq.OptimalQuantizer(n_clusters, random_state=0).fit(X, sample_weight=weight)
    fitted.predict(X)
    fitted.transform(X)
    fitted.partial_fit(X)


def loss(rng: np.random.Generator) -> dict[str, Any]:
    kind = str(rng.choice(["index", "probs", "logits"]))
    B, C = int(rng.integers(1, 9)), int(rng.integers(1, 30))
    logits = torch.from_numpy(rng.normal(size=(B, C)))
    soft = torch.softmax(torch.from_numpy(rng.normal(size=(B, C))), dim=1)
    target = torch.from_numpy(rng.integers(0, C, size=B)) if kind == "index" else soft
    weight = torch.from_numpy(rng.uniform(size=B))
    return {"kind": kind, "temperature": 1.0, "smoothing": 0.0, "logits": logits, "target": target, "weight": weight}


def run_loss(kind: Any, temperature: Any, smoothing: Any, logits: Any, target: Any, weight: Any) -> None:
    ddoq.WeightedLoss(kind, temperature, smoothing)(logits, target, weight)


PUBLIC: dict[str, tuple[Any, Any]] = {
    "quantize": (quantize, lambda **given: ddoq.quantize(**given)),
    "ddoq.quantize_classes": (quantize_classes, lambda **given: ddoq.quantize_classes(**given)),
    "rate_distortion": (rate_distortion, lambda **given: ddoq.rate_distortion(**given)),
    "OnlineQuantizer": (online, run_online),
    "OptimalQuantizer": (estimator, run_estimator),
    "WeightedLoss": (loss, run_loss),
}


def run_case(name: str, seed: int, case: int) -> str:
    """One call: 'result' or 'refused'; any other exception comes out."""
    rng = np.random.default_rng([seed, case])
    if name in PUBLIC:
        make, function = PUBLIC[name]
        given = make(rng)
        for at in rng.permutation(len(given))[: int(rng.integers(0, 3))]:
            key = list(given)[at]
            with np.errstate(all="ignore"):
                given[key] = spoil(rng, given[key])
        arguments = []
    else:
        arguments, given, function = changed(rng, name, case), {}, getattr(core, name)
    try:
        function(*arguments, **given)
    except REFUSALS:
        return "refused"
    return "result"


def main() -> int:
    """Run the cases, one function after the other, until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", nargs=2, metavar=("NAME", "NUMBER"), help="run this one alone")
    parser.add_argument("--log", help="file that names the case in progress")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.case:
        print(run_case(asked.case[0], asked.seed, int(asked.case[1])))
        return 0
    names, outcomes, failures = [*VALID, *PUBLIC], Counter[tuple[str, str]](), 0
    end, case = time.monotonic() + asked.seconds, 0
    while time.monotonic() < end:
        name = names[case % len(names)]
        if asked.log:
            with open(asked.log, "w") as log:
                log.write(f"--seed {asked.seed} --case {name} {case}\n")
        try:
            outcomes[name, run_case(name, asked.seed, case)] += 1
        except Exception:
            failures += 1
            print(f"fuzz.py --seed {asked.seed} --case {name} {case}\n{traceback.format_exc()}", flush=True)
        case += 1
    for name in names:
        print(f"{name}: {outcomes[name, 'result']} results, {outcomes[name, 'refused']} refused")
    print(f"{case} cases, {failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
