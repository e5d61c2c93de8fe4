"""``losses=smoothness``: neighbours with one label are to get one answer. Read whenever a command starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class SmoothnessConfig:
    """``weight`` of the loss, which grows from 0 over the first ``warmup`` steps."""

    kind: str = "smoothness"
    name: str = "smoothness"
    weight: float = 0.1
    warmup: int = 500

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong) for every bad value."""
        if not self.weight > 0:
            yield "weight", "must be above 0"
        if self.warmup < 1:
            yield "warmup", "must be at least 1"

    def build(self, channels: Sequence[int], num_classes: int) -> Callable[[Any], dict[str, Any]]:
        """The loss for levels of these channels and so many classes."""
        from smoothness_loss.loss import Smoothness

        return Smoothness(self.weight, self.warmup)
