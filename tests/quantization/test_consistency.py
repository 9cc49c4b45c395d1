"""The talk's theorem where everything is known: |E f(mu_delta) - E f(nu_delta)| <= C Lip(f) W2(mu_T, nu_T).

The data measure mu is n atoms in a ball of radius R, so that the score of its noised law is closed: the noised law is a
mixture of n normals. mu and another measure nu are noised to T and reversed to delta by mu's score, by the
probability-flow ODE or by the reverse SDE, in which the two of a pair share the noise.

Both processes have g = 1: VE dx = dW, law alpha = 1, sigma^2 = t; VP dx = -x / 2 dt + dW, alpha = exp(-t / 2),
sigma^2 = 1 - exp(-t). The Jacobian of the score is -I / sigma^2 + alpha^2 Cov(x_0 | x_t) / sigma^4, and the covariance
at most R^2. By Gronwall two paths part at most by

    C = exp of the integral from delta to T of  -f + h (alpha^2 R^2 / sigma^4 - 1 / sigma^2),  h = 1/2 (ODE), 1 (SDE),

f = 0 (VE), -1/2 (VP): the constant of the theorem, explicit, and with it the theorem, path by path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.integrate import quad

from ddoq import quantize, w2

Floats = NDArray[np.float64]
DELTA, END, STEPS = 0.3, 2.5, 160
SLACK = 1.01  # of a bound: discretisation in STEPS steps


@dataclass(frozen=True)
class Process:
    name: str
    drift: float  # f
    alpha: Callable[[float], float]
    sigma: Callable[[float], float]

    def noised(self, x: Floats, noise: Floats, t: float) -> Floats:
        return self.alpha(t) * x + self.sigma(t) * noise

    def constant(self, radius: float, half: float) -> float:
        def rate(t: float) -> float:
            a, s = self.alpha(t), self.sigma(t)
            return -self.drift + half * (a**2 * radius**2 / s**4 - 1 / s**2)

        return float(np.exp(quad(rate, DELTA, END)[0]))


VE = Process("VE", 0.0, lambda t: 1.0, lambda t: t**0.5)
VP = Process("VP", -0.5, lambda t: float(np.exp(-t / 2)), lambda t: float(-np.expm1(-t)) ** 0.5)
BOTH = pytest.mark.parametrize("process", [VE, VP], ids=lambda process: process.name)


def score(process: Process, atoms: Floats, x: Floats, t: float) -> Floats:
    """Gradient of the log density of the noised atoms."""
    a, s = process.alpha(t), process.sigma(t)
    logits = -((x[:, None] - a * atoms) ** 2).sum(axis=2) / (2 * s**2)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return (a * shares @ atoms - x) / s**2


def by_ode(process: Process, atoms: Floats, x: Floats, steps: int = STEPS) -> Floats:
    """From END back to DELTA along the probability flow, by Heun's method."""

    def velocity(x: Floats, t: float) -> Floats:
        return process.drift * x - score(process, atoms, x, t) / 2

    times = np.geomspace(END, DELTA, steps + 1)
    for t, to in pairwise(times):
        first = velocity(x, t)
        x = x + (to - t) / 2 * (first + velocity(x + (to - t) * first, to))
    return x


def by_sde(process: Process, atoms: Floats, x: Floats, noise: np.random.Generator, steps: int = STEPS) -> Floats:
    """From END back to DELTA by the reverse SDE, Euler-Maruyama; the same generator gives the same noise."""
    times = np.geomspace(END, DELTA, steps + 1)
    for t, to in pairwise(times):
        drift = process.drift * x - score(process, atoms, x, t)
        x = x + (to - t) * drift + (t - to) ** 0.5 * noise.normal(size=x.shape)
    return x


@pytest.fixture(scope="module")
def atoms() -> Floats:
    """Sixty-four atoms in the unit disc, more of them on one side."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, 64), rng.uniform(0.1, 1, 64) ** 2
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def lipschitz(x: Floats) -> Floats:
    """Functions (6, n) with Lipschitz constant 1."""
    u = np.array([0.6, 0.8])
    anchors = np.array([[0.5, 0.0], [-0.3, 0.4]])
    nearest = np.linalg.norm(x[:, None] - anchors, axis=2).min(axis=1)
    return np.stack([x[:, 0], x @ u, np.linalg.norm(x, axis=1), np.sin(x @ u), nearest, np.abs(x).max(axis=1)])


# ---- the instruments -------------------------------------------------------------------------------------------------


@BOTH
def test_score_is_the_gradient_of_the_log_density(process: Process, atoms: Floats) -> None:
    def log_density(x: Floats, t: float) -> Floats:
        squares = ((x[:, None] - process.alpha(t) * atoms) ** 2).sum(axis=2)
        return np.log(np.exp(-squares / (2 * process.sigma(t) ** 2)).mean(axis=1))

    x, h = np.random.default_rng(1).normal(size=(7, 2)), 1e-5
    for t in (DELTA, 1.0, END):
        slopes = [(log_density(x + h * e, t) - log_density(x - h * e, t)) / (2 * h) for e in np.eye(2)]
        assert_allclose(score(process, atoms, x, t), np.stack(slopes, axis=1), rtol=1e-6, atol=1e-8)


@BOTH
def test_one_atom_by_hand(process: Process) -> None:
    """The flow of a single normal is linear: the noise that a sample has stays, its size shrinks with sigma."""
    atom, noise = np.array([[0.3, -0.7]]), np.random.default_rng(2).normal(size=(5, 2))
    found = by_ode(process, atom, process.noised(atom, noise, END))
    assert_allclose(found, process.noised(atom, noise, DELTA), atol=1e-4)


def test_vp_is_ve_in_other_units(atoms: Floats) -> None:
    """The x / alpha of VP follows VE in the variance (sigma / alpha)^2 of VP."""
    x = VP.noised(atoms, np.random.default_rng(3).normal(size=atoms.shape), END)
    times = np.geomspace(END, DELTA, STEPS + 1)
    variances = np.expm1(times)
    y = x / VP.alpha(END)
    for s, to in pairwise(variances):
        first = -score(VE, atoms, y, s) / 2
        y = y + (to - s) / 2 * (first - score(VE, atoms, y + (to - s) * first, to) / 2)
    assert_allclose(by_ode(VP, atoms, x), y * VP.alpha(DELTA), atol=1e-3)


@BOTH
@pytest.mark.parametrize("way", ["ode", "sde"])
def test_reversal_brings_the_data_back(process: Process, atoms: Floats, way: str) -> None:
    """The law at DELTA has the mean and covariance of the noised atoms."""
    rng = np.random.default_rng(4)
    x = process.noised(np.repeat(atoms, 64, axis=0), rng.normal(size=(4096, 2)), END)
    back = by_ode(process, atoms, x) if way == "ode" else by_sde(process, atoms, x, rng)
    a, s = process.alpha(DELTA), process.sigma(DELTA)
    assert_allclose(back.mean(axis=0), a * atoms.mean(axis=0), atol=0.05)  # 3 deviations of 4,096 samples
    assert_allclose(np.cov(back.T), a**2 * np.cov(atoms.T, bias=True) + s**2 * np.eye(2), atol=0.05)


# ---- the theorem -----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("way", ["ode", "sde"])
def test_theorem_for_every_number_of_points(process: Process, atoms: Floats, way: str) -> None:
    radius = float(np.linalg.norm(atoms, axis=1).max())
    constant = process.constant(radius, 0.5 if way == "ode" else 1.0)
    assert constant < 2.2  # small enough to say something

    def reverse(x: Floats) -> Floats:
        return by_ode(process, atoms, x) if way == "ode" else by_sde(process, atoms, x, np.random.default_rng(6))

    copies = np.repeat(np.arange(64), 4)
    noise = np.random.default_rng(5).normal(size=(256, 2))
    mu_T = process.noised(atoms[copies], noise, END)
    mu = reverse(mu_T)
    distances, differences = [], []
    for k in (1, 2, 4, 8, 16, 32, 64):
        q = quantize(atoms, k, n_init=3, random_state=0)
        nu_T = process.noised(q.points[q.labels][copies], noise, END)
        nu = reverse(nu_T)
        # path by path, and so for every coupling, every Lipschitz function and W1 and W2 at delta
        assert (np.linalg.norm(mu - nu, axis=1) <= SLACK * constant * np.linalg.norm(mu_T - nu_T, axis=1) + 1e-12).all()
        # the two laws of 256 atoms each are laws at T like any others: W2 between them is exact
        distance = w2(mu_T, nu_T, np.ones(256))
        assert distance <= process.alpha(END) * np.sqrt(q.distortion) * (1 + 1e-9) + 1e-12  # the noise in common
        difference = np.abs(lipschitz(mu).mean(axis=1) - lipschitz(nu).mean(axis=1)).max()
        bound = SLACK * constant * distance
        if way == "ode":  # with noise of its own for every pair, W2 of the samples alone bounds nothing
            assert difference <= bound + 1e-12
        assert difference <= SLACK * constant * process.alpha(END) * np.sqrt(q.distortion) + 1e-12
        distances.append(distance)
        differences.append(difference)
    assert distances[-1] == 0 == differences[-1]  # sixty-four points are the data
    assert differences[0] > 2 * differences[4] > 0  # and it goes down on the way


@BOTH
def test_noise_must_be_shared(process: Process, atoms: Floats) -> None:
    """With noise of their own even two equal laws part path by path, and their means by what 64 samples leave."""
    x = process.noised(atoms, np.random.default_rng(7).normal(size=atoms.shape), END)
    one, same, other = (by_sde(process, atoms, x, np.random.default_rng(seed)) for seed in (8, 8, 9))
    assert np.array_equal(one, same)
    assert np.linalg.norm(one - other, axis=1).mean() > 0.3
    assert np.abs(lipschitz(one).mean(axis=1) - lipschitz(other).mean(axis=1)).max() > 0.01


@BOTH
def test_the_constant_is_met(process: Process) -> None:
    """Between two atoms the covariance is R^2 all the way: there two paths part by the constant itself."""
    atoms = np.array([[-1.0, 0.0], [1.0, 0.0]])
    apart = by_ode(process, atoms, np.array([[0.0, 0.0], [1e-6, 0.0]]), 1000)
    assert_allclose(apart[0], 0, atol=1e-12)
    assert_allclose(apart[1, 0] / 1e-6, process.constant(1.0, 0.5), rtol=1e-3)


# ---- the rate, and what one draw per point leaves --------------------------------------------------------------------


@pytest.mark.parametrize(("d", "ks"), [(1, (4, 8, 16, 32)), (2, (8, 16, 32, 64)), (3, (8, 16, 32, 64, 128))])
def test_rate_of_quantisation(d: int, ks: tuple[int, ...]) -> None:
    """W2 of the best k points to a law with a density goes down as k^(-1/d) (Zador)."""
    X = np.random.default_rng(10).uniform(size=(6000, d))
    distances = [np.sqrt(quantize(X, k, n_init=2, random_state=0).distortion) for k in ks]
    slope = np.polyfit(np.log(ks), np.log(distances), 1)[0]
    assert slope == pytest.approx(-1 / d, rel=0.06)


@pytest.mark.parametrize("draws", [1, 4])
def test_error_of_a_few_draws_per_point(atoms: Floats, draws: int) -> None:
    """Its variance is the sum of squared weights times the variance at a point, over the draws: outside the theorem."""
    q = quantize(atoms, 8, n_init=3, random_state=0)
    repeats, rng = 300, np.random.default_rng(11)
    noise = rng.normal(size=(repeats, draws, 8, 2))
    values = lipschitz(by_ode(VE, atoms, VE.noised(q.points, noise, END).reshape(-1, 2), 40))
    values = values.reshape(-1, repeats, draws, 8)
    estimates = (values.mean(axis=2) * q.weights).sum(axis=2)
    variance = (q.weights**2 * values.var(axis=(1, 2))).sum(axis=1) / draws
    assert_allclose(estimates.var(axis=1), variance, rtol=0.35)  # 300 repeats: deviation 8 %
