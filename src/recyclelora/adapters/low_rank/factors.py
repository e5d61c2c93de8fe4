"""What an initialisation is given, a pretrained weight, and what it makes: the factors B0 and A0 of one branch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recyclelora.adapters.calibration.statistics import Statistics
from recyclelora.adapters.linalg.rrqr import RRQR
from recyclelora.adapters.rounding import noise_level, stored_eps

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Factors:
    """Initial factors of a branch, on the CPU.

    Attributes:
        b: (out, rank) float32.
        a: (rank, in) float32, or None where every row is a unit vector,
        a_index: (rank,) int64: then the position of the one in each row.
        from_data: whether more than the seed and the weight is needed to make them again, whatever B0 is.
        shares: (rank,) how much each row of A is worth beside those of other layers, where ranks are shared out.
    """

    b: torch.Tensor
    a: torch.Tensor | None = None
    a_index: torch.Tensor | None = None
    from_data: bool = False
    shares: Array | None = None

    @classmethod
    def of(
        cls, b: npt.NDArray[Any], a: npt.NDArray[Any], *, from_data: bool = False, shares: Array | None = None
    ) -> Factors:
        """From B0 (out, rank) and A0 (rank, in) of any float type."""
        return cls(b=_float32(b), a=_float32(a), from_data=from_data, shares=shares)

    @classmethod
    def selecting(cls, b: npt.NDArray[Any], positions: npt.NDArray[np.int64]) -> Factors:
        """From B0 (out, rank) and the position (rank,) of the one in each row of A0."""
        return cls(b=_float32(b), a_index=torch.from_numpy(positions.copy()))

    @property
    def rank(self) -> int:
        """Number of columns of B."""
        return self.b.shape[1]

    def first(self, rank: int) -> Factors:
        """The same with fewer rows of A and columns of B."""
        assert self.a is not None
        return Factors(self.b[:, :rank].clone(), self.a[:rank].clone(), from_data=self.from_data)

    def dense_a(self, in_features: int) -> torch.Tensor:
        """A0 as a matrix (rank, in), float32."""
        if self.a is not None:
            return self.a
        assert self.a_index is not None
        return torch.zeros(self.rank, in_features).scatter_(1, self.a_index[:, None], 1.0)


@dataclass
class LayerWeight:
    """A pretrained weight (out x in), with its pivoted QR where an initialisation needs one.

    ``scale`` is the layer's s: the SVD initialisations divide by it so that ``s B0 A0`` is a part of the weight.
    ``name`` is for messages; ``statistics`` are those of the layer's data, for an initialisation that looks at them.
    """

    weight: torch.Tensor
    scale: float
    rrqr: RRQR | None = None
    name: str = "weight"
    statistics: Statistics | None = None

    @property
    def data(self) -> Statistics:
        """What a calibration pass tells of the layer.

        Raises:
            ValueError: there was none.
        """
        if self.statistics is None:
            raise ValueError("this start looks at data: only a training run has images for it to look at")
        return self.statistics

    @cached_property
    def matrix(self) -> Array:
        """The weight as float64.

        Raises:
            ValueError: for a weight that is not finite or all zeros.
        """
        array: Array = self.weight.detach().cpu().double().numpy()
        if not np.isfinite(array).all():
            raise ValueError("weight holds NaN or infinity; it has no decomposition")
        if not array.any():
            raise ValueError("weight is all zeros; it has no directions to start from")
        return array

    @cached_property
    def noise(self) -> float:
        """Singular values up to this are rounding: of the stored values, or of their decomposition in float64."""
        shape, matrix = tuple(self.weight.shape), self.matrix
        level = max(max(shape) * float(np.finfo(np.float64).eps), noise_level(shape, stored_eps(self.weight)))
        return level * float(np.linalg.norm(matrix, axis=0).max())


def branch_rng(seed: int, layer: str, branch: str) -> np.random.Generator:
    """Random numbers of one branch, independent of the order in which layers are visited."""
    digest = hashlib.sha256(f"{seed}/{layer}/{branch}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def _float32(array: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
