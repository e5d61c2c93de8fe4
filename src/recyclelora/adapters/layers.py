"""The options of every method that works on linear layers. Without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from recyclelora.adapters.blocks import check_selection
from recyclelora.system.checks import Problem, above_zero, at_least


@dataclass
class LayersConfig:
    """Which linear layers a method adapts, and how what it adds learns."""

    targets: list[str] = field(default_factory=lambda: ["*"])
    """patterns over the names of linear layers"""
    blocks: str = ":"
    """which blocks, as slices and numbers"""
    lr_mult: float = 1.0
    """learning rate relative to the optimizer's"""
    weight_decay: float = 0.0
    """of what is added"""

    def check(self) -> Iterator[Problem]:
        """What is wrong with the values, by key."""
        yield from check_selection(self.targets, self.blocks)
        yield from above_zero("lr_mult", self.lr_mult)
        yield from at_least("weight_decay", self.weight_decay, 0)
