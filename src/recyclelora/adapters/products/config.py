"""Options of methods that put a product of two small factors into another form. Without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recyclelora.adapters.layers import LayersConfig
from recyclelora.system.checks import Problem, above_zero, at_least

if TYPE_CHECKING:
    from recyclelora.adapters.method import Method


@dataclass
class KasaConfig(LayersConfig):
    """KaSA: the smallest singular triplets of a weight are dropped, new ones are learned in their place."""

    kind: str = "kasa"
    name: str = "kasa"
    rank: int = 16
    """triplets dropped, and learned"""
    alpha: float = 16.0
    """the layer's scale is s = alpha / rank"""
    shrinkage: float = 1e-4
    """weight of the penalty on learned singular values"""
    orthogonality: float = 1e-3
    """weight of the penalty that keeps learned vectors near orthonormal"""

    def check(self) -> Iterator[Problem]:
        yield from super().check()
        yield from at_least("rank", self.rank, 1)
        yield from above_zero("alpha", self.alpha)
        yield from at_least("shrinkage", self.shrinkage, 0)
        yield from at_least("orthogonality", self.orthogonality, 0)

    def method(self) -> Method:
        from recyclelora.adapters.products.kasa import KaSA

        return KaSA(self)


@dataclass
class DeloraConfig(LayersConfig):
    """DeLoRA: every rank-one part of the update has one length, which is learned apart from its direction."""

    kind: str = "delora"
    name: str = "delora"
    rank: int = 16
    """rows of A, columns of B"""
    strength: float = 15.0
    """where the learned bound of the update, lambda, starts"""

    def check(self) -> Iterator[Problem]:
        yield from super().check()
        yield from at_least("rank", self.rank, 1)
        yield from above_zero("strength", self.strength)

    def method(self) -> Method:
        from recyclelora.adapters.products.delora import DeLoRA

        return DeLoRA(self)


@dataclass
class HiraConfig(LayersConfig):
    """HiRA: a low-rank product that multiplies the weight entry by entry, an update of full rank."""

    kind: str = "hira"
    name: str = "hira"
    rank: int = 16
    """rows of A, columns of B"""

    def check(self) -> Iterator[Problem]:
        yield from super().check()
        yield from at_least("rank", self.rank, 1)

    def method(self) -> Method:
        from recyclelora.adapters.products.hira import HiRA

        return HiRA(self)
