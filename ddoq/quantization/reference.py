"""Says in NumPy what the C core does: the textbook that it is tested against, never a fallback.

One class of n samples x_i with weights w_i becomes k points, in Gram form. After G = X Xt of the centred samples
nothing depends on the number of features: with W[j] the weight of cell j and its sums
    S[j, i] = sum over m in cell j of w_m G[m, i]        Q[j] = sum over i in cell j of w_i S[j, i]
the squared distance of sample i to the mean of cell j is
    |x_i - c_j|^2 = G[i, i] - 2 S[j, i] / W[j] + Q[j] / W[j]^2
Everything is float64. Ties go to the lowest index everywhere.
Sources: greedy k-means++ and the relocation of empty cells as in scikit-learn's KMeans; single-point moves as in
Hartigan 1975; exchanges of seeds as in Lattanzi and Sohler 2019.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TIE = 1e-12  # of two sums that differ by less than this share, the first counts as the lower: their order is rounding
HARTIGAN_GAIN = 1e-6  # relative gain below which a single-point move is not worth its rounding error


class Fit(NamedTuple):
    """Quantisation of one class: `points` (k, d), `weights` (k,) summing to one, `counts` (k,), `labels` (n,)."""

    points: Floats
    weights: Floats
    counts: Ints
    labels: Ints
    distortion: float
    n_iter: int


class Cells(NamedTuple):
    """Sums of the cells: `sums` S (k, n), `squares` Q (k,), `weights` W (k,), `counts` (k,)."""

    sums: Floats
    squares: Floats
    weights: Floats
    counts: Ints


def gram(X: ArrayLike) -> Floats:
    """Inner products of all rows, (n, n).

    >>> gram([[1.0, 2.0], [0.0, 3.0]])
    array([[5., 6.],
           [6., 9.]])
    """
    rows = np.asarray(X, dtype=np.float64)
    products: Floats = rows @ rows.T
    return products


def n_trials(k: int) -> int:
    """Candidates that greedy k-means++ tries for each point after the first, scikit-learn's number."""
    return 2 + int(np.log(k))


def seed_greedy(G: Floats, w: Floats, k: int, uniforms: Floats) -> Ints:
    """Indices (k,) of the samples that greedy k-means++ chooses.

    `uniforms` are 1 + (k - 1) * n_trials(k) numbers in [0, 1): one for the first, then n_trials(k) for each other.
    """
    trials = n_trials(k)
    seeds = [_first_above(np.cumsum(w), uniforms[0])]
    nearest = _sample_distances(G, seeds[0])
    for draws in uniforms[1 : 1 + (k - 1) * trials].reshape(k - 1, trials):
        masses = np.cumsum(w * nearest)
        if masses[-1] == 0.0:
            candidates = [min(set(range(len(w))) - set(seeds))]
        else:
            candidates = [_first_above(masses, u) for u in draws]
        after = [np.minimum(nearest, _sample_distances(G, i)) for i in candidates]
        best = _first_lowest([float(w @ distances) for distances in after])
        seeds.append(candidates[best])
        nearest = after[best]
    return np.array(seeds, dtype=np.int64)


def exchange_seeds(G: Floats, w: Floats, seeds: Ints, uniforms: Floats) -> Ints:
    """Indices (k,) of the samples after exchanges of seeds, with one drawn candidate for each of the numbers.

    It takes the place of the seed that is missed least, the first on ties, if the potential falls.
    """
    exchanged = seeds.copy()
    for u in uniforms:
        distances = start_distances(G, exchanged)
        masses = np.cumsum(w * distances.min(axis=0))
        potential = masses[-1]
        if potential == 0.0:
            break
        candidate = _first_above(masses, u)
        reached, position, least = _sample_distances(G, candidate), 0, np.inf
        for j in range(len(exchanged)):
            after = float(w @ np.minimum(np.delete(distances, j, axis=0).min(axis=0), reached))
            if after < least - TIE * potential:
                position, least = j, after
        if least < potential - TIE * potential:
            exchanged[position] = candidate
    return exchanged


def _first_lowest(sums: list[float]) -> int:
    """Index of the lowest sum; a later one must be lower by more than the share `TIE`.

    Two samples that are each other's nearest often have the same potential, so ties are real.
    """
    best = 0
    for i, value in enumerate(sums):
        if value < sums[best] * (1.0 - TIE):
            best = i
    return best


def _first_above(cumulative: Floats, u: float) -> int:
    """First index whose cumulative mass exceeds the share u: a sample of mass zero is never taken."""
    return int(np.argmax(cumulative > u * cumulative[-1]))


def _sample_distances(G: Floats, i: int) -> Floats:
    """Squared distances of all samples to sample i, (n,)."""
    distances: Floats = np.maximum(np.diag(G) - 2.0 * G[i] + G[i, i], 0.0)
    return distances


def start_distances(G: Floats, rows: Ints) -> Floats:
    """Squared distances (k, n) of all samples to the samples that are the starting points."""
    return np.stack([_sample_distances(G, int(i)) for i in rows])


def cells(G: Floats, w: Floats, members: Ints, k: int) -> Cells:
    """Sums of the cells of a membership (n,)."""
    mass = np.where(members == np.arange(k)[:, None], w, 0.0)
    sums = mass @ G
    return Cells(sums, (mass * sums).sum(axis=1), mass.sum(axis=1), np.bincount(members, minlength=k))


def cell_distances(G: Floats, cell: Cells) -> Floats:
    """Squared distances (k, n) of all samples to the cells' means; infinite for an empty cell."""
    distances = np.full_like(cell.sums, np.inf)
    full = cell.counts > 0
    W = cell.weights[full, None]
    distances[full] = np.diag(G) - 2.0 * cell.sums[full] / W + cell.squares[full, None] / W**2
    return distances


def relocate(labels: Ints, distances: Floats) -> Ints:
    """Membership (n,) in which every empty cell took a sample that is far from its point, and no other was emptied.

    `distances` (k, n) are those to the points that made `labels`. Empty cells are served in ascending order, the
    farthest samples go first.
    """
    members = labels.copy()
    counts = np.bincount(labels, minlength=len(distances))
    own_distance = distances[labels, np.arange(len(labels))]
    farthest_first = iter(np.argsort(-own_distance, kind="stable"))
    for cell in np.flatnonzero(counts == 0):
        sample = next((i for i in farthest_first if own_distance[i] > 0.0 and counts[members[i]] > 1), None)
        if sample is None:
            break
        counts[members[sample]] -= 1
        counts[cell] += 1
        members[sample] = cell
    return members


def lloyd(G: Floats, w: Floats, distances: Floats, max_iter: int) -> tuple[Ints, Ints, int]:
    """Lloyd's iterations from the distances (k, n) to the starting points, until the labels stay or `max_iter`.

    Returns labels (n,), the membership (n,) whose means the points are, and the number of iterations. The two differ
    only where `max_iter` was hit: the labels are then the assignment to the final points, as in scikit-learn.
    """
    k = len(distances)
    members = np.full(len(w), -1)
    for n_iter in range(1, max_iter + 1):
        labels = np.argmin(distances, axis=0)
        if np.array_equal(labels, members):
            return labels, members, n_iter
        members = relocate(labels, distances)
        distances = cell_distances(G, cells(G, w, members, k))
    return np.argmin(distances, axis=0), members, max_iter


def lloyd_streaming(rows: Floats, w: Floats, points: Floats, max_iter: int, tol: float) -> tuple[Ints, Ints, int]:
    """As `lloyd`, by coordinates from the points (k, d); also stops where the points hardly shift.

    That is where the sum of the squared shifts is at most tol times the mean of the features' variances, as in
    scikit-learn, whose variances have no weights.
    """
    members, n_iter, shift = np.full(len(w), -1), 0, np.inf
    least = tol * float(rows.var(axis=0).mean())
    while n_iter < max_iter and shift > least:
        n_iter += 1
        distances = point_distances(rows, points)
        labels = np.argmin(distances, axis=0)
        if np.array_equal(labels, members):
            return labels, members, n_iter
        members = relocate(labels, distances)
        before, points = points, means(rows, w, members, len(points))
        shift = float(((points - before) ** 2).sum())
    return np.argmin(point_distances(rows, points), axis=0), members, n_iter


def point_distances(rows: Floats, points: Floats) -> Floats:
    """Squared distances (k, n) of all samples to points (k, d)."""
    return np.stack([((rows - point) ** 2).sum(axis=1) for point in points])


def means(rows: Floats, w: Floats, members: Ints, k: int) -> Floats:
    """Weighted means (k, d) of the cells of a membership (n,); zeros for an empty cell."""
    points = np.zeros((k, rows.shape[1]))
    for cell in np.unique(members):
        inside = members == cell
        points[cell] = w[inside] @ rows[inside] / w[inside].sum()
    return points


def hartigan(G: Floats, w: Floats, labels: Ints, k: int) -> Ints:
    """Labels (n,) after single-point moves, each of which lowers the distortion, until none does.

    Moving sample i from cell a to cell b frees W_a / (W_a - w_i) |x_i - c_a|^2 and costs
    W_b / (W_b + w_i) |x_i - c_b|^2, both times w_i. Samples are visited in index order; a cell is never emptied.
    """
    labels = labels.copy()
    S, Q, W, counts = cells(G, w, labels, k)
    moved = True
    while moved:
        moved = False
        for i, w_i in enumerate(w):
            a = labels[i]
            if counts[a] == 1 or W[a] - w_i <= 0.0:
                continue
            distances = cell_distances(G[i : i + 1, i : i + 1], Cells(S[:, i : i + 1], Q, W, counts))[:, 0]
            freed = W[a] / (W[a] - w_i) * distances[a]
            cost = np.where(counts > 0, W / (W + w_i) * distances, 0.0)
            cost[a] = np.inf
            b = int(np.argmin(cost))
            if cost[b] < (1.0 - HARTIGAN_GAIN) * freed:
                for cell, step in ((a, -w_i), (b, w_i)):
                    Q[cell] += 2.0 * step * S[cell, i] + step**2 * G[i, i]
                    S[cell] += step * G[i]
                    W[cell] += step
                counts[a] -= 1
                counts[b] += 1
                labels[i] = b
                moved = True
    return labels


def assign(X: ArrayLike, points: ArrayLike) -> tuple[Ints, Floats]:
    """Index (n,) of the nearest point to each row, and the squared distance (n,) to it.

    >>> assign([[0.0], [5.0], [9.0]], [[1.0], [9.0]])
    (array([0, 0, 1]), array([ 1., 16.,  0.]))
    """
    rows, centres = np.asarray(X, dtype=np.float64), np.asarray(points, dtype=np.float64)
    distances = np.stack([((rows - centre) ** 2).sum(axis=1) for centre in centres])
    return np.argmin(distances, axis=0), distances.min(axis=0)


def quantize_class(
    X: ArrayLike,
    w: ArrayLike,
    k: int,
    *,
    uniforms: ArrayLike | None = None,
    start_rows: ArrayLike | None = None,
    start_points: ArrayLike | None = None,
    max_iter: int = 300,
    use_exchanges: bool = False,
    use_hartigan: bool = False,
    tol: float | None = None,
) -> Fit:
    """One whole class: X (n, d), positive weights w (n,), from exactly one kind of start; a row of it is one restart.

    uniforms (n_init, 1 + (k - 1) * n_trials(k)) | start_rows (n_init, k) sample indices | start_points (k, d).
    With tol it is the streaming form, otherwise the Gram form. Exchanges of seeds draw with the numbers of seeding, all
    but the first.
    """
    rows, w = np.asarray(X, dtype=np.float64), np.asarray(w, dtype=np.float64)
    mean = w @ rows / w.sum()
    G = gram(rows - mean)
    if uniforms is not None:
        seeds = [seed_greedy(G, w, k, draws) for draws in np.atleast_2d(uniforms)]
        if use_exchanges:
            draws_of = zip(seeds, np.atleast_2d(uniforms), strict=True)
            seeds = [exchange_seeds(G, w, seeds_of_start, draws[1:]) for seeds_of_start, draws in draws_of]
    else:
        seeds = list(np.atleast_2d(start_rows)) if start_rows is not None else []
    if tol is not None:
        starts = [rows[seeds_of_start] for seeds_of_start in seeds] or [np.asarray(start_points, dtype=np.float64)]
        results = [lloyd_streaming(rows, w, points, max_iter, tol) for points in starts]
    else:
        distances = [start_distances(G, seeds_of_start) for seeds_of_start in seeds]
        distances = distances or [point_distances(rows, np.asarray(start_points, dtype=np.float64))]
        results = [lloyd(G, w, distance, max_iter) for distance in distances]
    fits = [_fit(rows, w, k, *result) for result in results]
    spread = TIE * float(w @ np.diag(G)) / w.sum()
    best = fits[0]
    for fit in fits:
        if fit.distortion < best.distortion - spread:
            best = fit
    if use_hartigan:
        labels = hartigan(G, w, best.labels, k)
        best = _fit(rows, w, k, labels, labels, best.n_iter)
    return best


def _fit(rows: Floats, w: Floats, k: int, labels: Ints, members: Ints, n_iter: int) -> Fit:
    points = means(rows, w, members, k)
    weights = np.bincount(labels, weights=w, minlength=k) / w.sum()
    distortion = float(w @ ((rows - points[labels]) ** 2).sum(axis=1) / w.sum())
    return Fit(points, weights, np.bincount(labels, minlength=k), labels, distortion, n_iter)


def clvq(
    X: ArrayLike,
    points: ArrayLike,
    *,
    step: tuple[float, float],
    per_point: bool = False,
    weights: ArrayLike | None = None,
    wins: ArrayLike | None = None,
) -> tuple[Floats, Floats, Ints, Ints]:
    """Competitive learning vector quantisation, one sample after the other: points, weights, wins, winners.

    Step i has the size (1 + i / b)^-power, with `step` = (b, power) and i the number of steps before it; or, where
    `per_point`, the winner's wins before it. The weights then stay as they were.

    >>> clvq([[1.0], [8.0]], [[0.0], [6.0]], step=(1.0, 1.0))[:2]
    (array([[1.],
           [7.]]), array([0.5, 0.5]))
    """
    c = np.array(points, dtype=np.float64)
    k = len(c)
    w = np.full(k, 1 / k) if weights is None else np.array(weights, dtype=np.float64)
    n_wins = np.zeros(k, dtype=np.int64) if wins is None else np.array(wins, dtype=np.int64)
    winners = []
    for x in np.asarray(X, dtype=np.float64):
        j = int(((c - x) ** 2).sum(axis=1).argmin())
        i = n_wins[j] if per_point else n_wins.sum()
        g = (1 + i / step[0]) ** -step[1]
        c[j] = (1 - g) * c[j] + g * x
        if not per_point:
            w *= 1 - g
            w[j] += g
        n_wins[j] += 1
        winners.append(j)
    return c, w, n_wins, np.array(winners, dtype=np.int64)


def averaged_clvq(
    X: ArrayLike, points: ArrayLike, *, step: tuple[float, float], per_point: bool = False
) -> tuple[Floats, Floats]:
    """Means of the points and weights of `clvq` over the steps; where `per_point`, over the steps each point won.

    >>> averaged_clvq([[1.0], [8.0]], [[0.0], [6.0]], step=(1.0, 1.0))
    (array([[1. ],
           [6.5]]), array([0.75, 0.25]))
    """
    rows, start = np.asarray(X, dtype=np.float64), np.array(points, dtype=np.float64)
    c, w, wins = start, np.full(len(start), 1 / len(start)), np.zeros(len(start), dtype=np.int64)
    sums, weight_sums = np.zeros_like(c), np.zeros_like(w)
    for x in rows:
        c, w, wins, (j,) = clvq([x], c, step=step, per_point=per_point, weights=w, wins=wins)
        moved = [j] if per_point else slice(None)
        sums[moved] += c[moved]
        weight_sums += w
    clocks = (wins if per_point else np.full_like(wins, wins.sum()))[:, None]
    return np.where(clocks > 0, sums / np.maximum(clocks, 1), start), weight_sums / max(len(rows), 1)
