"""Options of the group ``decoder``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recyclelora.schemas.checks import Problem, above_zero


@dataclass
class LinearDecoderConfig:
    """One linear layer over the normalised features of the four levels."""

    kind: str = "linear"
    name: str = "linear"
    lr_mult: float = 1.0
    dropout: float = 0.0

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("lr_mult", self.lr_mult)
        if not 0 <= self.dropout < 1:
            yield "dropout", "must lie in [0, 1)"


DecoderConfig = LinearDecoderConfig
DECODERS: dict[str, type] = {"linear": LinearDecoderConfig}
