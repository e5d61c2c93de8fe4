"""Options of methods that work in some of the blocks, or on some of their linear layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from recyclelora.adapters.blocks import check_selection
from recyclelora.system.checks import Problem, above_zero, at_least, checked

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


@dataclass
class BlocksConfig:
    """In which blocks a method works, and how what it trains learns."""

    blocks: str = ":"
    """which blocks, as slices and numbers"""
    lr_mult: float = checked(1.0, above_zero)
    """learning rate relative to the optimizer's"""
    weight_decay: Optional[float] = checked(0.0, at_least, 0)
    """of what it trains; null takes the optimizer's"""

    def check(self) -> Iterator[Problem]:
        """What is wrong with the values, by key."""
        yield from check_selection(["*"], self.blocks)


@dataclass
class LayersConfig(BlocksConfig):
    """Which linear layers a method adapts, and how what it adds learns."""

    targets: list[str] = field(default_factory=lambda: ["*"])
    """patterns over the names of linear layers"""

    def check(self) -> Iterator[Problem]:
        """What is wrong with the values, by key."""
        yield from super().check()
        yield from check_selection(self.targets, ":")
