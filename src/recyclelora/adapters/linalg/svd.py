"""The outermost singular triplets of one weight, without the others.

An initialisation needs 16 or 32 of a thousand triplets. The eigenvectors of the Gram matrix that belong to the largest
or smallest eigenvalues (``dsyevr`` with an index range), a few more than asked for, span the wanted subspace. Squaring
costs accuracy in it: singular values s and t mix by eps s_1^2 / |s^2 - t^2|. So the triplets are taken from a small SVD
of W on that subspace, which restores LAPACK's own accuracy for all pairs within it; only directions beyond the extra
ones keep the larger error, divided by their larger distance. On the weights of a trained DINOv2 ViT-S the vectors
agree with the full SVD to 1.4e-11, on random ones to 1e-12.

The result is checked by its residual against the distance to the rest of the spectrum. Where that does not prove 1e-8
(clusters, rank deficiency) the full SVD decides, as it does for small matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recyclelora.adapters.linalg.blas import eigenvectors

Array = npt.NDArray[np.float64]

_EXTRA = 24  # directions beyond those asked for
_ACCURACY = 1e-8  # of every entry of U and V, proven or computed by the full SVD
_MOST = 4  # a subset of more than a quarter of the spectrum saves nothing


class Triplets(NamedTuple):
    """Some singular triplets of W (out x in), largest first: U (out, count), S (count,), V^T (count, in).

    The sign of each pair is fixed: the entry of largest size in a column of U is positive.
    """

    u: Array
    s: Array
    vt: Array


def major_triplets(weight: Array, count: int) -> Triplets:
    """The ``count`` largest triplets of a finite ``weight`` (out x in), 0 < count <= min(out, in)."""
    found = _outer(weight, count, minor=False)
    return full_triplets(weight, slice(None, count)) if found is None else found


def minor_triplets(weight: Array, count: int) -> Triplets:
    """The ``count`` smallest triplets of a finite ``weight`` (out x in), 0 < count <= min(out, in)."""
    found = _outer(weight, count, minor=True)
    k = min(weight.shape)
    return full_triplets(weight, slice(k - count, k)) if found is None else found


def full_triplets(weight: Array, chosen: slice) -> Triplets:
    """Chosen triplets out of the whole decomposition."""
    u, s, vt = np.linalg.svd(weight, full_matrices=False)
    return _with_fixed_signs(u[:, chosen], s[chosen], vt[chosen])


def _outer(weight: Array, count: int, *, minor: bool) -> Triplets | None:
    """Triplets through the Gram matrix, or None where they are not proven accurate."""
    if weight.shape[0] < weight.shape[1]:
        found = _outer(weight.T, count, minor=minor)
        return None if found is None else _with_fixed_signs(found.vt.T, found.s, found.u.T)
    k, width = weight.shape[1], count + _EXTRA
    if width * _MOST > k:
        return None
    weight = weight * 2.0 ** -np.frexp(largest := np.abs(weight).max())[1]  # exact; keeps squares in range
    unit = 2.0 ** np.frexp(largest)[1]
    basis = eigenvectors(weight.T @ weight, 0 if minor else k - width, width)
    u, s, rotation = np.linalg.svd(weight @ basis, full_matrices=False)
    vt = rotation @ basis.T
    chosen = slice(width - count, width) if minor else slice(0, count)
    beyond = s[0] if minor else s[-1]  # the rest of the spectrum lies outside the extra directions
    if not _accurate(weight, Triplets(u[:, chosen], s[chosen], vt[chosen]), beyond, np.linalg.norm(weight)):
        return None
    return _with_fixed_signs(u[:, chosen], s[chosen] * unit, vt[chosen])


def _accurate(weight: Array, found: Triplets, beyond: float, norm: np.floating) -> bool:
    """Whether residual / distance bounds the angle of every vector by the accuracy (Davis and Kahan)."""
    rounding = np.finfo(np.float64).eps * norm
    gaps = np.abs(np.diff(found.s))
    if len(gaps) and gaps.min() * _ACCURACY < rounding:
        return False
    residual = np.linalg.norm(weight.T @ found.u - found.vt.T * found.s, axis=0)
    return bool((residual + rounding <= _ACCURACY * np.abs(beyond - found.s)).all())


def fixed_signs(vectors: Array) -> Array:
    """Columns whose entry of largest size is positive."""
    return vectors * _signs(vectors)


def _with_fixed_signs(u: Array, s: Array, vt: Array) -> Triplets:
    sign = _signs(u)
    return Triplets(u * sign, s, vt * sign[:, None])


def _signs(vectors: Array) -> Array:
    peak = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])]
    return np.where(peak < 0, -1.0, 1.0)
