"""The fit of csrc/cuda in NumPy: same blocks, same order of every addition, same types. Read it beside fit.cu.

G is float32, all else float64, without fused multiply-adds. A block has THREADS threads; where they share the samples,
thread t has the samples t, t + THREADS, ...; a warp that has a cell shares them by its LANES. From the same G the
kernels give these bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES, WARPS = 32, 8
THREADS = LANES * WARPS
TIE = 1e-12
LEAST_GAIN, MAX_SWEEPS = 1e-6, 1000
FAR_MEAN = 10
FINE, TOO_FAR, TOO_ALIKE, NOT_FINITE = range(4)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


# block.cuh


def shared_out(values: Floats, threads: int) -> Floats:
    """Each thread's sum of its values, in turn; (threads,)."""
    sums = np.zeros(threads)
    for start in range(0, len(values), threads):
        share = values[start : start + threads]
        sums[: len(share)] += share
    return sums


def warp_sum(lanes: Floats) -> float:
    """Sum of a warp's lanes, by halves."""
    step = LANES // 2
    while step > 0:
        lanes = lanes + lanes[np.arange(LANES) ^ step]
        step //= 2
    return float(lanes[0])


def block_sum(threads: Floats) -> float:
    """Sum of a block's threads: the warps in turn."""
    total = 0.0
    for warp in threads.reshape(WARPS, LANES):
        total += warp_sum(warp)
    return total


@dataclass
class Class:
    """As struct ddoq_cuda_class; `moves`: single-point moves follow."""

    gram: NDArray[np.float32]
    w: Floats
    k: int
    max_iter: int = 300
    moves: bool = False
    guarded: bool = False
    diagonal: Floats = field(init=False)
    sums: Floats = field(init=False)
    dist2: Floats = field(init=False)
    cell: Ints = field(init=False)
    label: Ints = field(init=False)
    target: Ints = field(init=False)
    count: Ints = field(init=False)
    squares: Floats = field(init=False)
    mass: Floats = field(init=False)
    scale: Floats = field(init=False)
    offset: Floats = field(init=False)
    seeds: Ints = field(init=False)

    def __post_init__(self) -> None:
        """Allocate."""
        self.sums = np.zeros((self.k, self.n))
        self.squares, self.mass, self.scale, self.offset = (np.zeros(self.k) for _ in range(4))
        self.cell, self.label, self.target = (np.zeros(self.n, dtype=np.int64) for _ in range(3))
        self.seeds = np.zeros(self.k, dtype=np.int64)

    @property
    def n(self) -> int:
        return len(self.gram)

    def row(self, i: int) -> Floats:
        return self.gram[i].astype(np.float64)


# seed.cuh


def mass_of(c: Class, by_distance: bool) -> Floats:
    return c.w * c.dist2 if by_distance else c.w


def accumulate(c: Class, by_distance: bool) -> Floats:
    """Sums of the masses up to and with each thread's share, (THREADS,); thread t has samples t * share and on."""
    masses, share = mass_of(c, by_distance), -(-c.n // THREADS)
    value = np.zeros(THREADS)
    for step in range(share):
        own = np.arange(THREADS) * share + step
        inside = own < c.n
        value[inside] += masses[own[inside]]
    warps, step = value.reshape(WARPS, LANES), 1
    while step < LANES:
        warps[:, step:] = warps[:, step:] + warps[:, :-step]
        step *= 2
    before, inclusive = 0.0, np.empty((WARPS, LANES))
    for warp in range(WARPS):
        inclusive[warp] = before + warps[warp]
        before += warps[warp, -1]
    return inclusive.ravel()


def draw(c: Class, inclusive: Floats, u: float, by_distance: bool) -> int:
    masses, share = mass_of(c, by_distance), -(-c.n // THREADS)
    threshold = u * inclusive[-1]
    above = np.flatnonzero(inclusive > threshold)
    thread = int(above[0]) if len(above) else THREADS
    end = min(c.n, (thread + 1) * share)
    cumulative = inclusive[thread - 1] if 0 < thread < THREADS else 0.0
    for i in range(thread * share, end):
        cumulative += masses[i]
        if cumulative > threshold:
            return i
    return nearest_with_mass(masses, end)


def nearest_with_mass(masses: Floats, end: int) -> int:
    before, after = np.flatnonzero(masses[:end] > 0), np.flatnonzero(masses[end:] > 0)
    return int(before[-1]) if len(before) else end + int(after[0]) if len(after) else 0


def nearer(c: Class, m: int, so_far: Floats | float) -> Floats:
    value = (c.diagonal + c.diagonal[m]) - 2 * c.row(m)
    return np.minimum(np.where(value < 0, 0, value), so_far)


def best_candidate(c: Class, inclusive: Floats, uniforms: Floats) -> int:
    best, least = 0, np.inf
    for t, u in enumerate(uniforms):
        m = draw(c, inclusive, u, True)
        potential = block_sum(shared_out(nearer(c, m, c.dist2) * c.w, THREADS))
        if t == 0 or potential < least * (1 - TIE):
            best, least = m, potential
    return best


def seed_greedy(c: Class, uniforms: Floats) -> bool:
    trials = 2 + int(np.log(c.k))
    m = draw(c, accumulate(c, False), uniforms[0], False)
    uniforms = uniforms[1:]
    for j in range(c.k):
        c.seeds[j] = m
        c.dist2 = nearer(c, m, np.inf if j == 0 else c.dist2)
        if j + 1 == c.k:
            break
        inclusive = accumulate(c, True)
        if not inclusive[-1] > 0:
            return False
        m = best_candidate(c, inclusive, uniforms[:trials])
        uniforms = uniforms[trials:]
    return True


# lloyd.cuh


def assign(c: Class, products: Floats) -> None:
    value = products * c.scale[:, None] + c.offset[:, None]
    c.label = value.argmin(axis=0)
    c.dist2 = value.min(axis=0) + c.diagonal


def assign_to_seeds(c: Class) -> None:
    c.scale[:] = -2
    c.offset = c.diagonal[c.seeds].copy()
    assign(c, c.gram[c.seeds].astype(np.float64))


def fill_empty_cells(c: Class) -> None:
    for j in range(c.k):
        if c.count[j] > 0:
            continue
        far = np.where((c.dist2 > 0) & (c.count[c.target] > 1), c.dist2, 0)
        if not far.any():
            break
        i = int(far.argmax())
        c.count[c.target[i]] -= 1
        c.count[j] = 1
        c.dist2[i] = 0
        c.target[i] = j


def list_cell(c: Class, j: int, first: bool) -> tuple[list[int], bool]:
    """Entries, ~i to take sample i out, and whether the sums are made afresh."""
    changed = 0 if first else int(((c.cell == j) != (c.target == j)).sum())
    fresh = first or (changed > 0 and int(c.count[j]) <= changed)
    if not fresh and changed == 0:
        return [], False
    was = np.zeros(c.n, dtype=bool) if fresh else c.cell == j
    now = c.target == j
    return [int(i) if now[i] else ~int(i) for i in np.flatnonzero(now != was)], fresh


def move_samples(c: Class, first: bool) -> None:
    for j in range(c.k):
        entries, fresh = list_cell(c, j, first)
        value = np.zeros(c.n) if fresh else c.sums[j]
        for entry in entries:
            m = ~entry if entry < 0 else entry
            value = value + (-c.w[m] if entry < 0 else c.w[m]) * c.row(m)
        c.sums[j] = value
    c.cell = c.target.copy()


def update_points(c: Class) -> None:
    for j in range(c.k):
        inside = c.cell == j
        mass = warp_sum(shared_out(np.where(inside, c.w, 0), LANES))
        square = warp_sum(shared_out(np.where(inside, c.w * c.sums[j], 0), LANES))
        empty = c.count[j] == 0
        c.mass[j], c.squares[j] = mass, square
        c.scale[j] = 0 if empty else -2 / mass
        c.offset[j] = np.inf if empty else square / mass / mass


def lloyd(c: Class) -> int:
    for n_iter in range(1, c.max_iter + 1):
        if n_iter > 1 and np.array_equal(c.label, c.cell):
            return n_iter
        c.target = c.label.copy()
        c.count = np.bincount(c.target, minlength=c.k)
        fill_empty_cells(c)
        move_samples(c, n_iter == 1)
        update_points(c)
        assign(c, c.sums)
    return c.max_iter


# hartigan.cuh


def distance(c: Class, i: int, j: Ints | int) -> Any:
    return c.diagonal[i] + (c.sums[j, i] * c.scale[j] + c.offset[j])


def cheapest(c: Class, i: int) -> int:
    own, w = int(c.cell[i]), c.w[i]
    rest = c.mass[own] - w
    if c.count[own] < 2 or not rest > 0:
        return own
    cost = c.mass[own] / rest * distance(c, i, own)
    if not cost > 0:
        return own
    with np.errstate(invalid="ignore"):  # an empty cell is at infinity, and costs nothing
        costs = np.where(c.count == 0, 0, c.mass / (c.mass + w) * distance(c, i, np.arange(c.k)))
    costs[own] = np.inf
    j = int(costs.argmin())
    return j if costs[j] < cost * (1 - LEAST_GAIN) else own


def set_point(c: Class, j: int) -> None:
    c.scale[j] = -2 / c.mass[j]
    c.offset[j] = c.squares[j] / c.mass[j] / c.mass[j]


def move(c: Class, i: int, own: int, target: int) -> None:
    w, norm = c.w[i], c.diagonal[i]
    c.squares[own] += w * (w * norm - 2 * c.sums[own, i])
    c.squares[target] += w * (w * norm + 2 * c.sums[target, i])
    c.mass[own] -= w
    c.mass[target] += w
    c.count[own] -= 1
    c.count[target] += 1
    c.cell[i] = target
    set_point(c, own)
    set_point(c, target)
    c.sums[own] += -w * c.row(i)
    c.sums[target] += w * c.row(i)


def hartigan(c: Class) -> None:
    """A warp's worth of samples is weighed at a time, and the first that would move does: one after the other."""
    c.target = c.label.copy()
    c.count = np.bincount(c.target, minlength=c.k)
    move_samples(c, False)
    update_points(c)
    moved, sweep = True, 0
    while moved and sweep < MAX_SWEEPS:
        moved, base, sweep = False, 0, sweep + 1
        while base < c.n:
            tile = range(base, min(base + LANES, c.n))
            targets = [cheapest(c, i) for i in tile]
            mover = next((i for i, target in zip(tile, targets, strict=True) if target != c.cell[i]), None)
            if mover is None:
                base += LANES
                continue
            move(c, mover, int(c.cell[mover]), targets[mover - base])
            moved, base = True, mover + 1
        update_points(c)
    c.label = c.cell.copy()


# fit.cu


def look_at_gram(c: Class) -> int:
    c.diagonal = np.diag(c.gram).astype(np.float64)
    if not np.isfinite(c.diagonal).all():
        return NOT_FINITE
    if not c.guarded:
        return FINE
    lanes = np.zeros((WARPS, LANES))
    for i in range(c.n):
        lanes[i % WARPS] += c.w[i] * shared_out(c.w * c.row(i), LANES)
    mass = block_sum(shared_out(c.w, THREADS))
    square = block_sum(shared_out(c.w * c.diagonal, THREADS)) / mass
    mean = block_sum(lanes.ravel()) / mass / mass
    return TOO_FAR if mean > FAR_MEAN * (square - mean) else FINE


@dataclass(frozen=True)
class Fit:
    """What one class ends with; `problem` other than FINE: nothing else counts."""

    problem: int
    cell: Ints
    label: Ints
    weights: Floats
    n_iter: int


def fit_class(c: Class, uniforms: NDArray[Any] | None = None, start_rows: NDArray[Any] | None = None) -> Fit:
    """One row of uniforms (n_init, ...) or start_rows (n_init, k) is a restart."""
    nothing = Fit(look_at_gram(c), c.cell, c.label, c.mass, 0)
    if nothing.problem != FINE:
        return nothing
    least, tie = np.inf, TIE * block_sum(shared_out(c.w * c.diagonal, THREADS))
    kept_cell, kept_label, kept_iter = c.cell, c.label, 0
    for restart, start in enumerate(uniforms if uniforms is not None else start_rows):  # type: ignore[arg-type]
        if start_rows is not None:
            c.seeds = start
        elif not seed_greedy(c, start):
            return Fit(TOO_ALIKE, c.cell, c.label, c.mass, 0)
        assign_to_seeds(c)
        n_iter = lloyd(c)
        found = block_sum(shared_out(c.w * c.dist2, THREADS))
        if restart > 0 and not found < least - tie:
            continue
        least, kept_cell, kept_label, kept_iter = found, c.cell.copy(), c.label.copy(), n_iter
    if c.moves:
        c.label = kept_label
        hartigan(c)
        kept_cell, kept_label = c.cell, c.label
    problem = FINE if len(np.unique(kept_cell)) == c.k else TOO_ALIKE
    total = block_sum(shared_out(c.w, THREADS))
    masses = [warp_sum(shared_out(np.where(kept_label == j, c.w, 0), LANES)) for j in range(c.k)]
    return Fit(problem, kept_cell, kept_label, np.array(masses) / total, kept_iter)


# rows.cu


def points(rows: NDArray[Any], w: Floats, fit: Fit, k: int) -> tuple[NDArray[np.float32], float]:
    """Points (k, d), and the distortion."""
    x, features = rows.astype(np.float64), 256
    made = np.zeros((k, x.shape[1]), dtype=np.float32)
    for j in range(k):
        total, mass = np.zeros(x.shape[1]), 0.0
        for i in np.flatnonzero(fit.cell == j):
            total += x[i] * w[i]
            mass += w[i]
        made[j] = (total / mass).astype(np.float32)
    own = np.zeros(x.shape[1])
    for i in range(len(x)):
        difference = x[i] - made[fit.label[i]]
        own += w[i] * (difference * difference)
    distortion = 0.0
    for start in range(0, x.shape[1], features):
        threads = np.zeros(features)
        threads[: len(own[start : start + features])] = own[start : start + features]
        distortion += block_sum(threads)
    return made, distortion / float(sum(w.tolist()))
