"""The compiled core: positional arguments, C-contiguous arrays, outputs allocated by the caller (see _backend)."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_Real: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
_Samples: TypeAlias = _Real | NDArray[np.float16] | NDArray[np.uint16]  # uint16 holds bfloat16; both widen to float32

# Forms that a class may have: Gram, with single-point moves, both in a sketch, streaming.
GRAM: int
GRAM_MOVES: int
SKETCH: int
STREAMING: int

def isas() -> tuple[str, ...]:
    """Names of the instruction sets this machine can run, worst to best."""

def quantize_classes(
    X: _Samples,  # (n, d)
    sample_weight: NDArray[np.float64],  # (n,), > 0 for the rows used
    rows: NDArray[np.int64],  # (m,) rows of X, class by class
    row_offsets: NDArray[np.int64],  # (C + 1,) into rows
    point_offsets: NDArray[np.int64],  # (C + 1,) into points
    n_init: int,
    n_starts: NDArray[np.int64],  # (C,) of them made by a class, 1 to n_init
    uniforms: NDArray[np.float64] | None,  # per class and restart 1 + (k - 1) * (2 + floor(ln k)) numbers in [0, 1)
    start_rows: NDArray[np.int64] | None,  # per class and restart k positions within the class
    start_points: _Real | None,  # (K, d), with n_init = 1; exactly one of the three is given
    max_iter: int,
    tol: float,  # of streaming: times the mean of the features' variances
    forms: NDArray[np.uint8],  # (C,) GRAM, GRAM_MOVES, SKETCH or STREAMING
    n_threads: int,
    isa: str,
    points: _Real,  # out (K, d), dtype of X, float32 for halves
    weights: NDArray[np.float64],  # out (K,), sums to 1 in each class
    counts: NDArray[np.int64],  # out (K,)
    labels: NDArray[np.int64],  # out (m,) index within the class of the nearest point
    distortion: NDArray[np.float64],  # out (C,) weighted mean squared distance
    n_iter: NDArray[np.int64],  # out (C,) Lloyd iterations of the kept restart
    progress: Callable[[int], object] | None,  # given the finished classes, about every 50 ms
    /,
) -> None:
    """Quantise every class.

    ValueError or TypeError for bad arguments, MemoryError, or what progress or a signal handler raises.
    """

def form_bytes(
    form: int,
    n: int,
    k: int,
    d: int,
    itemsize: int,  # of a real: 4, also for halves, or 8
    /,
) -> float:
    """Foretell the bytes that a class of n samples and k points takes while it is quantised, besides its arguments.

    Rows are counted as widened, and streaming with k-means++; what threads take for a moment is left out.
    """

def seed_trials(k: int, /) -> int:
    """Tell how many candidates a step of greedy k-means++ has: 2 + floor(ln k)."""

def largest(X: _Samples, n_threads: int, isa: str, /) -> float:
    """Give the greatest absolute value; NaN where there is one."""

def assign(
    X: _Samples,  # (n, d)
    points: _Real,  # (k, d), dtype of X, float32 for halves
    labels: NDArray[np.int64],  # out (n,) nearest point, the lowest index on ties
    dist2: NDArray[np.float64],  # out (n,) squared distance to it, accumulated in float64
    n_threads: int,
    isa: str,
    /,
) -> None:
    """Find every sample's nearest point."""

def clvq(
    X: _Real,  # (n, d), in the order of the steps
    points: _Real,  # in and out (k, d), dtype of X
    weights: NDArray[np.float64] | None,  # in and out (k,): one clock for all; None: each point's own clock
    wins: NDArray[np.int64],  # in and out (k,): their sum is the number of steps so far
    winners: NDArray[np.int64],  # out (n,)
    b: float,
    power: float,
    sums: NDArray[np.float64] | None,  # in and out (k, d): of each point over the first `summed` steps of its clock
    summed: NDArray[np.int64] | None,  # in and out (k,): after them the point has not moved
    weight_sums: NDArray[np.float64] | None,  # in and out (k,): of the weights over all steps
    n_threads: int,
    isa: str,
    /,
) -> None:
    """Take a step of size (1 + i / b)^-power for each sample; points, weights, wins and sums are the whole state."""

def gram(X: _Samples, out: _Real, isa: str, /) -> None:
    """Write X X^T (n, n) to out, one thread; for the tests of the product."""

def weighted_loss(
    logits: _Real | NDArray[np.uint16],  # (B, C); uint16 holds bfloat16
    soft: _Real | NDArray[np.uint16] | None,  # (B, C), top-k (B, k); float64 if and only if logits are
    indices: NDArray[np.int64] | None,  # (B,), top-k (B, k)
    weight: _Real,  # (B,)
    target: str,
    temperature: float,
    label_smoothing: float,
    n_threads: int,
    isa: str,
    gradient: _Real | NDArray[np.uint16],  # out (B, C), dtype of logits
    /,
) -> float:
    """Weighted loss; its gradient by the logits goes to gradient.

    ValueError for weights, indices or probabilities out of range, TypeError for wrong dtypes, MemoryError.
    """
