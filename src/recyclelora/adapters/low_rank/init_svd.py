"""Initialisations by the singular value decomposition W = U diag(S) V^T, of its outermost triplets alone."""

from __future__ import annotations

import warnings

import numpy as np

from recyclelora.adapters.linalg.rrqr import RankDeficientWarning
from recyclelora.adapters.linalg.svd import Triplets, major_triplets, minor_triplets
from recyclelora.adapters.low_rank.factors import Factors, LayerWeight
from recyclelora.adapters.low_rank.init_random import kaiming_uniform


def svd_major(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """PiSSA: the top singular triplets, B = U sqrt(S/s), A = sqrt(S/s) V^T."""
    found = major_triplets(layer.matrix, rank)
    _warn_of_noise(layer, found, f"{rank} largest")
    return _factors(found, layer.scale)


def svd_minor(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """MiLoRA and SoMA: the bottom singular triplets."""
    found = minor_triplets(layer.matrix, rank)
    _warn_of_noise(layer, found, f"{rank} smallest")
    return _factors(found, layer.scale)


def svd_minor_left(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """MiCA: B = the last left singular vectors, to be frozen (``train_b: false``); A = 0, so W0 stays whole."""
    found = minor_triplets(layer.matrix, rank)
    _warn_of_noise(layer, found, f"{rank} smallest")
    return Factors.of(found.u, np.zeros((rank, layer.weight.shape[1])))


def svd_minor_unloaded(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """SoMA as its public code runs: the bottom triplets of the layer's *random* start, not of its pretrained weight.

    There the checkpoint is loaded after the decomposition and overwrites the residual. So W0 stays whole
    (``residual: false``) beside a nonzero B A, and the forward is **not** unchanged at the start: it differs from the
    pretrained layer by ``s B A``, the r smallest triplets of a matrix with entries U(-1/sqrt in, 1/sqrt in).
    """
    start = kaiming_uniform(rng, *layer.weight.shape)
    return _factors(minor_triplets(start, rank), layer.scale)


def _warn_of_noise(layer: LayerWeight, found: Triplets, which: str) -> None:
    """Where a singular value is zero its vectors are any, and factors that start at its root never get a gradient."""
    if found.s.min() > layer.noise:
        return
    message = (
        f"{layer.name}: singular values of zero among its {which}; those directions are rounding noise and hardly train"
    )
    warnings.warn(message, RankDeficientWarning, stacklevel=3)


def _factors(found: Triplets, scale: float) -> Factors:
    root = np.sqrt(found.s / scale)
    return Factors.of(found.u * root, root[:, None] * found.vt)
