"""The CUDA part, where it is built: positional arguments, as of `_core` (see _backend)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

def look() -> tuple[str | None, int, int, tuple[tuple[str, int, int, int], ...], str]:
    """Tell what there is.

    The runtime's problem or None, the CUDA versions of driver (0: none) and build as 1000 major + 10 minor, each
    device's name, compute capability (major, minor) and bytes of memory, and what the build is for, as "80,90".
    """

def load_cublas(*paths: str) -> None:
    """Load cuBLAS, unless that is done; ImportError with what each attempt said."""

# What keeps a class from its result: nothing; too few samples that float32 tells apart; values that are not finite.
FINE: int
TOO_ALIKE: int
NOT_FINITE: int

def quantize_classes(
    X: NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint16] | object,  # (n, d), or a DLPack capsule of it
    sample_weight: NDArray[np.float64],  # this and what follows as for _core.quantize_classes
    rows: NDArray[np.int64],
    row_offsets: NDArray[np.int64],
    point_offsets: NDArray[np.int64],
    n_init: int,
    n_starts: NDArray[np.int64],
    uniforms: NDArray[np.float64] | None,
    start_rows: NDArray[np.int64] | None,
    start_points: NDArray[np.float32] | None,
    max_iter: int,
    forms: NDArray[np.uint8],  # (C,) _core.GRAM; anything else: with single-point moves
    device: int,
    stream: int,  # that X and points on the device are ordered by
    memory: int,  # most bytes to take on the device; 0: what is free
    points: NDArray[np.float32] | object,  # out (K, d), or a DLPack capsule of it
    weights: NDArray[np.float64],  # out (K,)
    counts: NDArray[np.int64],  # out (K,)
    labels: NDArray[np.int64],  # out, as rows
    distortion: NDArray[np.float64],  # out (C,)
    n_iter: NDArray[np.int64],  # out (C,)
    problems: NDArray[np.uint8],  # out (C,) FINE, TOO_ALIKE or NOT_FINITE
    progress: Callable[[int], object] | None,
    /,
) -> None:
    """Quantise every class; the results of those with a problem are not written.

    ValueError or TypeError for bad arguments, MemoryError, ImportError without cuBLAS, RuntimeError for what CUDA says,
    or what progress or a signal handler raises.
    """

LOSS_WORKSPACE: int
LOSS_CLASSES: int
LOSS_TOPK_CLASSES: int

def weighted_loss(
    logits: int,
    logits_type: str,
    soft: int | None,
    soft_type: str | None,
    indices: int | None,
    weight: int,
    weight_type: str,
    target: str,
    n_rows: int,
    n_classes: int,
    k: int,
    temperature: float,
    label_smoothing: float,
    gradient: int,
    loss: int,
    workspace: int,
    device: int,
    stream: int,
) -> None:
    """Put the loss and its gradient by the logits into a stream: see csrc/cuda/loss.h. Addresses are the device's."""
