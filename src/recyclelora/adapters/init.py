"""Initial factors B0 (out x rank) and A0 (rank x in) of one branch, one function per initialisation.

RecycleLoRA: arXiv 2603.28142, section 3; its relatives are cited at their functions.
Every function takes the layer, the rank and a random
generator; the deterministic ones ignore the last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch

from recyclelora.adapters.rrqr import RRQR

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Factors:
    """Initial factors of a branch, on the CPU.

    Attributes:
        b: (out, rank) float32.
        a: (rank, in) float32, or None where every row is a unit vector,
        a_index: (rank,) int64: then the position of the one in each row.
    """

    b: torch.Tensor
    a: torch.Tensor | None = None
    a_index: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        """Number of columns of B."""
        return self.b.shape[1]

    def dense_a(self, in_features: int) -> torch.Tensor:
        """A0 as a matrix (rank, in), float32."""
        if self.a is not None:
            return self.a
        assert self.a_index is not None
        return torch.zeros(self.rank, in_features).scatter_(1, self.a_index[:, None], 1.0)


@dataclass
class LayerWeight:
    """A pretrained weight (out x in) with the decompositions that several branches share, each made at most once.

    ``scale`` is the layer's s: the SVD initialisations divide by it so that ``s B0 A0`` is a part of the weight.
    """

    weight: torch.Tensor
    scale: float
    rrqr: RRQR | None = None

    @cached_property
    def matrix(self) -> Array:
        """The weight as float64."""
        array: Array = self.weight.detach().cpu().double().numpy()
        if not np.isfinite(array).all():
            raise ValueError("weight holds NaN or infinity")
        return array

    @cached_property
    def svd(self) -> tuple[Array, Array, Array]:
        """U (out, k), singular values (k,), V^T (k, in)."""
        u, s, vt = scipy.linalg.svd(self.matrix, full_matrices=False, check_finite=False)
        return u, s, vt


Initializer = Callable[[LayerWeight, int, np.random.Generator], Factors]


def branch_rng(seed: int, layer: str, branch: str) -> np.random.Generator:
    """Random numbers of one branch, independent of the order in which layers are visited."""
    digest = hashlib.sha256(f"{seed}/{layer}/{branch}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def kaiming(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """LoRA: A kaiming-uniform with slope sqrt 5, that is U(-1/sqrt in, 1/sqrt in); B = 0."""
    out_features, in_features = layer.weight.shape
    bound = in_features**-0.5
    return _factors(np.zeros((out_features, rank)), rng.uniform(-bound, bound, (rank, in_features)))


def gaussian(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """LoRA with A ~ N(0, 1 / rank^2); B = 0."""
    out_features, in_features = layer.weight.shape
    return _factors(np.zeros((out_features, rank)), rng.normal(0.0, 1 / rank, (rank, in_features)))


def orthogonal(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """Both factors random and B A = 0: they use complementary halves of one random rotation of the rank space."""
    out_features, in_features = layer.weight.shape
    half = -(-rank // 2)
    rotation = _orthonormal(rng, rank, rank)
    a = rotation[:, :half] @ _orthonormal(rng, in_features, half).T
    b = _orthonormal(rng, out_features, rank - half) @ rotation[:, half:].T
    return _factors(b, a)


def svd_major(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """PiSSA: the top singular triplets, B = U sqrt(S/s), A = sqrt(S/s) V^T."""
    return _from_triplets(layer, slice(None, rank))


def svd_minor(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """MiLoRA and SoMA: the bottom singular triplets."""
    k = min(layer.weight.shape)
    return _from_triplets(layer, slice(k - rank, k))


def qr(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """OLoRA: W = Q R unpivoted, B = Q[:, :rank], A = R[:rank]; the first columns of W alone determine both."""
    q, _ = scipy.linalg.qr(layer.matrix[:, :rank], mode="economic", check_finite=False)
    return _factors(q, q.T @ layer.matrix)


def rrqr_major(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """RecycleLoRA's sub adapter: B = Q[:, :rank], A[i, p[i]] = 1."""
    found = _decomposed(layer)
    return _selected(found.q_leading[:, :rank], found.pivots[:rank])


def rrqr_minor(layer: LayerWeight, rank: int, rng: np.random.Generator) -> Factors:
    """RecycleLoRA's main adapter: B = Q[:, k - rank : k], A[i, p[k - rank + i]] = 1."""
    found, k = _decomposed(layer), min(layer.weight.shape)
    return _selected(found.q_trailing[:, found.q_trailing.shape[1] - rank :], found.pivots[k - rank : k])


INITIALIZERS: dict[str, Initializer] = {
    "kaiming": kaiming,
    "gaussian": gaussian,
    "orthogonal": orthogonal,
    "svd_major": svd_major,
    "svd_minor": svd_minor,
    "qr": qr,
    "rrqr_major": rrqr_major,
    "rrqr_minor": rrqr_minor,
}


def _orthonormal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Random orthonormal columns, uniformly distributed (the signs of R must be fixed for that)."""
    q, r = np.linalg.qr(rng.standard_normal((rows, columns)))
    result: Array = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return result


def _from_triplets(layer: LayerWeight, chosen: slice) -> Factors:
    u, s, vt = layer.svd
    root = np.sqrt(s[chosen] / layer.scale)
    return _factors(u[:, chosen] * root, root[:, None] * vt[chosen])


def _decomposed(layer: LayerWeight) -> RRQR:
    if layer.rrqr is None:
        raise ValueError("an rrqr initialisation needs LayerWeight.rrqr; factorize the weight first")
    return layer.rrqr


def _factors(b: Array, a: Array) -> Factors:
    return Factors(b=_float32(b), a=_float32(a))


def _selected(b: npt.NDArray[Any], positions: npt.NDArray[np.int64]) -> Factors:
    return Factors(b=_float32(b), a_index=torch.from_numpy(positions.copy()))


def _float32(array: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
