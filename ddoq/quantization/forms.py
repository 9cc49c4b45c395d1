"""Chooses the form in which the core computes each class: a pure function of sizes and options."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ddoq.machine.backend import core
from ddoq.quantization.options import Form, Refine

GRAM, GRAM_MOVES, SKETCH, STREAMING = core.GRAM, core.GRAM_MOVES, core.SKETCH, core.STREAMING

# Single-point moves overfit where a cell has few samples: on latents of ImageNette (d 6,272) they left the distortion
# on held-out samples the same or lower at 17 samples a point and more, and raised it by 3 to 6 % at 5.
REFINE_FROM_SAMPLES_PER_POINT = 15

# From that many features on the Gram product is most of the work, and "auto" fits in a sketch: distortion in
# docs/quantiser.md.
SKETCH_FROM_FEATURES, SKETCH_FROM_SAMPLES, SKETCH_TO_POINTS = 1024, 512, 64

# The Gram form is for classes of some thousands, and for more where the moves have something to gain, as long as its
# matrix stays at 1 GiB of float32. A choice: streaming is the faster one well below these sizes.
GRAM_TO_SAMPLES, MOVES_TO_SAMPLES, MOVES_TO_SAMPLES_PER_POINT = 4096, 16_384, 100


def forms_of(form: Form, refine: Refine, n: NDArray[np.int64], k: NDArray[np.int64], d: int) -> NDArray[np.uint8]:
    """How each class of n samples and k points is quantised: GRAM, GRAM_MOVES, SKETCH or STREAMING.

    A pure function of sizes and options: if it looked at time or free memory, results would differ from run to run.
    """
    if form == "streaming":
        return np.full(len(k), STREAMING, dtype=np.uint8)
    if refine != "auto":
        forms = np.full(len(k), GRAM_MOVES if refine == "hartigan" else GRAM, dtype=np.uint8)
    else:
        forms = np.where(n >= REFINE_FROM_SAMPLES_PER_POINT * k, GRAM_MOVES, GRAM).astype(np.uint8)
        if d >= SKETCH_FROM_FEATURES:
            forms[(forms == GRAM_MOVES) & (n >= SKETCH_FROM_SAMPLES) & (k <= SKETCH_TO_POINTS)] = SKETCH
    if form == "auto" and refine != "hartigan":
        moves_pay = (forms != GRAM) & (n <= MOVES_TO_SAMPLES) & (n <= MOVES_TO_SAMPLES_PER_POINT * k)
        forms[(n > GRAM_TO_SAMPLES) & ~moves_pay] = STREAMING
    return forms


def curve_forms(forms: NDArray[np.uint8], largest: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How the numbers of points of a curve are quantised: as the class's largest k, so that they share its Gram matrix.

    Whether samples are moved is decided for each number of points, since the moves use the same matrix.
    """
    gram_forms = np.where(forms == GRAM, GRAM, GRAM_MOVES)
    shared: NDArray[np.uint8] = np.where(largest >= SKETCH, largest, gram_forms).astype(np.uint8)
    return shared
