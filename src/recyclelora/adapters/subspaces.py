"""The geometry of subspaces: principal angles, Grassmann similarity, and where the energy of an update lies.

A subspace of R^n is given by an orthonormal basis (n, dimension), float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recyclelora.adapters.analysis import Matrix, column_core, row_core
from recyclelora.adapters.rounding import noise_level, stored_eps


def orthonormal_basis(vectors: Tensor) -> Tensor:
    """An orthonormal basis of the span of the columns (n, k): (n, numerical rank), (n, 0) for zeros.

    The values count as known to the precision of the format that holds them: float32's where that was widened.
    """
    u, s, _ = torch.linalg.svd(vectors, full_matrices=False)
    shape = tuple(vectors.shape)
    tolerance = s[:1] * max(max(shape) * torch.finfo(vectors.dtype).eps, noise_level(shape, stored_eps(vectors)))
    basis: Tensor = u[:, s > tolerance]
    return basis


def principal_angles(x: Tensor, y: Tensor) -> Tensor:
    """Principal angles between two subspaces in radians, ascending: (min(dim x, dim y),).

    Cosines lose small angles and sines large ones, so each is used where it is exact (Björck and Golub, 1973).
    """
    if x.shape[1] < y.shape[1]:
        x, y = y, x
    overlap = x.T @ y
    cosine = torch.linalg.svdvals(overlap)
    sine = torch.linalg.svdvals(y - x @ overlap).flip(0)[: len(cosine)]
    return torch.where(cosine**2 > 0.5, torch.asin(sine.clamp(0, 1)), torch.acos(cosine.clamp(0, 1)))


def grassmann_similarity(x: Tensor, y: Tensor) -> float:
    """||X^T Y||_F^2 / min(dim x, dim y): the mean squared cosine of the principal angles.

    1 where one subspace contains the other, 0 where they are orthogonal (Hu et al., LoRA, section 7.2); NaN where one
    of them is empty.
    """
    smaller = min(x.shape[1], y.shape[1])
    return float((x.T @ y).square().sum()) / smaller if smaller else math.nan


def random_similarity(x: Tensor, y: Tensor) -> float:
    """The expected Grassmann similarity of two random subspaces of these dimensions: max(dim x, dim y) / n."""
    return max(x.shape[1], y.shape[1]) / len(x)


def singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Left (out, k) and right (in, k) singular vectors, largest first, k = min(out, in)."""
    if matrix.shape[0] < matrix.shape[1]:  # LAPACK takes three times as long for a wide matrix as for its transpose
        return singular_vectors(matrix.T)[::-1]
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u, vt.T


def energy_along(update: Matrix, basis: Tensor, *, rows: bool = False) -> Tensor:
    """Share of ||update||_F^2 along each basis vector: (dimension,), summing to at most 1.

    Args:
        update: (out, in).
        basis: (out, k), such as left singular vectors; with ``rows`` (in, k), such as right ones.
        rows: look at the row space. A random update gives 1 / out (1 / in) for each vector.
    """
    core = row_core(update) if rows else column_core(update)
    return (basis.T @ core).square().sum(1) / core.square().sum()
