"""Initialisations by the singular value decomposition W = U diag(S) V^T, of its outermost triplets alone."""

from __future__ import annotations

import warnings

import numpy as np

from recyclelora.adapters.factors import Factors, LayerWeight
from recyclelora.adapters.init_random import kaiming_uniform
from recyclelora.adapters.rrqr import RankDeficientWarning
from recyclelora.adapters.svd import Triplets, major_triplets, minor_triplets


def svd_major(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """PiSSA: the top singular triplets, B = U sqrt(S/s), A = sqrt(S/s) V^T."""
    return _factors(major_triplets(layer.matrix, rank), layer.scale)


def svd_minor(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """MiLoRA and SoMA: the bottom singular triplets."""
    found = minor_triplets(layer.matrix, rank)
    # Both factors start at sqrt(S): where that is zero neither of them ever gets a gradient.
    if found.s.min() <= max(layer.weight.shape) * np.finfo(np.float64).eps * np.linalg.norm(layer.matrix):
        message = f"{layer.name}: singular values of zero among its {rank} smallest; those directions cannot train"
        warnings.warn(message, RankDeficientWarning, stacklevel=2)
    return _factors(found, layer.scale)


def svd_minor_left(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """MiCA: B = the last left singular vectors, to be frozen (``train_b: false``); A = 0, so W0 stays whole."""
    return Factors.of(minor_triplets(layer.matrix, rank).u, np.zeros((rank, layer.weight.shape[1])))


def svd_minor_unloaded(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """SoMA as its public code runs: the bottom triplets of the layer's *random* start, not of its pretrained weight.

    There the checkpoint is loaded after the decomposition and overwrites the residual. So W0 stays whole
    (``residual: false``) beside a nonzero B A, and the forward is **not** unchanged at the start: it differs from the
    pretrained layer by ``s B A``, the r smallest triplets of a matrix with entries U(-1/sqrt in, 1/sqrt in).
    """
    start = kaiming_uniform(rng, *layer.weight.shape)
    return _factors(minor_triplets(start, rank), layer.scale)


def _factors(found: Triplets, scale: float) -> Factors:
    root = np.sqrt(found.s / scale)
    return Factors.of(found.u * root, root[:, None] * found.vt)
