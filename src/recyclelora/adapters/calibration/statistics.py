"""What a calibration pass tells of a layer, and how a method asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

Array = npt.NDArray[np.float64]

MOMENTS, GRADIENTS = "moments", "gradients"
"""What can be asked for."""
SPLIT = ("q", "k", "v")
"""The rows of a fused qkv layer, in their order."""


@dataclass(frozen=True)
class Statistics:
    """Of one layer (out x in), over all tokens x of the images; what was not asked for is None.

    Attributes:
        moment: C = E[x x^T] (in, in), float64.
        mean: E[x] (in,), float64.
        gradient: mean over the images of dL/dW at W0 (out, in), float64.
    """

    moment: Array | None = None
    mean: Array | None = None
    gradient: Array | None = None
    _known: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    @property
    def spectrum(self) -> tuple[Array, Array]:
        """Eigenvalues (in,) of C, ascending, none below zero, and its eigenvectors (in, in) as columns."""
        if "values" not in self._known:  # no cached_property: in Python 3.11 that lets one thread in at a time
            assert self.moment is not None
            values, self._known["vectors"] = np.linalg.eigh(self.moment)
            self._known["values"] = values.clip(0)
        return self._known["values"], self._known["vectors"]

    @property
    def root(self) -> Array:
        """C^(1/2) (in, in), symmetric."""
        if "root" not in self._known:
            values, vectors = self.spectrum
            self._known["root"] = (vectors * np.sqrt(values)) @ vectors.T
        return self._known["root"]

    def rows(self, chosen: slice) -> Statistics:
        """Those of some rows of the layer, such as the q of a fused qkv: the inputs are the same."""
        if self.gradient is None:
            return self
        return Statistics(self.moment, self.mean, self.gradient[chosen], self._known)


def whole_layer(name: str) -> str:
    """The layer of the model that a layer is, or is the q, k or v rows of."""
    parent, _, part = name.rpartition(".")
    return parent if parent.endswith(".qkv") and part in SPLIT else name


def of_part(statistics: Statistics, name: str, height: int) -> Statistics:
    """Those of a layer of ``height`` outputs, out of those of the layer of the model."""
    if whole_layer(name) == name:
        return statistics
    first = SPLIT.index(name.rpartition(".")[2]) * height
    return statistics.rows(slice(first, first + height))


class Calibration(Protocol):
    """Images that a model can be shown."""

    def statistics(
        self, model: nn.Module, layers: Sequence[str], what: Sequence[str]
    ) -> Iterator[dict[str, Statistics]]:
        """Statistics of the named linear layers of ``model``, in parts that fit into memory, each layer once.

        Layers with one input in common share one Statistics where no gradient is asked for. ``model`` is as before
        when the last part has been taken.

        Raises:
            ValueError: naming the layer that no image reaches, or whose inputs are not finite.
        """
