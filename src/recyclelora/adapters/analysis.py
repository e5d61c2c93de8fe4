"""The mathematics of looking at an adapter: spectra of its products, cosines of its vectors, norms of its columns.

A product B A is never formed: thin QR of both factors leaves a core as small as the rank. Everything is float64, and
what is undefined (the effective rank of a zero matrix, the cosine of a zero vector) is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recyclelora.adapters.rounding import FLOAT32


@dataclass(frozen=True)
class Product:
    """The matrix ``left @ right`` as its factors.

    Attributes:
        left: (out, rank) float64.
        right: (rank, in) float64.
    """

    left: Tensor
    right: Tensor

    @property
    def rank(self) -> int:
        """The greatest rank the product can have."""
        return min(self.left.shape[0], self.right.shape[1], self.left.shape[1])

    def __mul__(self, factor: float) -> Product:
        return Product(self.left * factor, self.right)


Matrix = Product | Tensor
"""A matrix (out, in), in factors or dense."""


def total(products: Sequence[Product]) -> Product:
    """The sum of products, as one product of the summed rank."""
    return Product(torch.cat([p.left for p in products], dim=1), torch.cat([p.right for p in products]))


def difference(trained: Product, initial: Product) -> Product:
    """B A - B0 A0 = (B - B0) A + B0 (A - A0): rank 2r, or r where a factor did not move or nothing was there before.

    In this form nothing large cancels, however small the steps were.
    """
    if not (initial.left.any() and initial.right.any()):
        return trained
    parts = [
        Product(trained.left - initial.left, trained.right),
        Product(initial.left, trained.right - initial.right),
    ]
    moved = [part for part, step in zip(parts, (parts[0].left, parts[1].right), strict=True) if step.any()]
    return total(moved or parts[:1])


def singular_values(matrix: Matrix) -> Tensor:
    """Singular values, descending: (min(rank, out, in),) of a product, (min(out, in),) of a dense matrix."""
    if not isinstance(matrix, Tensor):
        matrix = torch.linalg.qr(matrix.left).R @ torch.linalg.qr(matrix.right.T).R.T
    values: Tensor = torch.linalg.svdvals(matrix)
    return values


def norm(matrix: Matrix) -> float:
    """Frobenius norm."""
    return float(torch.linalg.vector_norm(matrix if isinstance(matrix, Tensor) else singular_values(matrix)))


def column_core(matrix: Matrix) -> Tensor:
    """A matrix C with C C^T = M M^T and no more columns than needed: what M does to its output side."""
    if isinstance(matrix, Tensor):
        return matrix
    core: Tensor = matrix.left @ torch.linalg.qr(matrix.right.T).R.T
    return core


def row_core(matrix: Matrix) -> Tensor:
    """A matrix C with C C^T = M^T M: what M reads from its input side."""
    return column_core(matrix.T if isinstance(matrix, Tensor) else Product(matrix.right.T, matrix.left.T))


def rounding_of(matrix: Matrix) -> float:
    """Frobenius norm that a product may have from rounding its factors to float32 alone.

    Zero for a dense matrix: how exactly that is known only its origin tells.
    """
    if isinstance(matrix, Tensor):
        return 0.0
    return FLOAT32 * float(torch.linalg.vector_norm(matrix.left) * torch.linalg.vector_norm(matrix.right))


def effective_rank(values: Tensor, zero: float = 0.0) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli, EUSIPCO 2007).

    Between 1 (one direction) and their number (all equal). NaN where their norm is at most ``zero``: the shares of
    what is rounding noise would be those of random numbers.
    """
    if not float(torch.linalg.vector_norm(values)) > zero:
        return math.nan
    mass = values.sum()
    share = values / mass
    return math.exp(float(torch.special.entr(share).sum()))


def cosines(vectors: Tensor) -> Tensor:
    """Cosine of every pair of rows of ``vectors`` (n, d): (n, n), between -1 and 1; NaN beside a zero vector."""
    unit = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    table: Tensor = (unit @ unit.T).clamp(-1, 1)
    return table


def mean_abs_cosine(table: Tensor, rows: slice, columns: slice) -> float:
    """Mean size of the cosines between two groups of vectors; within one group without the diagonal."""
    part = table[rows, columns].abs()
    if rows == columns:
        part = part[~torch.eye(len(part), dtype=torch.bool, device=part.device)]
    return float(part.mean())


def column_norms(a: Tensor, positions: Tensor) -> tuple[float, float]:
    """Mean norm of the columns of A (rank, in) at ``positions`` (its ones at the start), and elsewhere."""
    norms = torch.linalg.vector_norm(a, dim=0)
    inside = torch.zeros_like(norms, dtype=torch.bool)
    inside[positions] = True
    return float(norms[inside].mean()), float(norms[~inside].mean())
