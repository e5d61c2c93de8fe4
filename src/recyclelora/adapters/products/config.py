"""Options of methods that put a product of two small factors into another form. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recyclelora.adapters.layers import LayersConfig
from recyclelora.system.checks import above_zero, at_least, checked

if TYPE_CHECKING:
    from recyclelora.adapters.method import Method


@dataclass
class KasaConfig(LayersConfig):
    """KaSA: the smallest singular triplets of a weight are dropped, new ones are learned in their place."""

    kind: str = "kasa"
    name: str = "kasa"
    rank: int = checked(16, at_least, 1)
    """triplets dropped, and learned"""
    alpha: float = checked(16.0, above_zero)
    """the layer's scale is s = alpha / rank"""
    shrinkage: float = checked(1e-4, at_least, 0)
    """weight of the penalty on learned singular values"""
    orthogonality: float = checked(1e-3, at_least, 0)
    """weight of the penalty that keeps learned vectors near orthonormal"""
    across_blocks: ClassVar[bool] = True
    """its penalty looks at the layers of all blocks"""

    def method(self) -> Method:
        from recyclelora.adapters.products.kasa import KaSA

        return KaSA(self)


@dataclass
class DeloraConfig(LayersConfig):
    """DeLoRA: every rank-one part of the update has one length, which is learned apart from its direction."""

    kind: str = "delora"
    name: str = "delora"
    rank: int = checked(16, at_least, 1)
    """rows of A, columns of B"""
    strength: float = checked(15.0, above_zero)
    """where the learned bound of the update, lambda, starts"""

    def method(self) -> Method:
        from recyclelora.adapters.products.delora import DeLoRA

        return DeLoRA(self)


@dataclass
class HiraConfig(LayersConfig):
    """HiRA: a low-rank product that multiplies the weight entry by entry, an update of full rank."""

    kind: str = "hira"
    name: str = "hira"
    rank: int = checked(16, at_least, 1)
    """rows of A, columns of B"""

    def method(self) -> Method:
        from recyclelora.adapters.products.hira import HiRA

        return HiRA(self)
