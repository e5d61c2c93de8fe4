"""Initialisations that look at data: second moments C = E[x x^T] of a layer's inputs, or gradients G of a loss at W0.

The singular values of what is subtracted from W0 are divided by the layer's s, so that ``s B0 A0`` is that part of it.
"""

from __future__ import annotations

import warnings

import numpy as np
import scipy.linalg

from recyclelora.adapters.linalg.blas import eigenvectors
from recyclelora.adapters.linalg.rrqr import RRQR, RankDeficientWarning, decompose
from recyclelora.adapters.linalg.svd import Triplets, fixed_signs, full_triplets, major_triplets, minor_triplets
from recyclelora.adapters.low_rank.factors import Array, Factors, LayerWeight

DAMPING, INVERSE_ERROR = 0.01, 0.05
"""CorDA: what is added to C's diagonal, relative to its mean, and how far C C^-1 may be from the identity."""
TAIL_SHARE = 0.01
"""Of tr C: the eigenvectors with the smallest eigenvalues that hold no more than this are directions without data."""
GA_GAMMA, ONE_GAMMA = 16.0, 128.0
"""The papers' gamma of LoRA-GA and LoRA-One."""


def lora_null(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """LoRA-Null (arXiv 2503.02659): W0 on the inputs that data use least, N = the last eigenvectors of C.

    W0 N N^T = U S V^T, B = U sqrt(S/s), A = sqrt(S/s) V^T.
    """
    _, vectors = layer.data.spectrum
    null = vectors[:, :rank]
    found = full_triplets(layer.matrix @ null, slice(None))
    return _split(Triplets(found.u, found.s, found.vt @ null.T), layer.scale)


def corda_kpm(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """CorDA (Yang et al., 2024, arXiv 2406.05223), knowledge preserved: the last triplets of W0 C."""
    return _corda(layer, rank, minor=True)


def corda_ipm(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """CorDA, instruction previewed: the first triplets of W0 C."""
    return _corda(layer, rank, minor=False)


def eva(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """EVA (Paischer et al., 2024, arXiv 2410.07170): A = the principal components of the inputs, B = 0.

    Their shares of the inputs' variance come along: `ranks.shared_out` gives the ranks to the largest of all layers.
    """
    mean, moment = layer.data.mean, layer.data.moment
    assert mean is not None and moment is not None
    covariance = moment - np.outer(mean, mean)
    components = fixed_signs(eigenvectors(covariance, len(covariance) - rank, rank)[:, ::-1])
    variances = np.einsum("ir,ij,jr->r", components, covariance, components, optimize=True)
    total = max(float(np.trace(covariance)), np.finfo(np.float64).tiny)  # inputs that never vary have no share
    zeros = np.zeros((layer.weight.shape[0], rank))
    return Factors.of(zeros, components.T, from_data=True, shares=variances.clip(0) / total)


def lora_ga(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """LoRA-GA (Wang, Yu and Li, 2024, arXiv 2407.05000), as PEFT has it: the triplets of G, A from the first ``rank``
    and B from the next, B = U diag(S) out^(1/4) / sqrt(gamma)."""
    found = major_triplets(_gradient(layer, 2 * rank), 2 * rank)
    size = layer.weight.shape[0] ** 0.25 / GA_GAMMA**0.5
    return Factors.of(found.u[:, rank:] * found.s[rank:] * size, found.vt[:rank], from_data=True)


def lora_one(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """LoRA-One (Zhang, Liu and Chen, ICML 2025, arXiv 2502.01235): the first triplets of -G, S relative to S_1 gamma.

    W0 stays whole beside it (``residual: false``): the start is one small step down the gradient, not W0 itself.
    """
    found = major_triplets(_gradient(layer, rank), rank)
    root = np.sqrt(found.s / (found.s[0] * ONE_GAMMA))
    return Factors.of(-found.u * root, root[:, None] * found.vt, from_data=True)


def rrqr_major_data(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """RecycleLoRA's sub adapter by the weight that data see: `init_qr.rrqr_major` of W0 C^(1/2)."""
    found = _decomposed(layer, rank, 0)
    return Factors.selecting(found.q_leading, found.leading_pivots)


def rrqr_minor_data(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """RecycleLoRA's main adapter by the weight that data see: `init_qr.rrqr_minor` of W0 C^(1/2).

    Column j of W0 C^(1/2), with the symmetric root, is what W0 makes of input j at the size and in the company in which
    data bring it. Neither W0 alone nor C alone tells which inputs the layer lives without.
    """
    found = _decomposed(layer, 0, rank)
    return Factors.selecting(found.q_trailing, found.trailing_pivots)


def rrqr_null(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """Pivoted QR within the tail of C: W0 N[:, p] = Q R, B = Q[:, :rank], A = the rows N[:, p[:rank]]^T.

    N are the eigenvectors whose eigenvalues together hold at most 1 % of tr C, at least ``rank`` of them. Of the inputs
    that data hardly bring, A reads those of which W0 would make most.
    """
    values, vectors = layer.data.spectrum
    held = np.cumsum(values) / values.sum()
    size = max(rank, int(np.searchsorted(held, TAIL_SHARE, side="right")))
    tail = vectors[:, :size]
    q, _, pivots = scipy.linalg.qr(layer.matrix @ tail, mode="economic", pivoting=True, check_finite=False)
    return Factors.of(q[:, :rank], tail[:, pivots[:rank]].T)


def _corda(layer: LayerWeight, rank: int, *, minor: bool) -> Factors:
    """Triplets of W0 C~ with C~ = C + d mean(diag C) I: B = U sqrt(S/s), A = sqrt(S/s) V^T C~^-1.

    d doubles until C~ and its inverse agree, as in PEFT.
    """
    moment = layer.data.moment
    assert moment is not None
    identity, damping = np.eye(len(moment)), DAMPING
    while True:
        damped = moment + damping * np.diagonal(moment).mean() * identity
        inverse = np.linalg.inv(damped)
        if np.linalg.norm(damped @ inverse - identity) < INVERSE_ERROR:
            break
        damping *= 2
    found = (minor_triplets if minor else major_triplets)(layer.matrix @ damped, rank)
    return _split(Triplets(found.u, found.s, found.vt @ inverse), layer.scale)


def _decomposed(layer: LayerWeight, leading: int, trailing: int) -> RRQR:
    """Pivoted QR of W0 C^(1/2), with a warning where data leave directions without any size."""
    found = decompose(layer.matrix @ layer.data.root, leading, trailing)
    k = min(layer.weight.shape)
    if found.holds_noise(k):
        message = (
            f"{layer.name}: the images bring {found.rank} of {k} directions to life; those beyond are rounding noise: "
            "more adapter.calibration.images"
        )
        warnings.warn(message, RankDeficientWarning, stacklevel=2)
    return found


def _gradient(layer: LayerWeight, needed: int) -> Array:
    gradient = layer.data.gradient
    assert gradient is not None
    if needed > min(gradient.shape):
        raise ValueError(f"rank: this start takes {needed} directions of a gradient that has {min(gradient.shape)}")
    if not gradient.any():
        raise ValueError("the gradient is zero; it has no directions to start from")
    return gradient


def _split(found: Triplets, scale: float) -> Factors:
    root = np.sqrt(found.s / scale)
    return Factors.of(found.u * root, root[:, None] * found.vt)
