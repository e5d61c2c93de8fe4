"""Means, paired differences and their intervals; what may be claimed and what may not."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recyclelora.sweep.race.anytime import ALPHA, ROUNDING

LEVEL = 1 - ALPHA
SIMULATED = 20_000
"""Draws of normal scores behind a critical value; of 1 % it is then right to 0.1 %."""


@dataclass(frozen=True)
class Interval:
    """A mean of ``count`` values with its 95 % interval; ``low``, ``high`` and ``p`` need two values.

    ``p`` is two-sided, of the hypothesis that the mean is zero. Values that are all the same, and not zero, say nothing
    of how far others would be from them: they have neither interval nor p.
    """

    mean: float
    count: int
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def sign(self) -> int:
        """1 or -1 where zero lies outside, else 0."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; None where there are too few values."""
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def t_interval(values: Sequence[float]) -> Interval:
    """Student's interval of a mean of independent values, such as differences of paired seeds.

    Raises:
        ValueError: there is no value.
    """
    from scipy import stats

    mean, sd = mean_and_sd(values)
    if mean is None:
        raise ValueError("no values")
    if sd is None:
        return Interval(mean, 1)
    if sd <= ROUNDING * max(map(abs, values)):
        return Interval(mean, len(values)) if mean else Interval(0.0, len(values), 0.0, 0.0, 1.0)
    error, freedom = sd / math.sqrt(len(values)), len(values) - 1
    half = float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    return Interval(mean, len(values), mean - half, mean + half, p)


def pooled_p(differences: Sequence[float], scores: np.ndarray) -> list[float | None]:
    """Two-sided p of mean differences between groups, with the spread of all groups at once.

    The few seeds of two groups may lie together by chance. Here the spread is the residual of scores = group + seed +
    chance (randomised block design; Fisher, 1935), which takes it to be the same in every group. With two groups it is
    the paired t-test. None where there is no residual: no spread, no p; a difference of zero has 1.

    Args:
        differences: of means of two rows of ``scores``
        scores: (groups, seeds), at least 2 x 2, without gaps
    """
    from scipy import stats

    groups, seeds = scores.shape
    residual = scores - scores.mean(1, keepdims=True) - scores.mean(0, keepdims=True) + scores.mean()
    freedom = (groups - 1) * (seeds - 1)
    error = math.sqrt(2 / seeds * float((residual**2).sum()) / freedom)
    if error <= ROUNDING * float(np.abs(scores).max()):
        return [None if d else 1.0 for d in differences]
    return [2 * float(stats.t.sf(abs(d) / error, freedom)) for d in differences]


def alike(scores: np.ndarray, level: float = 0.01) -> np.ndarray:
    """Which groups have a spread over their seeds that is no outlier, such as that of a collapsed run, (groups,) bool.

    Cochran's C (1941), repeated as in ISO 5725-2: the largest variance is left out as long as its share of the sum is
    too large for chance. What a seed does to all groups is taken off first, as the median over the groups; that makes
    variances which are no longer those of Cochran's table, so what chance does is simulated the same way.

    Args:
        scores: (groups, seeds), at least 2 x 2, without gaps
        level: chance that of groups which are alike one is left out, in each test
    """
    kept = np.ones(len(scores), bool)
    while kept.sum() > 2:
        shares = _shares(scores[kept])
        if shares.max() <= _largest_by_chance(len(shares), scores.shape[1], level):
            break
        kept[np.flatnonzero(kept)[shares.argmax()]] = False
    return kept


def _shares(scores: np.ndarray) -> np.ndarray:
    """Each group's part of the sum of variances over seeds, (..., groups) from (..., groups, seeds)."""
    rows = scores - scores.mean(-1, keepdims=True)
    rows = rows - np.median(rows, -2, keepdims=True)
    variances = rows.var(-1)
    total = variances.sum(-1, keepdims=True)
    shares: np.ndarray = np.divide(variances, total, out=np.zeros_like(variances), where=total > 0)
    return shares


@functools.cache
def _largest_by_chance(groups: int, seeds: int, level: float) -> float:
    """What the largest share exceeds with probability ``level`` where all groups have the same normal spread."""
    rng = np.random.default_rng(0)
    at_once = max(1, 1_000_000 // (groups * seeds))
    parts = range(0, SIMULATED, at_once)
    largest = [
        _shares(rng.standard_normal((min(at_once, SIMULATED - start), groups, seeds))).max(-1) for start in parts
    ]
    return float(np.quantile(np.concatenate(largest), 1 - level))


def percentiles(replicates: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of bootstrap replicates (resamples,)."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def image_weights(num_images: int, resamples: int, seed: int, drives: np.ndarray | None = None) -> np.ndarray:
    """How often each image is drawn in each resample, float64 (resamples, num_images).

    Args:
        num_images: that there are
        resamples: how often they are drawn anew
        seed: of the draws
        drives: the drive that each image is a frame of, int (num_images,): whole drives are drawn then, since frames of
            one are no independent images (cluster bootstrap; Davison and Hinkley, 1997, section 3.8)
    """
    rng = np.random.default_rng(seed)
    names, drive = np.unique(np.arange(num_images) if drives is None else drives, return_inverse=True)
    known = len(names)
    drawn = rng.multinomial(known, np.full(known, 1 / known), resamples)
    return drawn[:, drive].astype(np.float64)


def resampled_miou(matrices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """mIoU of a set whose images are drawn anew, (resamples,).

    Args:
        matrices: confusion matrices of the images, (images, K, K), rows are the truth
        weights: how often each counts, (resamples, images)

    A class without any pixel in truth and prediction of a resample is absent from it, as in the score itself.
    """
    intersection = matrices.diagonal(axis1=1, axis2=2)
    union = matrices.sum(1) + matrices.sum(2) - intersection
    unions = weights @ union
    iou = np.divide(weights @ intersection, unions, out=np.full(unions.shape, np.nan), where=unions > 0)
    present = np.maximum(1, (~np.isnan(iou)).sum(1))
    means: np.ndarray = np.nansum(iou, 1) / present
    return means


def resampled_mean(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of values (n,) that are drawn anew, (resamples,)."""
    rng = np.random.default_rng(seed)
    means: np.ndarray = values[rng.integers(0, len(values), (resamples, len(values)))].mean(1)
    return means
