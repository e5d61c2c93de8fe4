"""Initial factors B0 (out x rank) and A0 (rank x in) of one branch, one function per initialisation.

RecycleLoRA: arXiv 2603.28142, section 3; its relatives are cited at their functions.
Every function takes the layer, the rank and a random generator; the deterministic ones ignore the last.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recyclelora.adapters.low_rank.factors import Factors, LayerWeight
from recyclelora.adapters.low_rank.init_data import (
    corda_ipm,
    corda_kpm,
    eva,
    lora_ga,
    lora_null,
    lora_one,
    rrqr_major_data,
    rrqr_minor_data,
    rrqr_null,
)
from recyclelora.adapters.low_rank.init_qr import qr, rrqr_major, rrqr_major_values, rrqr_minor, rrqr_minor_values
from recyclelora.adapters.low_rank.init_random import gaussian, kaiming, orthogonal, orthonormal
from recyclelora.adapters.low_rank.init_svd import svd_major, svd_minor, svd_minor_left, svd_minor_unloaded

Initializer = Callable[[LayerWeight, int, np.random.Generator], Factors]

INITIALIZERS: dict[str, Initializer] = {
    "kaiming": kaiming,
    "gaussian": gaussian,
    "orthogonal": orthogonal,
    "orthonormal": orthonormal,
    "svd_major": svd_major,
    "svd_minor": svd_minor,
    "svd_minor_left": svd_minor_left,
    "svd_minor_unloaded": svd_minor_unloaded,
    "qr": qr,
    "rrqr_major": rrqr_major,
    "rrqr_minor": rrqr_minor,
    "rrqr_major_values": rrqr_major_values,
    "rrqr_minor_values": rrqr_minor_values,
    "rrqr_major_data": rrqr_major_data,
    "rrqr_minor_data": rrqr_minor_data,
    "rrqr_null": rrqr_null,
    "lora_null": lora_null,
    "corda_kpm": corda_kpm,
    "corda_ipm": corda_ipm,
    "eva": eva,
    "lora_ga": lora_ga,
    "lora_one": lora_one,
}

RRQR_MAJOR = ("rrqr_major", "rrqr_major_values")
RRQR_MINOR = ("rrqr_minor", "rrqr_minor_values")
