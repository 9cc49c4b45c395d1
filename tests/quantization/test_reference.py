"""The NumPy reference against results worked out on paper, and its start and iterations against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans
from tolerances import HAND

from ddoq.quantization import reference

# The line 0 1 2 10 with weights 1 1 2 4: mean 45/8, cells {0 1 2} and {10}.
LINE = np.array([[0.0], [1.0], [2.0], [10.0]])
LINE_WEIGHTS = np.array([1.0, 1.0, 2.0, 4.0])


def test_weighted_line_by_hand() -> None:
    # start 0, 1 -> cells {0}, {1 2 10}: means 0, 45/7 -> cells {0 1 2}, {10}: means 5/4, 10 -> the same labels
    # distortion: (1 * 25/16 + 1 * 1/16 + 2 * 9/16 + 4 * 0) / 8 = (44/16) / 8 = 11/32
    fit = reference.quantize_class(LINE, LINE_WEIGHTS, 2, start_rows=[0, 1])
    assert_allclose(fit.points, [[1.25], [10.0]], rtol=HAND)
    assert_allclose(fit.weights, [0.5, 0.5], rtol=HAND)
    assert_array_equal(fit.counts, [3, 1])
    assert_array_equal(fit.labels, [0, 0, 0, 1])
    assert_allclose(fit.distortion, 11 / 32, rtol=HAND)
    assert fit.n_iter == 3


def test_iterations_stop_as_scikit_learn_by_hand() -> None:
    # one iteration from 0, 1: points are the means 0, 45/7 of {0}, {1 2 10}, labels the assignment to them
    fit = reference.quantize_class(LINE, LINE_WEIGHTS, 2, start_rows=[0, 1], max_iter=1)
    assert_allclose(fit.points, [[0.0], [45 / 7]], rtol=HAND)
    assert_array_equal(fit.labels, [0, 0, 0, 1])
    assert_allclose(fit.distortion, (1 + 2 * 4 + 4 * (25 / 7) ** 2) / 8, rtol=HAND)
    assert fit.n_iter == 1


def test_gram_form_distances_by_hand() -> None:
    # cells {(0,0) (2,0)} and {(0,3)}: means (1,0) and (0,3)
    X = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    G = reference.gram(X)
    assert_array_equal(G, [[0, 0, 0], [0, 4, 0], [0, 0, 9]])
    sums = reference.cells(G, np.ones(3), np.array([0, 0, 1]), 3)
    assert_allclose(reference.cell_distances(G, sums), [[1, 1, 10], [9, 13, 0], [np.inf] * 3], rtol=HAND)


def test_greedy_seeding_by_hand() -> None:
    # k 2: 2 trials. Masses 1 1 2 4 of 8: u = 0.3 -> 2.4, first cumulative 1 2 4 8 above it is sample 2 (x = 2).
    # w * distances to it: 4 1 0 256, cumulative 4 5 5 261: u = 0.01 -> 2.61 -> sample 0; u = 0.9 -> sample 3.
    # potential with sample 0: 1 + 4 * 64 = 257; with sample 3: 4 + 1 = 5: sample 3 is taken.
    G = reference.gram(LINE)
    assert_array_equal(reference.seed_greedy(G, LINE_WEIGHTS, 2, np.array([0.3, 0.01, 0.9])), [2, 3])
    # both trials sample 0: no choice
    assert_array_equal(reference.seed_greedy(G, LINE_WEIGHTS, 2, np.array([0.3, 0.01, 0.0])), [2, 0])


def test_equal_potentials_go_to_the_first_trial() -> None:
    # 10 and 11 are each other's nearest: with either beside 0 the potential is 1
    G = reference.gram(np.array([[0.0], [10.0], [11.0]]))
    assert_array_equal(reference.seed_greedy(G, np.ones(3), 2, np.array([0.0, 0.1, 0.9])), [0, 1])
    assert_array_equal(reference.seed_greedy(G, np.ones(3), 2, np.array([0.0, 0.9, 0.1])), [0, 2])


def test_seeding_never_takes_a_chosen_sample_or_its_duplicate() -> None:
    G = reference.gram(np.array([[1.0], [1.0], [1.0], [4.0]]))
    for u in (0.0, 0.5, 1.0 - 2.0**-53):
        assert_array_equal(reference.seed_greedy(G, np.ones(4), 2, np.array([0.0, u, u])), [0, 3])


def test_exchanges_by_hand() -> None:
    # seeds 0 and 1 leave 10 and 11 the distances 81 and 100: u = 0.2 draws 10. In place of 0 or of 1 it leaves 1 + 1:
    # a tie, 0 goes. Then 0 and 11 have mass 1 each: u = 0.9 draws 11, which is no better than 10, and 1 is missed more
    G = reference.gram(np.array([[0.0], [1.0], [10.0], [11.0]]))
    for numbers, seeds in (([0.2], [2, 1]), ([0.2, 0.9], [2, 1]), ([0.9], [3, 1])):
        assert_array_equal(reference.exchange_seeds(G, np.ones(4), np.array([0, 1]), np.array(numbers)), seeds)
    # with the weight 3 of sample 0 it is 1 that is missed less
    w = np.array([3.0, 1.0, 1.0, 1.0])
    assert_array_equal(reference.exchange_seeds(G, w, np.array([0, 1]), np.array([0.2])), [0, 2])
    # all samples are seeds or equal to one
    assert_array_equal(reference.exchange_seeds(G[:2, :2], w[:2], np.array([0, 1]), np.array([0.5])), [0, 1])


@pytest.mark.parametrize(("k", "trials"), [(1, 2), (2, 2), (3, 3), (7, 3), (8, 4), (20, 4), (21, 5), (200, 7)])
def test_trials_follow_scikit_learn(k: int, trials: int) -> None:
    assert reference.n_trials(k) == trials


def test_relocation_by_hand() -> None:
    # points 0, 50, 60: everything goes to cell 0, farthest first are samples 3 and 2
    distances = reference.start_distances(reference.gram(LINE), np.array([0, 0, 0]))
    distances[1:] += 1e6
    assert_array_equal(reference.relocate(np.array([0, 0, 0, 0]), distances), [0, 0, 2, 1])


def test_relocation_empties_no_cell() -> None:
    # sample 3 is farthest, but alone in cell 1: sample 2 goes to the empty cell
    distances = np.array([[0.0, 1.0, 4.0, 100.0], [81.0, 64.0, 49.0, 9.0], [1e6] * 4])
    assert_array_equal(reference.relocate(np.array([0, 0, 0, 1]), distances), [0, 0, 2, 1])


def test_empty_cell_by_hand() -> None:
    # start 0, 1, 100: cell 2 is empty, sample 3 (farthest) relocates there; cells {0} {1 2} {10}; then labels stay
    fit = reference.quantize_class(LINE, np.ones(4), 3, start_points=[[0.0], [1.0], [100.0]])
    assert_allclose(fit.points, [[0.0], [1.5], [10.0]], atol=HAND)
    assert_array_equal(fit.labels, [0, 1, 1, 2])


def test_hartigan_moves_what_lloyd_leaves_by_hand() -> None:
    # {0 3} {4.8}: means 1.5, 4.8. Lloyd leaves 3 (1.5 away, 1.8 to the other); moving it frees 2 * 2.25 = 4.5 and
    # costs 1/2 * 3.24 = 1.62: cells {0} {3 4.8}
    X = np.array([[0.0], [3.0], [4.8]])
    start = {"start_points": [[1.5], [4.8]]}
    assert_array_equal(reference.quantize_class(X, np.ones(3), 2, **start).labels, [0, 0, 1])  # type: ignore[arg-type]
    fit = reference.quantize_class(X, np.ones(3), 2, **start, use_hartigan=True)  # type: ignore[arg-type]
    assert_array_equal(fit.labels, [0, 1, 1])
    assert_allclose(fit.points, [[0.0], [3.9]], atol=HAND)
    assert_allclose(fit.distortion, 2 * 0.81 / 3, rtol=HAND)


def test_hartigan_weighs_the_moves_by_hand() -> None:
    # the same line with weight 3 on sample 0: mean of {0 3} = 0.75, moving 3 frees 4/3 * 5.0625 = 6.75, costs 1.62;
    # with weight 20 on sample 2 and 0.1 on sample 0: mean of {0 3} = 30/11, frees 11 * (3/11)^2 = 0.818 < 20/21 * 3.24
    X = np.array([[0.0], [3.0], [4.8]])
    G = reference.gram(X - X.mean())
    labels = np.array([0, 0, 1])
    assert_array_equal(reference.hartigan(G, np.array([3.0, 1.0, 1.0]), labels, 2), [0, 1, 1])
    assert_array_equal(reference.hartigan(G, np.array([0.1, 1.0, 20.0]), labels, 2), [0, 0, 1])
    assert_array_equal(labels, [0, 0, 1])


def test_assign_takes_the_lowest_index_of_a_tie() -> None:
    labels, distances = reference.assign([[1.0], [4.0]], [[0.0], [2.0], [2.0]])
    assert_array_equal(labels, [0, 1])
    assert_array_equal(distances, [1.0, 4.0])


def test_the_best_restart_wins() -> None:
    # from 0, 1 and from 2, 10 Lloyd ends at the optimum; from 0, 0 (empty cell relocated) as well; keep the first
    bad = reference.quantize_class(LINE, np.ones(4), 2, start_rows=[0, 1], max_iter=1)
    best = reference.quantize_class(LINE, np.ones(4), 2, start_rows=[[0, 1], [2, 3]], max_iter=1)
    assert best.distortion < bad.distortion
    assert_allclose(best.points, [[1.0], [10.0]], rtol=HAND)


@pytest.mark.parametrize("max_iter", [1, 2, 3, 300])
@pytest.mark.parametrize("weighted", [False, True])
def test_same_as_scikit_learn_from_the_same_start(max_iter: int, weighted: bool) -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(120, 6))
    w = rng.uniform(0.2, 3.0, size=120) if weighted else np.ones(120)
    start = X[rng.choice(120, 9, replace=False)]
    peer = KMeans(9, init=start, n_init=1, tol=0, max_iter=max_iter, algorithm="lloyd").fit(X, sample_weight=w)
    fit = reference.quantize_class(X, w, 9, start_points=start, max_iter=max_iter)
    assert_array_equal(fit.labels, peer.labels_)
    assert_allclose(fit.points, peer.cluster_centers_, rtol=0, atol=1e-12)
    assert_allclose(fit.distortion * w.sum(), peer.inertia_, rtol=HAND)
    assert fit.n_iter == peer.n_iter_


def test_relocates_as_scikit_learn() -> None:
    rng = np.random.default_rng(6)
    X, w = rng.normal(size=(90, 4)), rng.uniform(0.2, 3.0, size=90)
    start = np.concatenate([X[:5], np.full((1, 4), 50.0)])
    peer = KMeans(6, init=start, n_init=1, tol=0, algorithm="lloyd").fit(X, sample_weight=w)
    fit = reference.quantize_class(X, w, 6, start_points=start)
    assert_array_equal(fit.labels, peer.labels_)
    assert_allclose(fit.points, peer.cluster_centers_, rtol=0, atol=1e-12)
