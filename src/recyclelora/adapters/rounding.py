"""How much of a matrix rounding alone may have made: below that, its rank, spectrum and directions say nothing.

A weight is known to half a unit in the last place of the format in which it was stored, and what was calculated on its
way there (a pruned or merged weight) was calculated in float32, whatever holds it now.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

FLOAT32 = torch.finfo(torch.float32).eps
STORED = (torch.bfloat16, torch.float16, torch.float32)
"""Formats in which weights are published, coarsest first."""


def stored_eps(matrix: torch.Tensor | npt.NDArray[Any]) -> float:
    """Spacing of the numbers around 1 in the coarsest format that holds every value of ``matrix`` exactly.

    A bfloat16 file that was read into float32 is known by its values. float64's own where no other format does.
    """
    values = torch.from_numpy(np.ascontiguousarray(matrix)) if isinstance(matrix, np.ndarray) else matrix.detach()
    for kind in STORED:
        # the first row mostly shows what does not hold the others either
        if values.dtype == kind or (_holds(kind, values[:1]) and _holds(kind, values)):
            return float(torch.finfo(kind).eps)
    return float(torch.finfo(torch.float64).eps)


def _holds(kind: torch.dtype, values: torch.Tensor) -> bool:
    """Whether a format holds every value exactly."""
    return bool((values.to(kind).to(values.dtype) == values).all())


def noise_level(shape: tuple[int, ...], eps: float) -> float:
    """Entries of R of a pivoted QR that are rounding only, relative to the largest: at most this.

    Measured on low-rank matrices of every size in use: up to 2.7 ``eps`` from rounding the values, and up to 0.7 times
    the square root of the longer side from a product in float32; both bounds are a little above. 0 for float64.
    """
    if eps < FLOAT32:
        return 0.0
    return max(3 * eps, math.sqrt(max(shape)) * FLOAT32)
