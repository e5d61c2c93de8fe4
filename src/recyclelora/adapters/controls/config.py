"""Options of the conventional controls, which every comparison of adapters needs beside the low-rank ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from recyclelora.adapters.layers import BlocksConfig
from recyclelora.system.checks import above_zero, added, at_least, checked, within

if TYPE_CHECKING:  # at run time nothing here imports torch
    from recyclelora.adapters.method import Method

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


@dataclass
class FrozenConfig:
    """Nothing of the backbone trains."""

    kind: str = "frozen"
    name: str = "frozen"

    def method(self) -> Method:
        from recyclelora.adapters.controls.whole import Frozen

        return Frozen()


@dataclass
class FullConfig:
    """Everything of the backbone trains, at a fraction of the decoder's learning rate."""

    kind: str = "full"
    name: str = "full"
    lr_mult: float = checked(0.1, above_zero)
    """learning rate relative to the optimizer's"""
    weight_decay: Optional[float] = checked(None, at_least, 0)
    """of what decays; null takes the optimizer's"""
    decay_all: bool = added(False)
    """whether norms, biases and LayerScale decay too, as where a configuration in mmengine's way has one rule for
    ``backbone``: it is preferred to the one for ``norm``, whose name is shorter"""

    def method(self) -> Method:
        from recyclelora.adapters.controls.whole import Full

        return Full(self)


@dataclass
class NormsConfig(BlocksConfig):
    """The norms of the blocks train, and all their biases."""

    kind: str = "norms"
    name: str = "norms"
    biases: bool = True
    """whether the biases of the other layers train too"""

    def method(self) -> Method:
        from recyclelora.adapters.controls.whole import Norms

        return Norms(self)


@dataclass
class AdaptFormerConfig(BlocksConfig):
    """AdaptFormer: a narrow network beside the MLP of every block."""

    kind: str = "adaptformer"
    name: str = "adaptformer"
    width: int = checked(64, at_least, 1)
    """channels between its two layers"""
    scale: float = checked(0.1, above_zero)
    """of what it adds"""

    def method(self) -> Method:
        from recyclelora.adapters.controls.adaptformer import AdaptFormer

        return AdaptFormer(self)


@dataclass
class VptConfig(BlocksConfig):
    """VPT-deep: learned prompts among the tokens, new ones for every block."""

    kind: str = "vpt"
    name: str = "vpt"
    num_prompts: int = checked(150, at_least, 1)
    """prompts of a block"""
    dropout: float = checked(0.1, within, "[0, 1)")
    """of the prompts in training"""

    def method(self) -> Method:
        from recyclelora.adapters.controls.vpt import Vpt

        return Vpt(self)
