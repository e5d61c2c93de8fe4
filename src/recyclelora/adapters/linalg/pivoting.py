"""Exact column pivoting at the speed of matrix products.

Half of the work of LAPACK's ``geqp3`` is matrix-vector products, because it brings the norm of *every* column up to
date before it chooses the next pivot. Here the norms are brought up to date lazily:

1. Norms of residual columns only ever fall, so an old norm is an upper bound of the present one.
2. Take the columns with the largest norms (the candidates), form the Gram matrix of their residuals and run a pivoted
   Cholesky on it (``pstrf``). Its diagonal holds the exact residual norms of the candidates at each step. It stops as
   soon as the best candidate no longer exceeds the largest old norm outside the candidates, so each accepted pivot is
   certified to be the column that ``geqp3`` chooses.
3. Factor the accepted columns (``geqrf``) and apply their reflectors to all other columns with two large products.
   The norms inside a panel fall by little, so squaring them in the Gram matrix costs no accuracy, and any rank and
   condition number is handled alike.

The last ``_TAIL`` steps are left to ``geqp3`` itself. Householder vectors, hence the signs of Q, are LAPACK's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import get_blas_funcs, get_lapack_funcs

from recyclelora.adapters.linalg.blas import Array, subtract_product

_TAIL = 128  # steps left to geqp3; a remainder this small stays in the processor's cache
_PANEL = 48  # pivots aimed at per panel: wide enough for fast products, narrow enough for few candidates
_STALE = 1e-2  # recompute the norms when the largest has fallen by this factor (squared norms; bounds cancellation)


def eliminate(weight: Array, dtype: np.dtype[Any]) -> Elimination:
    """Eliminate ``weight`` (out x in, finite, not all zero) completely, in the precision ``dtype``."""
    work = _start(weight, dtype)
    while work.steps - work.done > _TAIL:
        candidates, bound = _candidates(work)
        if not _eliminate_panel(work, candidates, bound):
            break  # exactly tied norms, or nothing left: let geqp3 decide
        if (work.done - work.first_row) * 8 >= work.residual.shape[0]:
            _compact(work)
    _eliminate_rest(work)
    return work


class _Kernels(NamedTuple):
    """LAPACK and BLAS routines of one precision."""

    geqrf: Callable[..., Any]
    geqp3: Callable[..., Any]
    pstrf: Callable[..., Any]
    ormqr: Callable[..., Any]
    trsm: Callable[..., Any]


@dataclass(frozen=True)
class _Panel:
    """Reflectors of consecutive pivots in compact form: H = I - V T V^T acting on rows ``first_row`` onwards."""

    start: int
    first_row: int
    v: Array
    t: Array


@dataclass
class Elimination:
    """Residual columns and what has been eliminated so far.

    ``residual[i, c]`` is row ``first_row + i`` of the column at position c; rows of finished steps are zero, columns
    before ``done`` are spent. ``norms`` are squared upper bounds, exact when their maximum was ``reference``.
    ``pivots`` (in,) and ``diagonal`` (k,), the diagonal of R up to one factor, are the results, with `columns_of_q`.
    """

    kernels: _Kernels
    residual: Array
    num_rows: int
    norms: Array
    reference: float
    pivots: npt.NDArray[np.int64]
    diagonal: Array
    spare: Array | None = None
    first_row: int = 0
    done: int = 0
    panels: list[_Panel] = field(default_factory=list)
    finish: tuple[Array, Array] | None = None

    @property
    def steps(self) -> int:
        """k = min(out, in)."""
        return len(self.diagonal)

    def columns_of_q(self, columns: npt.NDArray[np.int64]) -> Array:
        """Columns of Q (out x len(columns)): all reflectors, last first, applied to unit vectors."""
        assert self.finish is not None
        ascending = np.sort(columns)
        q = np.zeros((self.num_rows, len(columns)), dtype=self.residual.dtype, order="F")
        q[ascending, np.arange(len(columns))] = 1
        touched = int(np.searchsorted(ascending, self.done))  # earlier unit vectors are fixed by later reflectors
        if touched < len(columns):
            block, lwork = np.asfortranarray(q[self.done :, touched:]), 64 * len(columns) + 4160
            q[self.done :, touched:] = self.kernels.ormqr("L", "N", *self.finish, block, lwork=lwork)[0]
        for panel in reversed(self.panels):
            block = q[panel.first_row :, int(np.searchsorted(ascending, panel.start)) :]
            if block.shape[1] == 0:
                continue
            v = panel.v[: len(block)]
            rows = block.T  # numpy goes through these side by side, ten times as fast as through columns and rows
            rows -= (v @ (panel.t @ (v.T @ block))).T
        return q[:, np.searchsorted(ascending, columns)]


def _start(weight: Array, dtype: np.dtype[Any]) -> Elimination:
    """Copy the weight, scaled by a power of two (exact) so that squared norms neither overflow nor vanish."""
    rows, columns = weight.shape
    residual = np.empty((_padded(rows), columns), dtype=dtype, order="F")
    for top in range(0, rows, 16):  # strips keep the transposing copy within the cache
        residual[top : top + 16][: rows - top] = weight[top : top + 16]
    residual[rows:] = 0
    _, exponent = np.frexp(max(float(residual.max()), -float(residual.min())))
    residual *= np.ldexp(dtype.type(1), -max(int(exponent), int(np.finfo(dtype).minexp) + 2))
    norms = np.einsum("ij,ij->j", residual, residual)
    lapack = get_lapack_funcs(("geqrf", "geqp3", "pstrf", "ormqr"), (residual,))
    kernels = _Kernels(*lapack, *get_blas_funcs(("trsm",), (residual,)))
    diagonal = np.zeros(min(rows, columns), dtype=dtype)
    return Elimination(kernels, residual, rows, norms, float(norms.max()), np.arange(columns), diagonal)


def _padded(rows: int) -> int:
    """Rows rounded up to whole vector registers, avoiding multiples of 512: such strides share few cache sets."""
    rows = -(-rows // 8) * 8
    return rows + 8 if rows % 512 == 0 else rows


# ---- one panel ---------------------------------------------------------------------------------------------------


def _candidates(work: Elimination) -> tuple[npt.NDArray[np.int64], float]:
    """Positions of the columns that may hold the next pivots, and the largest squared norm outside them."""
    norms = work.norms[work.done :]
    largest = float(norms.max())
    if largest < _STALE * work.reference:
        rest = work.residual[:, work.done :]
        norms[:] = np.einsum("ij,ij->j", rest, rest)
        largest = work.reference = float(norms.max())
    # One step lowers a typical squared norm by one part in the rows that are left.
    expected = largest * (1 - min(_PANEL / (work.num_rows - work.done), 0.9))
    # More candidates than this and their Gram matrix costs more than applying the panel it yields.
    most = max(3 * _PANEL // 2, int((_PANEL * len(norms)) ** 0.5))
    count = int(np.clip(np.count_nonzero(norms > expected), 3 * _PANEL // 2, most))
    if count >= len(norms):
        return work.done + np.arange(len(norms)), _STALE * largest
    order = np.argpartition(norms, len(norms) - count)
    outside, inside = order[: len(norms) - count], order[len(norms) - count :]
    return work.done + np.sort(inside), max(float(norms[outside].max()), _STALE * largest)


def _eliminate_panel(work: Elimination, candidates: npt.NDArray[np.int64], bound: float) -> bool:
    """Choose the next pivots among the candidates and eliminate them; False if none exceeds the bound."""
    columns = work.residual.T[candidates]  # (candidates, rows)
    gram = columns @ columns.T
    _, order, count, _ = work.kernels.pstrf(gram, tol=bound, overwrite_a=1)
    count = min(int(count), work.steps - work.done - 1)  # geqp3 takes the last step: a square matrix ends differently
    if count == 0:
        return False
    chosen = order[:count] - 1
    panel = _reflect(work, columns[chosen].T)
    _bring_forward(work, candidates[chosen])
    _apply_to_rest(work, panel)
    work.panels.append(panel)
    work.done += count
    return True


def _reflect(work: Elimination, columns: Array) -> _Panel:
    """Householder vectors of the chosen residual columns (rows x count)."""
    count, top = columns.shape[1], work.done - work.first_row
    factored, tau, _, _ = work.kernels.geqrf(np.asfortranarray(columns[top:]), lwork=64 * count, overwrite_a=1)
    work.diagonal[work.done : work.done + count] = np.diagonal(factored)
    v = np.zeros(columns.shape, dtype=columns.dtype, order="F")
    v[top:] = factored
    v[top : top + count] = np.tril(factored[:count], -1) + np.eye(count, dtype=v.dtype)
    # With tau = 2 / |v|^2 for every reflector, T^-1 + T^-T = V^T V (T upper triangular).
    t_inverse = np.triu(v.T @ v, 1)
    with np.errstate(divide="ignore"):  # tau = 0 (nothing below the diagonal) means H = I: an infinite entry does that
        np.fill_diagonal(t_inverse, 1 / tau)
    t = work.kernels.trsm(1.0, t_inverse, np.eye(count, dtype=v.dtype))
    return _Panel(work.done, work.first_row, v, t)


def _bring_forward(work: Elimination, chosen: npt.NDArray[np.int64]) -> None:
    """Exchange the chosen columns with those at the front, one after another as geqp3 does."""
    chosen = chosen.copy()
    for step, source in enumerate(chosen):
        target = work.done + step
        work.pivots[[target, source]] = work.pivots[[source, target]]
        work.residual[:, source] = work.residual[:, target]  # the chosen column itself lives on in its reflector
        work.norms[source] = work.norms[target]
        later = chosen[step + 1 :]
        later[later == target] = source


def _apply_to_rest(work: Elimination, panel: _Panel) -> None:
    """residual <- H^T residual on the columns behind the panel, then lower their norms by the new rows of R."""
    count, top = panel.v.shape[1], work.done - work.first_row
    rest = work.residual[:, work.done + count :]
    products = (panel.v.T @ rest).T
    subtract_product((panel.t @ panel.v.T).T, products, rest)
    new_rows = rest[top : top + count]
    work.norms[work.done + count :] -= np.einsum("ij,ij->j", new_rows, new_rows)
    new_rows[:] = 0


def _compact(work: Elimination) -> None:
    """Drop the rows of finished steps, so that products do not multiply zeros; two buffers take turns."""
    real = work.num_rows - work.done
    rows, columns = _padded(real), work.residual.shape[1]
    if work.spare is None:
        work.spare = np.empty(rows * columns, dtype=work.residual.dtype)
    shorter = work.spare[: rows * columns].reshape((rows, columns), order="F")
    top = work.done - work.first_row
    shorter[:real, work.done :] = work.residual[top : top + real, work.done :]
    shorter[real:, work.done :] = 0
    work.spare = work.residual.reshape(-1, order="F")
    work.residual, work.first_row = shorter, work.done


# ---- the end -----------------------------------------------------------------------------------------------------


def _eliminate_rest(work: Elimination) -> None:
    """The last steps by geqp3."""
    top = work.done - work.first_row
    rest = np.asfortranarray(work.residual[top : top + work.num_rows - work.done, work.done :])
    count, columns = work.steps - work.done, rest.shape[1]
    factored, order, tau, _, _ = work.kernels.geqp3(rest, lwork=2 * columns + 32 * (columns + 1), overwrite_a=1)
    work.diagonal[work.done :] = np.diagonal(factored)
    work.pivots[work.done :] = work.pivots[work.done :][order - 1]
    work.finish = factored[:, :count], tau[:count]
