"""Initialisations by QR of the pretrained weight, unpivoted (OLoRA) or with column pivoting (RecycleLoRA)."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from recyclelora.adapters.linalg.rrqr import RRQR
from recyclelora.adapters.low_rank.factors import Factors, LayerWeight


def qr(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """OLoRA: W = Q R unpivoted, B = Q[:, :rank], A = R[:rank]; the first columns of W alone determine both."""
    q, _ = scipy.linalg.qr(layer.matrix[:, :rank], mode="economic", check_finite=False)
    return Factors.of(q, q.T @ layer.matrix)


def rrqr_major(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """RecycleLoRA's sub adapter: B = Q[:, :rank], A[i, p[i]] = 1."""
    found = _decomposed(layer)
    return Factors.selecting(found.q_leading[:, :rank], found.leading_pivots[:rank])


def rrqr_minor(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """RecycleLoRA's main adapter: B = Q[:, k - rank : k], A[i, p[k - rank + i]] = 1."""
    found = _decomposed(layer)
    first = len(found.trailing_pivots) - rank
    return Factors.selecting(found.q_trailing[:, first:], found.trailing_pivots[first:])


def rrqr_major_values(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """`rrqr_major` with R's values kept: A = R[:rank], its columns put back to the order of the inputs.

    An ablation of this project. R with its columns put back is Q^T W, and B A the part of W in the span of B.
    """
    return _with_values(rrqr_major(layer, rank, rng), layer)


def rrqr_minor_values(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """`rrqr_minor` with R's values kept: A = R[k - rank : k], its columns put back to the order of the inputs."""
    return _with_values(rrqr_minor(layer, rank, rng), layer)


def _with_values(chosen: Factors, layer: LayerWeight) -> Factors:
    q = chosen.b.double().numpy()
    return Factors.of(q, q.T @ layer.matrix)


def _decomposed(layer: LayerWeight) -> RRQR:
    if layer.rrqr is None:
        raise ValueError("an rrqr initialisation needs LayerWeight.rrqr; factorize the weight first")
    return layer.rrqr
