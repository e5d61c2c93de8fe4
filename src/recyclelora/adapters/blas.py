"""One BLAS call that neither numpy nor scipy offers as needed: subtract a product in place, without holding the GIL.

numpy's products release the GIL but cannot accumulate; scipy's ``dgemm`` accumulates but holds the GIL, so that layers
in a thread pool would wait for each other. ``scipy.linalg.cython_blas`` publishes the same routine as a C pointer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cython_blas

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
    _gemm(target.dtype.char)(b"N", b"T", m, n, k, minus, a, m, b, n, one, c, m)


@cache
def _gemm(kind: str) -> Callable[..., None]:
    """``dgemm`` ("d") or ``sgemm`` ("f") as a foreign function; ctypes releases the GIL while it runs."""
    capsule = cython_blas.__pyx_capi__["dgemm" if kind == "d" else "sgemm"]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    address = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_char_p] * 2, *[ctypes.c_void_p] * 11)
    return signature(address)
