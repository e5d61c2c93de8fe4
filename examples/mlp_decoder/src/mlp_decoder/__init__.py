"""``decoder=mlp``: two layers on every patch of the deepest level. Options only: read whenever a command starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass
class MlpDecoderConfig:
    """A hidden layer of ``width`` channels; ``lr_mult`` is relative to the optimizer's learning rate."""

    kind: str = "mlp"
    name: str = "mlp"
    lr_mult: float = 1.0
    width: int = 256

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong) for every bad value."""
        if self.width < 1:
            yield "width", "must be at least 1"

    def build(self, channels: Sequence[int], num_classes: int) -> nn.Module:
        """The decoder for levels of these channels."""
        from mlp_decoder.decoder import MlpDecoder

        return MlpDecoder(channels[-1], self.width, num_classes)
