"""BLAS and LAPACK calls that neither numpy nor scipy offers as needed: without holding the GIL.

Layers in a thread pool would wait for each other: numpy's products release the GIL but cannot accumulate, scipy's
``dgemm`` and ``eigh`` hold it, numpy's ``eigh`` computes all eigenvectors. ``scipy.linalg.cython_blas`` and
``cython_lapack`` publish the same routines as C pointers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cython_blas, cython_lapack

Array = npt.NDArray[Any]


def subtract_product(left: Array, right: Array, target: Array) -> None:
    """``target -= left @ right.T`` in place; (m x k), (n x k) and (m x n), all Fortran-ordered, of one float type.

    Raises:
        ValueError: for other layouts, types or shapes (the C routine would write anywhere).
    """
    (rows, inner), (columns, _) = left.shape, right.shape
    arrays = (left, right, target)
    if not all(array.flags.f_contiguous and array.dtype == target.dtype for array in arrays):
        raise ValueError("subtract_product needs Fortran-ordered arrays of one type")
    if target.shape != (rows, columns) or right.shape[1] != inner or not target.flags.writeable:
        raise ValueError(f"subtract_product: shapes {left.shape} x {right.shape} do not give {target.shape}")
    if 0 in (rows, columns, inner):
        return
    number = ctypes.c_double if target.dtype == np.float64 else ctypes.c_float
    m, n, k = (ctypes.byref(ctypes.c_int(size)) for size in (rows, columns, inner))
    minus, one = ctypes.byref(number(-1)), ctypes.byref(number(1))
    a, b, c = (ctypes.c_void_p(array.ctypes.data) for array in arrays)
    _routine("dgemm" if target.dtype == np.float64 else "sgemm")(b"N", b"T", m, n, k, minus, a, m, b, n, one, c, m)


def eigenvectors(matrix: Array, first: int, count: int) -> Array:
    """Orthonormal eigenvectors (n, count) of a symmetric float64 ``matrix`` (n, n), ascending, from number ``first``.

    The matrix is not changed; only one of its triangles is read.

    Raises:
        ValueError: for another shape, type or range, or where LAPACK finds no solution.
    """
    n = len(matrix)
    if matrix.shape != (n, n) or matrix.dtype != np.float64 or not 0 <= first < first + count <= n:
        raise ValueError(f"eigenvectors {first} to {first + count - 1} of a {matrix.shape} {matrix.dtype} matrix")
    work_matrix = np.array(matrix, order="F")
    values, vectors = np.empty(n), np.empty((n, count), order="F")
    support = np.empty(2 * count, dtype=np.intc)
    work, integers = np.empty(1), np.empty(1, dtype=np.intc)
    found, info = ctypes.c_int(), ctypes.c_int()

    def pointer(array: Array) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    def integer(value: int) -> Any:
        return ctypes.byref(ctypes.c_int(value))

    zero = ctypes.byref(ctypes.c_double(0))
    for sizes in ((-1, -1), None):  # ask how much work space it wants, then solve
        if sizes is None:
            work, integers = np.empty(int(work[0])), np.empty(integers[0], dtype=np.intc)
            sizes = len(work), len(integers)
        _routine("dsyevr")(
            b"V", b"I", b"L", integer(n), pointer(work_matrix), integer(n), zero, zero,
            integer(first + 1), integer(first + count), zero, ctypes.byref(found), pointer(values), pointer(vectors),
            integer(n), pointer(support), pointer(work), integer(sizes[0]), pointer(integers), integer(sizes[1]),
            ctypes.byref(info),
        )  # fmt: skip
    if info.value or found.value != count:
        raise ValueError(f"LAPACK dsyevr: info={info.value}, {found.value} of {count} eigenvectors found")
    return vectors


_LETTERS = {"dgemm": 2, "sgemm": 2, "dsyevr": 3}
"""How many letters come first; all other arguments are pointers."""
_POINTERS = {"dgemm": 11, "sgemm": 11, "dsyevr": 18}


@cache
def _routine(name: str) -> Callable[..., None]:
    """A Fortran routine as a foreign function; ctypes releases the GIL while it runs."""
    library = cython_blas if name.endswith("gemm") else cython_lapack
    capsule = library.__pyx_capi__[name]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    address = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    letters, pointers = _LETTERS[name], _POINTERS[name]
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_char_p] * letters, *[ctypes.c_void_p] * pointers)
    return signature(address)
