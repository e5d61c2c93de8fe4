"""Column-pivoted QR of one weight: the pivots and only those columns of Q that an adapter needs.

``W[:, p] = Q R`` with ``|diag R|`` non-increasing is what ``scipy.linalg.qr(W, mode="economic", pivoting=True)``
computes; `pivoting` finds the same pivots with products of matrices instead of products with vectors. `strong`
exchanges some of them afterwards, where greedy pivoting may fail.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from recyclelora.adapters.linalg.blas import Array
from recyclelora.adapters.linalg.pivoting import eliminate
from recyclelora.adapters.linalg.strong import major_columns, minor_columns, strong_pivots
from recyclelora.adapters.rounding import noise_level, stored_eps

Precision = Literal["float64", "float32"]

ALGORITHM_VERSION = 2  # part of every cache key: raise it when a factor changes by more than rounding, or a rank


class RankDeficientWarning(UserWarning):
    """Directions of a weight that were asked for are rounding noise."""


@dataclass(frozen=True)
class RRQR:
    """Pivots and outer columns of Q of one weight W (out x in), k = min(out, in).

    Attributes:
        pivots: (in,) int64, the whole permutation p of ``W[:, p] = Q R`` by greedy pivoting.
        q_leading: (out, leading), the first columns of Q (major directions).
        q_trailing: (out, trailing), the last columns of Q, ``Q[:, k - trailing : k]`` (minor directions).
        leading_pivots: (leading,) int64, the columns of W that belong to ``q_leading``: ``p[:leading]``.
        trailing_pivots: (trailing,) int64, those of ``q_trailing``: ``p[k - trailing : k]``. Strong pivoting has a
            permutation of its own for either end.
        rank: see `numerical_rank`.
    """

    pivots: npt.NDArray[np.int64]
    q_leading: Array
    q_trailing: Array
    leading_pivots: npt.NDArray[np.int64]
    trailing_pivots: npt.NDArray[np.int64]
    rank: int

    def holds_noise(self, k: int) -> bool:
        """Whether a direction that was asked of a weight with k = min(out, in) is rounding noise."""
        return len(self.leading_pivots) > self.rank or (len(self.trailing_pivots) > 0 and self.rank < k)


def rrqr(
    weight: Array, leading: int, trailing: int, *, precision: Precision = "float64", strong: float | None = None
) -> RRQR:
    """Decompose ``weight`` (out x in) and warn when directions asked for are noise; see `decompose`."""
    result = decompose(weight, leading, trailing, precision=precision, strong=strong)
    if result.holds_noise(min(weight.shape)):
        warnings.warn(deficiency_message("weight", weight.shape, result.rank), RankDeficientWarning, stacklevel=2)
    return result


def deficiency_message(name: str, shape: tuple[int, ...], rank: int) -> str:
    """One line that names the layer, its numerical rank and the consequence."""
    return (
        f"{name}: numerical rank {rank} of {min(shape)} (shape {shape[0]} x {shape[1]}); its directions beyond that, "
        "the minor ones, are rounding noise and may differ from machine to machine"
    )


def decompose(
    weight: Array, leading: int, trailing: int, *, precision: Precision = "float64", strong: float | None = None
) -> RRQR:
    """Column-pivoted economy QR of ``weight`` (out x in), without forming R or all of Q.

    Agrees with ``scipy.linalg.qr(weight, mode="economic", pivoting=True)`` in pivots and in Q, signs included, on
    weights of full numerical rank without tied column norms. The weight is not changed.

    With ``strong``, a bound f >= 1, both ends come from strong rank-revealing QR instead, in float64 (see `strong`);
    a weight of too small a rank for that keeps its greedy pivots.

    Raises:
        ValueError: for a weight that is not a finite, non-zero matrix, or more columns than ``min(out, in)``.
    """
    check_request(weight.shape, leading, trailing)
    check_values(weight)
    k = min(weight.shape)
    found = eliminate(weight, np.dtype(precision))
    q = found.columns_of_q(np.concatenate([np.arange(leading), np.arange(k - trailing, k)]))
    rank = numerical_rank(found.diagonal, weight.shape, precision, stored_eps(weight))
    pivots = found.pivots
    greedy = RRQR(pivots, q[:, :leading], q[:, leading:], pivots[:leading], pivots[k - trailing : k], rank)
    if strong is None:
        return greedy
    return _strengthen(greedy, weight, strong, numerical_rank(found.diagonal, weight.shape, precision))


def numerical_rank(diagonal: Array, shape: tuple[int, ...], precision: Precision, eps: float = 0.0) -> int:
    """How many entries of R's diagonal (k,) are more than rounding noise.

    Noise of the computation, up to max(out, in) of its own eps, and of the values that were decomposed, whose eps is
    given (see `rounding.stored_eps`); 0 takes them as exact.
    """
    sizes = np.abs(diagonal)
    noise = max(max(shape) * float(np.finfo(precision).eps), noise_level(shape, eps))
    return int(np.count_nonzero(sizes > noise * sizes.max()))


def _strengthen(greedy: RRQR, weight: Array, bound: float, rank: int) -> RRQR:
    """Exchange columns at either end until the bounds of strong rank-revealing QR hold; greedy's own if they do.

    ``rank`` tells how far float64 can factor these values, whatever they mean.
    """
    weight, k = np.asarray(weight, dtype=np.float64), min(weight.shape)
    leading, trailing = len(greedy.leading_pivots), len(greedy.trailing_pivots)
    changes: dict[str, Any] = {}
    for name, count, split in (("leading", leading, leading), ("trailing", trailing, k - trailing)):
        if count == 0 or not 0 < split < k or split > rank:
            continue
        order = strong_pivots(weight, greedy.pivots, split, bound)
        if not np.array_equal(order, greedy.pivots):
            find = major_columns if name == "leading" else minor_columns
            changes[f"{name}_pivots"], changes[f"q_{name}"] = find(weight, order, count)
    return replace(greedy, **changes)


def check_request(shape: tuple[int, ...], leading: int, trailing: int) -> None:
    """Refuse a shape that is no matrix, or more columns than it has directions."""
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"RRQR needs a matrix (out x in), got shape {shape}")
    for name, count in (("leading", leading), ("trailing", trailing)):
        if not 0 <= count <= min(shape):
            raise ValueError(
                f"{name}={count} columns of Q asked of a {shape[0]} x {shape[1]} weight: 0 to {min(shape)}"
            )


def check_values(weight: Array) -> None:
    """Refuse values without a meaningful decomposition, each with one line."""
    largest = max(float(weight.max()), -float(weight.min()))  # NaN and infinity survive max and min
    if not np.isfinite(largest):
        raise ValueError("weight holds NaN or infinity; its RRQR is undefined")
    if largest == 0:
        raise ValueError("weight is all zeros; it has no directions to recycle")
