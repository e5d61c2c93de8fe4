"""BitFit (Ben Zaken et al., 2022, arXiv 2106.10199): of the backbone only the biases train.

This file holds the options. It is read whenever a command starts, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recyclelora.adapters.method import Method


@dataclass
class BitFitConfig:
    """``adapter=bitfit``; ``norms`` trains the weights of the normalisation layers as well."""

    kind: str = "bitfit"
    name: str = "bitfit"
    lr_mult: float = 1.0
    norms: bool = False

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong) for every bad value."""
        if not self.lr_mult > 0:
            yield "lr_mult", "must be above 0"

    def method(self) -> Method:
        """What adapts a backbone."""
        from bitfit_adapter.method import BitFit

        return BitFit(self.lr_mult, self.norms)
