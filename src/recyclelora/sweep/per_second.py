"""Expected improvement per second: cheap trials first, as long as they promise as much for their time.

Snoek, Larochelle and Adams 2012 (arXiv 1206.2944, section 3.2): one Gaussian process of the objective, another of the
logarithm of the seconds that trials took; of many random points the one with the largest EI(x) / seconds(x) comes next.
Both have a Matern 5/2 kernel with one length for all parameters, by the largest marginal likelihood on a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.stats import norm

from recyclelora.sweep.ledger import COMPLETE, Trial
from recyclelora.sweep.space import Space, nearest_value

Vector = NDArray[np.float64]

CANDIDATES = 512
LENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6)
NOISES = (1e-4, 1e-2, 1e-1)
"""Shares of the variance that are chance."""
MOST = 300
"""Trials that are learnt from, the latest ones: the cost grows with the third power."""


def cheapest_improvement(
    space: Space,
    trials: Sequence[Trial],
    *,
    maximize: bool,
    seed: int,
    enough: int,
    earlier: Sequence[tuple[Mapping[str, Any], float]] = (),
) -> dict[str, Any] | None:
    """The parameters with the largest expected improvement per second; None while too little is known.

    Trials on their way count as if they had found what is expected of them, so that several at a time are not alike.
    What trials of other studies found counts, what they took does not: that was another machine or model. Before the
    first trial here has finished all points cost the same.

    Args:
        space: what varies
        trials: of the search
        maximize: whether more is better
        seed: of this choice
        enough: finished trials before anything is learnt
        earlier: parameters and values of another study's trials
    """
    timed = [t for t in trials if t.state == COMPLETE and t.value is not None and seconds_of(t) > 0][-MOST:]
    known = [*earlier, *((t.params, t.value) for t in timed)][-MOST:]
    if len(known) < enough:
        return None
    candidates = _random_points(space, seed)
    at = np.array([vector(space, params) for params, _ in known])
    values = np.array([value for _, value in known], dtype=float) * (1 if maximize else -1)
    there = np.array([vector(space, params) for params in candidates])
    cost = np.zeros(len(there))
    if timed:  # the last of those known
        cost = Process.fit(at[-len(timed) :], np.log([seconds_of(t) for t in timed])).predict(there)[0]
    going = [t.params for t in trials if not t.ended]
    process = Process.fit(at, values)
    if going:
        expected = np.array([vector(space, params) for params in going])
        process = process.given(expected, process.predict(expected)[0])
    mean, deviation = process.predict(there)
    gain = np.log(improvement(mean, deviation, float(values.max())) + 1e-300)
    return candidates[int(np.argmax(gain - cost))]


def seconds_of(trial: Trial) -> float:
    """For which a trial's attempts ran."""
    return sum(attempt.seconds for attempt in trial.attempts)


def vector(space: Space, params: Mapping[str, Any]) -> list[float]:
    """A point as numbers between 0 and 1: one for a number, on its own scale, and one for each choice."""
    found: list[float] = []
    for key, distribution in space.distributions.items():
        if isinstance(distribution, CategoricalDistribution):
            found += [float(params.get(key) == choice) for choice in distribution.choices]
            continue
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        scale = np.log if distribution.log else float
        low, high = scale(distribution.low), scale(distribution.high)
        found.append((scale(params[key]) - low) / (high - low) if key in params and high > low else 0.5)
    return found


def _random_points(space: Space, seed: int) -> list[dict[str, Any]]:
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(CANDIDATES):
        params: dict[str, Any] = {}
        for key, distribution in space.distributions.items():
            if space.active(key, params):
                params[key] = _drawn(distribution, chance)
        found.append(params)
    return found


def _drawn(distribution: BaseDistribution, chance: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(chance.integers(len(distribution.choices)))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, share = distribution.low, distribution.high, float(chance.random())
    value = float(np.exp(np.log(low) + share * np.log(high / low))) if distribution.log else low + share * (high - low)
    return nearest_value(distribution, value)


def improvement(mean: Vector, deviation: Vector, best: float) -> Vector:
    """Expected improvement of normal distributions over the best value: ``(m - b) cdf(z) + s pdf(z)``."""
    z = (mean - best) / deviation
    found: Vector = (mean - best) * norm.cdf(z) + deviation * norm.pdf(z)
    return np.maximum(found, 0.0)


@dataclass(frozen=True)
class Process:
    """A Gaussian process given some values.

    Points have shape (n, d), each parameter between 0 and 1; values have shape (n,).
    """

    at: Vector
    values: Vector
    length: float
    noise: float
    """as a share of the variance"""
    centre: float
    scale: float
    """mean and deviation by which values are made standard"""

    @classmethod
    def fit(cls, at: Vector, values: Vector) -> Process:
        """With the length and the noise that make the values most likely."""
        centre, scale = float(values.mean()), float(values.std()) or 1.0
        made = [cls(at, values, length, noise, centre, scale) for length in LENGTHS for noise in NOISES]
        return max(made, key=lambda process: process.log_likelihood)

    def given(self, at: Vector, values: Vector) -> Process:
        """Given more values, with the same kernel."""
        both = np.concatenate([self.at, at]), np.concatenate([self.values, values])
        return Process(*both, self.length, self.noise, self.centre, self.scale)

    @cached_property
    def _solved(self) -> tuple[Vector, Vector, Vector]:
        """Standard values, the Cholesky factor of their covariance, and the covariance's inverse times them."""
        standard = (self.values - self.centre) / self.scale
        factor = cholesky(matern(self.at, self.at, self.length) + self.noise * np.eye(len(standard)), lower=True)
        return standard, factor, cho_solve((factor, True), standard)

    @property
    def log_likelihood(self) -> float:
        """Of the standard values, up to a constant."""
        standard, factor, weights = self._solved
        return float(-0.5 * standard @ weights - np.log(np.diag(factor)).sum())

    def predict(self, points: Vector) -> tuple[Vector, Vector]:
        """Mean and standard deviation, without chance, at points of shape (m, d); each of shape (m,)."""
        _, factor, weights = self._solved
        between = matern(points, self.at, self.length)
        inside = solve_triangular(factor, between.T, lower=True)
        variance = np.maximum(1 - (inside**2).sum(0), 1e-12)
        return self.centre + self.scale * (between @ weights), self.scale * np.sqrt(variance)


def matern(a: Vector, b: Vector, length: float) -> Vector:
    """Matern 5/2, ``(1 + r + r^2 / 3) exp(-r)`` with ``r = sqrt(5) |a - b| / length``: (n, d) and (m, d) to (n, m)."""
    r = np.sqrt(5 * ((a[:, None, :] - b[None, :, :]) ** 2).sum(-1)) / length
    found: Vector = (1 + r + r**2 / 3) * np.exp(-r)
    return found
