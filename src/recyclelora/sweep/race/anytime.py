"""Decisions between runs of paired seeds that may be looked at after every seed.

A t-test is valid for a number of seeds that was fixed beforehand: who looks after each and stops when it says
"better" is wrong far more often than it says. The tests here are e-processes: under the hypothesis, the chance that one
ever reaches 1 / alpha is at most alpha, whenever one stops and for whatever reason (Ville, 1939). The one for a mean
with unknown variance is the ratio of scale-invariant likelihoods with a normal mixture over effect sizes (Robbins,
1970; Lai, 1976; Wang and Ramdas, 2024, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown
variance", theorem 4.7).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALPHA = 0.05
"""Of all claims of a report or a race together: the chance that any is false."""
ROUNDING = 1e-12
"""A spread below this part of the values is rounding: they are the same."""
PRECISION = 0.25
"""Of the mixture: effects, in standard deviations of a paired difference, are normal with this inverse variance. The
fewest seeds on average for differences of 1.5 to 3 standard deviations (benchmarks/racing.py)."""
FAR = 1000
"""More seeds than this nobody trains: a difference that would need them stays undecided."""


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (1979): with it the chance of any false claim among all stays below the level."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = highest
    return adjusted


def log_e(differences: np.ndarray) -> np.ndarray:
    """Natural logarithm of the e-process after each of the differences, (..., n) from (..., n).

    Against the hypothesis that they are independent and normal with mean zero; differences that are all zero say
    nothing. The first one alone says nothing either, as its spread is not known.
    """
    n = np.arange(1, differences.shape[-1] + 1)
    return _log_e_of(n, np.cumsum(differences, -1), np.cumsum(differences**2, -1))


def _log_e_of(n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """The same of n differences from their sum and the sum of their squares."""
    weighted = (n + PRECISION) * squares
    ratio = np.divide(weighted, weighted - total**2, out=np.ones_like(weighted), where=squares > 0)
    found: np.ndarray = 0.5 * np.log(PRECISION / (n + PRECISION)) + n / 2 * np.log(ratio)
    return np.where(squares > 0, found, 0.0)


def anytime_p(differences: Sequence[float]) -> float | None:
    """p of a mean of zero that holds whenever one stops: 1 / the largest that the e-process has been.

    None for fewer than two differences, and for equal ones that are not zero: they show no spread.
    """
    values = np.asarray(differences, np.float64)
    if len(values) < 2:
        return None
    if values.std() <= ROUNDING * np.abs(values).max():
        return None if values.any() else 1.0
    return float(min(1.0, math.exp(-log_e(values).max())))


def confidence_sequence(differences: Sequence[float], alpha: float = ALPHA) -> tuple[float, float] | None:
    """Interval that holds the true mean after every number of differences at once, with probability 1 - alpha.

    None where these are too few for any bound.
    """
    values = np.asarray(differences, np.float64)
    n = len(values)
    if n < 2:
        return None
    # All means m with log_e(values - m) < log(1 / alpha); with q = n (mean - m)^2 this is linear in q.
    bound = math.exp(2 / n * (0.5 * math.log((n + PRECISION) / PRECISION) - math.log(alpha)))
    slope = bound * n - (n + PRECISION) * (bound - 1)
    if slope <= 0:
        return None
    half = math.sqrt((n + PRECISION) * (bound - 1) * float(values.var()) / slope)
    mean = float(values.mean())
    return mean - half, mean + half


def more_needed(differences: Sequence[float], alpha: float = ALPHA) -> int | None:
    """Estimate of how many more differences decide, if mean and spread stay what they are.

    Args:
        differences: so far
        alpha: the level at which one comparison is decided: of K under Holm, ALPHA / K at worst

    Returns:
        0 where it is decided already, None where nothing can be said or more than `FAR` are needed.
    """
    values = np.asarray(differences, np.float64)
    p = anytime_p(differences)
    if p is None:
        return None
    if p <= alpha:
        return 0
    mean, variance = float(values.mean()), float(values.var(ddof=1))
    n = np.arange(len(values) + 1, FAR + 1)
    expected = _log_e_of(n, n * mean, (n - 1) * variance + n * mean**2)
    enough = np.flatnonzero(expected >= -math.log(alpha))
    return int(n[enough[0]]) - len(values) if len(enough) else None


def least_seeds(alpha: float) -> int:
    """The fewest differences that can decide anything at a level: as many equal ones would only just do."""
    n = 2
    while (n - 1) / 2 * math.log((n + PRECISION) / PRECISION) < -math.log(alpha):
        n += 1
    return n


@dataclass(frozen=True)
class Decision:
    """What a race says of one candidate against its reference."""

    verdict: str
    """``better``, ``worse`` or ``undecided``"""
    seeds: int
    """paired, after which it was decided, or that there are"""
    more: int | None
    """estimate of the seeds still needed; 0 where it is decided, None where nobody would train so many"""
    p: float | None
    """anytime-valid and adjusted for all candidates (Holm)"""

    def __str__(self) -> str:
        return self.against()

    def against(self, name: str = "") -> str:
        """In words; ``name`` is what it is against."""
        after = f"after {self.seeds} seed{'s' * (self.seeds != 1)}"
        if self.verdict != "undecided":
            return f"{self.verdict}{f' than {name}' * bool(name)}, decided {after}"
        more = f", about {self.more} more would decide" if self.more else ""
        return f"undecided{f' against {name}' * bool(name)} {after}{more}"


def decide(differences: Sequence[Sequence[float]], alpha: float = ALPHA) -> list[Decision]:
    """Decide every candidate against the reference; the chance of any false claim among all stays below ``alpha``.

    Candidates may have different numbers of seeds, and may have stopped whenever their decision was known: p values
    that hold at any time go through Holm's procedure as others do.

    Args:
        differences: of each candidate minus the reference on their common seeds, in the order in which these were run
        alpha: of all claims together
    """
    known = [anytime_p(values) for values in differences]
    adjusted = holm([1.0 if p is None else p for p in known])  # who has no p yet is one of them all the same
    adjusted = [None if p is None else found for p, found in zip(known, adjusted, strict=True)]
    left = sum(p is None or p > alpha for p in adjusted)
    decisions = []
    for values, p in zip(differences, adjusted, strict=True):
        if p is not None and p <= alpha:
            decisions.append(Decision("better" if np.mean(values) > 0 else "worse", len(values), 0, p))
        else:
            more = more_needed(values, alpha / max(left, 1))
            decisions.append(Decision("undecided", len(values), more if more is None else max(more, 1), p))
    return decisions
