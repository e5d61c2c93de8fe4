"""Initialisations that do not look at the pretrained weight, only at its shape."""

from __future__ import annotations

import numpy as np

from recyclelora.adapters.low_rank.factors import Array, Factors, LayerWeight


def kaiming(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """LoRA: A kaiming-uniform with slope sqrt 5, that is U(-1/sqrt in, 1/sqrt in); B = 0."""
    out_features, in_features = layer.weight.shape
    return Factors.of(np.zeros((out_features, rank)), kaiming_uniform(rng, rank, in_features))


def gaussian(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """LoRA with A ~ N(0, 1 / rank^2); B = 0."""
    out_features, in_features = layer.weight.shape
    return Factors.of(np.zeros((out_features, rank)), rng.normal(0.0, 1 / rank, (rank, in_features)))


def orthogonal(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """Both factors random and B A = 0: they use complementary halves of one random rotation of the rank space."""
    out_features, in_features = layer.weight.shape
    half = -(-rank // 2)
    rotation = _orthonormal(rng, rank, rank)
    a = rotation[:, :half] @ _orthonormal(rng, in_features, half).T
    b = _orthonormal(rng, out_features, rank - half) @ rotation[:, half:].T
    return Factors.of(b, a)


def orthonormal(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """RecycleLoRA's form without its directions: B random orthonormal columns, A 0/1 rows at random distinct places.

    An ablation of this project: whatever it lacks against `rrqr_minor` is owed to the directions of the weight.
    """
    out_features, in_features = layer.weight.shape
    return Factors.selecting(_orthonormal(rng, out_features, rank), rng.permutation(in_features)[:rank])


def kaiming_uniform(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """What ``nn.Linear(columns, rows)`` starts with: U(-1/sqrt columns, 1/sqrt columns), (rows, columns)."""
    bound = columns**-0.5
    return rng.uniform(-bound, bound, (rows, columns))


def _orthonormal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Random orthonormal columns, uniformly distributed (the signs of R must be fixed for that)."""
    q, r = np.linalg.qr(rng.standard_normal((rows, columns)))
    result: Array = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return result
