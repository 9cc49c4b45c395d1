"""The CUDA kernel of the weighted loss in NumPy: the same threads, the same order of every sum, float32.

`lay_out` is the kernel's layout of a row (csrc/cuda/loss_rows.cuh), `weighted_loss` its algorithm (csrc/cuda/loss.cu).
Exponentials and logarithms are rounded correctly here and have errors of about 2^-22 on the device: all else is the
same to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

WARP, HELD, WARPS, PARTS = 32, 32, 8, 16384
F = np.float32
LN2, TOLERANCE, TINY = F(0.693147180559945309), F(1e-2), F(2.0**-126)
Array = np.ndarray[Any, Any]


@dataclass
class Result:
    loss: float
    gradient: Array  # float32, before it is rounded to the logits' type
    rows: Array  # float32: each row's weighted loss


def lay_out(classes: int, width: int) -> Array:
    """Entries of a row by part, thread and place; those from `classes` on are past its end."""
    warps = min(WARPS, -(-classes // (WARP * HELD)))
    parts = -(-classes // (warps * WARP * HELD))
    part, thread, place = np.ogrid[:parts, : warps * WARP, :HELD]
    first = part * warps * WARP * HELD + thread // WARP * (WARP * HELD) + thread % WARP * width
    return np.asarray(first + place // width * width * WARP + place % width)


def place_of(entry: Array, width: int) -> tuple[Array, Array]:
    """The number of the thread, counted through all parts, and the place there: how a class of top-k is marked."""
    thread = entry // (WARP * HELD) * WARP + entry % (WARP * width) // width
    return thread, entry % (WARP * HELD) // (WARP * width) * width + entry % width


def fma(x: Array, scale: np.float32, shift: np.float32) -> Array:
    with np.errstate(invalid="ignore"):  # infinities and NaN are passed on
        return (x.astype(float) * float(scale) - float(shift)).astype(F)


def exp2(x: Array) -> Array:
    found = np.exp2(x.astype(F))
    return np.where(np.abs(found) < TINY, F(0), found)


def thread_sums(terms: Array) -> Array:
    """Each thread's terms (parts, threads, places) added in their order."""
    total = np.zeros(terms.shape[1], F)
    with np.errstate(invalid="ignore"):
        for part in terms:
            for place in range(part.shape[1]):
                total = total + part[:, place]
    return total


def reduce(x: Array) -> Any:
    """A row's threads' numbers added: a butterfly in the warps, then the warps in their order."""
    lanes = x.reshape(-1, WARP)
    with np.errstate(invalid="ignore"):
        far = WARP // 2
        while far:
            lanes = lanes + lanes[:, np.arange(WARP) ^ far]
            far //= 2
        total = lanes[0, 0]
        for warp in lanes[1:]:
            total = total + warp[0]
    return total


def divergence(p: Array, z: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.abs(p) >= TINY, p * (np.log2(p) - z), F(0)).astype(F)


def log2(x: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log2(F(x))


class Row:
    """One row of logits s, in the places of its threads."""

    def __init__(self, s: Array, scale2: np.float32, width: int) -> None:
        self.entries = lay_out(len(s), width)
        self.inside = self.entries < len(s)
        self.scale2 = scale2
        self.s = self.spread(s, -math.inf)
        self.most2 = self.largest2(self.s)
        self.z = fma(self.s, scale2, self.most2)
        self.e = exp2(self.z)
        self.sum = reduce(thread_sums(self.e))

    def spread(self, x: Array, pad: float) -> Array:
        return np.where(self.inside, x[np.minimum(self.entries, len(x) - 1)], F(pad)).astype(F)

    def largest2(self, x: Array) -> np.float32:
        return F(np.fmax.reduce(x, axis=None)) * self.scale2

    def total(self, terms: Array, where: Array) -> Any:
        return reduce(thread_sums(np.where(where, terms, F(0))))

    def gather(self, x: Array) -> Array:
        found = np.empty(int(self.inside.sum()), F)
        found[self.entries[self.inside]] = x[self.inside]
        return found


def index_row(row: Row, s: Array, y: int, factor: np.float32, eps: float) -> tuple[Any, Array]:
    n = len(s)
    if not 0 <= y < n:
        return F(math.nan), np.full(n, math.nan, F)
    z_named, small = fma(s[y], row.scale2, row.most2), F(eps)
    loss = log2(row.sum) - z_named
    if small > 0:
        loss = (1 - small) * loss + small * (log2(row.sum) - row.total(row.z, row.inside) / F(n))
    gradient = fma(row.gather(row.e), factor / row.sum, F(eps / n) * factor)
    gradient[y] = fma(exp2(z_named), factor / row.sum, F(1 - eps + eps / n) * factor)
    return LN2 * loss, gradient


def logits_row(row: Row, t: Array, factor: np.float32) -> tuple[Any, Array]:
    spread = row.spread(t, -math.inf)
    z = fma(spread, row.scale2, row.largest2(spread))
    e = exp2(z)
    mass = reduce(thread_sums(e))
    with np.errstate(invalid="ignore"):
        cross = row.total((e * (z - row.z)).astype(F), e != 0)
        loss = LN2 * (cross / mass - log2(mass) + log2(row.sum))
        return loss, row.gather(row.e * (factor / row.sum) - e * (factor / mass))


def soft_row(row: Row, target: Array, indices: Array | None, factor: np.float32, width: int) -> tuple[Any, Array]:
    """A row of probabilities, or of top-k where there are indices."""
    n, rest, bad = int(row.inside.sum()), F(0), F(math.nan)
    if indices is None:
        t = row.spread(target, 0)
        mass, cross = reduce(thread_sums(t)), reduce(thread_sums(divergence(t, row.z)))
        whole = True
    else:
        whole, threads = len(target) == n, row.entries.shape[1]
        marked, good = np.zeros((row.entries.shape[0] * threads, HELD), bool), []
        for y, value in zip(indices, target, strict=True):
            at = place_of(y, width) if 0 <= y < n else None
            good.append(at is not None and value >= 0 and not marked[at])
            if at is not None:
                marked[at] = True
        pad = -len(target) % threads
        values = np.pad(np.where(good, target, bad).astype(F), (0, pad)).reshape(-1, 1, threads).transpose(0, 2, 1)
        mass = reduce(thread_sums(values))
        named = np.where((indices >= 0) & (indices < n), indices, 0)
        zs = row.gather(row.z)[named]
        mine = np.where((indices >= 0) & (indices < n), divergence(target, zs), F(0))
        cross = reduce(thread_sums(np.pad(mine, (0, pad)).reshape(-1, 1, threads).transpose(0, 2, 1)))
        unnamed = row.inside & ~marked.reshape(row.entries.shape)
    if not mass <= 1 + TOLERANCE or (whole and mass < 1 - TOLERANCE) or np.isnan(cross):
        factor = cross = bad
    if not whole and mass < 1:
        rest = (1 - mass) / F(n - len(target))
        cross = cross + ((1 - mass) * log2(rest) - rest * row.total(row.z, unnamed))
        mass = F(1)
    scale = factor * mass / row.sum
    with np.errstate(invalid="ignore"):
        if indices is None:
            return LN2 * (cross + mass * log2(row.sum)), row.gather(row.e * scale - t * factor)
        gradient = fma(row.gather(row.e), scale, rest * factor)
        inside = (indices >= 0) & (indices < n)
        gradient[indices[inside]] = exp2(zs[inside]) * scale - target[inside] * factor
        return LN2 * (cross + mass * log2(row.sum)), gradient


def weighted_loss(
    logits: Array,
    soft: Array | None,
    indices: Array | None,
    weight: Array,
    target: str,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
) -> Result:
    """The loss of logits (B, C), targets and weights (B,), of values that float32 holds, and its gradient."""
    rows, classes = logits.shape
    width = 4 if classes % 4 == 0 and classes <= WARPS * WARP * HELD else 1
    share, scale, scale2 = F(1 / rows), F(1 / temperature), F(1.4426950408889634 / temperature)
    gradient, losses = np.empty((rows, classes), F), np.empty(rows, F)
    for i in range(rows):
        w = F(weight[i])
        w = w if w >= 0 and w < math.inf else F(math.nan)
        row = Row(logits[i].astype(F), scale2, width)
        if target == "index":
            assert indices is not None
            found = index_row(row, logits[i].astype(F), int(indices[i]), w * share, label_smoothing)
        else:
            assert soft is not None
            t, factor = soft[i].astype(F), w * share * scale
            if target == "logits":
                found = logits_row(row, t, factor)
            else:
                found = soft_row(row, t, None if indices is None else indices[i], factor, width)
        losses[i], gradient[i] = w * found[0], found[1]
    return Result(add_rows(losses, classes), gradient, losses)


def add_rows(losses: Array, classes: int) -> float:
    """The rows' mean: parts of neighbouring rows, then the last block's threads, all in float64."""
    in_part = (len(losses) - 1) // PARTS + 1
    parts = [float(np.cumsum(losses[i : i + in_part].astype(float))[-1]) for i in range(0, len(losses), in_part)]
    threads = WARP * min(WARPS, -(-classes // (WARP * HELD))) if classes > WARP * HELD else WARP * WARPS
    padded = np.pad(np.array(parts), (0, -len(parts) % threads)).reshape(-1, threads)
    return float(F(reduce(np.cumsum(padded, axis=0)[-1]) / len(losses)))
