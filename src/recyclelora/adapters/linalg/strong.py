"""Strong rank-revealing QR: Gu and Eisenstat, SIAM J. Sci. Comput. 17 (1996), algorithm 4.

Greedy pivoting takes the longest residual column at each step. It can miss how small the trailing block R22 could be
(Kahan's matrix), and leave a large R11^-1 R12. For ``W[:, p] = Q [[R11, R12], [0, R22]]`` split at k, exchanging
column i of the first k with column j of the others multiplies |det R11| by

    rho_ij = sqrt((R11^-1 R12)_ij^2 + (|R22 e_j| |e_i^T R11^-1|)^2).

Exchanging while some rho exceeds f >= 1 ends, since the determinant grows each time, and then (their theorem 3.2)

    sigma_i(R11) >= sigma_i(W) / sqrt(1 + f^2 k (n - k)),   sigma_j(R22) <= sigma_{k+j}(W) sqrt(1 + f^2 k (n - k)),
    |(R11^-1 R12)_ij| <= f.

The usual f = 2 needs few exchanges; on the weights of a trained DINOv2 ViT-S none at all, since greedy pivoting leaves
rho <= 1.14 there. f = 1 exchanges as long as any gain is left.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.linalg

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_REFRESH = 64  # exchanges after which everything is computed anew from W, so that rounding does not add up


def strong_pivots(weight: Array, pivots: Indices, split: int, bound: float) -> Indices:
    """A permutation (in,) whose first ``split`` columns satisfy the bounds above with f = ``bound``.

    Args:
        weight: (out x in), float64.
        pivots: the permutation to start from; R11 must be regular.
        split: k above, 0 < split < min(out, in).
        bound: f, at least 1.
    """
    order = pivots.copy()
    while True:
        state = _Split(weight, order, split)
        for exchanges in range(_REFRESH + 1):
            row, column = state.worst()
            if state.growth(row, column) <= bound * (1 + 1e-9):
                if exchanges == 0:
                    return order
                break
            order[[row, split + column]] = order[[split + column, row]]
            state.exchange(row, column)


def major_columns(weight: Array, order: Indices, count: int) -> tuple[Indices, Array]:
    """The first ``count`` columns in ``order`` and their orthonormal directions (out x count), pivoted greedily."""
    block = order[:count]
    q, _, inner = scipy.linalg.qr(weight[:, block], mode="economic", pivoting=True, check_finite=False)
    return block[inner], q


def minor_columns(weight: Array, order: Indices, count: int) -> tuple[Indices, Array]:
    """The first ``count`` that greedy pivoting takes of R22's columns, and their directions (out x count).

    ``order`` (in,) is split at ``min(out, in) - count``; the signs are LAPACK's for that order of columns.
    """
    k = min(weight.shape)
    (r,) = scipy.linalg.qr(weight[:, order], mode="r", check_finite=False)
    _, inner = scipy.linalg.qr(r[k - count : k, k - count :], mode="r", pivoting=True, check_finite=False)
    chosen = order[k - count :][inner[:count]]
    unit = np.eye(k)[:, k - count :]
    columns = weight[:, np.concatenate([order[: k - count], chosen])]
    q, _ = scipy.linalg.qr_multiply(columns, unit, mode="left")
    return chosen, np.ascontiguousarray(q)


class _Split:
    """R11^-1, R11^-1 R12 and R22 of one split, kept up to date through exchanges of columns.

    Coordinates are those of the economy Q at construction: every vector below has length m = min(out, in).

    Attributes:
        inverse: (k, m), the pseudo-inverse of the first k columns; its rows' lengths are those of R11^-1.
        coefficients: (k, n - k), R11^-1 R12.
        residual: (n - k columns of length m - k), R22 in an orthonormal basis that changes with each exchange.
    """

    def __init__(self, weight: Array, order: Indices, split: int) -> None:
        (r,) = scipy.linalg.qr(weight[:, order], mode="r", check_finite=False)
        size = min(weight.shape)
        r11 = r[:split, :split]
        self.inverse = np.zeros((split, size))
        self.inverse[:, :split] = scipy.linalg.solve_triangular(r11, np.eye(split), check_finite=False)
        self.coefficients = scipy.linalg.solve_triangular(r11, r[:split, split:], check_finite=False)
        self.residual = np.ascontiguousarray(r[split:size, split:])
        self.basis = np.eye(size)[:, split:]
        self.row_norms = np.einsum("ij,ij->i", self.inverse, self.inverse)
        self.column_norms = np.einsum("ij,ij->j", self.residual, self.residual)

    def worst(self) -> tuple[int, int]:
        """Row and column of the largest rho."""
        squares = self.coefficients**2
        squares += np.outer(self.row_norms, self.column_norms)
        row, column = np.unravel_index(np.argmax(squares), squares.shape)
        return int(row), int(column)

    def growth(self, row: int, column: int) -> float:
        """rho of one exchange."""
        product = self.row_norms[row] * self.column_norms[column]
        return float(np.sqrt(self.coefficients[row, column] ** 2 + product))

    def exchange(self, row: int, column: int) -> None:
        """Exchange column ``row`` of the first k with column ``column`` of the others.

        Let v be the unit vector along row i of the pseudo-inverse: the part of the leaving column c that no other of
        the k explains, <v, c> = omega. The entering column d = C t + e has the component beta = t_i omega along v and
        the residual e, of length gamma; so in the new block z = beta v + e takes the place of v.
        """
        omega = self.row_norms[row] ** -0.5
        v = self.inverse[row] * omega
        gamma = self._turn_basis(column)
        e = self.basis[:, 0]
        t, along_v, along_e = self.coefficients[:, column].copy(), self.coefficients[row] * omega, self.residual[0]
        beta = along_v[column]
        length = np.hypot(beta, gamma)
        cosine, sine = beta / length, gamma / length
        z = cosine * v + sine * e
        along_z, along_rest = cosine * along_v + sine * along_e, cosine * along_e - sine * along_v

        # Pseudo-inverse without c: every row loses its part along v. Then with d: it must vanish on d.
        parts = self.inverse @ v
        parts[row] = 0
        on_d = t - parts * beta
        on_d[row] = 0
        self.inverse -= np.outer(parts, v) + np.outer(on_d / length, z)
        self.inverse[row] = z / length
        self.coefficients -= np.outer(parts, along_v) + np.outer(on_d / length, along_z)
        self.coefficients[row] = along_z / length
        self.residual[0] = along_rest
        self.basis[:, 0] = cosine * e - sine * v

        # The column that left has omega along v and nothing along e; its old coefficients were those of a unit vector.
        self.coefficients[:, column] = -(parts + on_d * (cosine / length)) * omega
        self.coefficients[row, column] = cosine * omega / length
        self.residual[:, column] = 0
        self.residual[0, column] = -sine * omega
        self.row_norms = np.einsum("ij,ij->i", self.inverse, self.inverse)
        self.column_norms = np.einsum("ij,ij->j", self.residual, self.residual)

    def _turn_basis(self, column: int) -> float:
        """Reflect the residual's basis so that one column's residual lies along its first vector; its length."""
        target = self.residual[:, column].copy()
        gamma = float(np.linalg.norm(target))
        if gamma == 0:
            return 0.0
        target[0] += np.copysign(gamma, target[0])
        scale = 2 / (target @ target)
        self.residual -= np.outer(target * scale, target @ self.residual)
        self.basis -= np.outer(self.basis @ target, target * scale)
        return float(self.residual[0, column])
