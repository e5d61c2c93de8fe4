"""Options of the group ``losses``: each dataclass has its defaults, says what is wrong and builds its loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recyclelora.system.checks import Problem, above_zero, at_least, one_of

if TYPE_CHECKING:  # at run time nothing here imports torch
    from recyclelora.models.losses.loss import ExtraLoss


@dataclass
class GecoConfig:
    """GeCo: scores stay what they are where the last level moves along the tangents of its own tokens."""

    kind: str = "geco"
    name: str = "geco"
    weight: float = 0.1
    """of the loss"""
    start: int = 1000
    """steps without it"""
    size: float = 0.1
    """length of a perturbation, relative to what ``relative_to`` names"""
    relative_to: str = "norm"
    """a token's ``norm``, or as in the released code its root mean square, ``rms``: 32 times less at 1,024 channels"""
    compares: str = "probabilities"
    """the decoder's ``probabilities``, or as in the released code the softmax of its ``scores``, which for a decoder of
    masks are numbers near 0 and 1, so that the softmax is nearly flat"""
    tokens: int = 1024
    """most tokens of an image that move, drawn in every step"""
    neighbours: int = 8
    """nearest tokens that span the tangents"""
    directions: int = 4
    """of the tangents, the largest"""
    off_tangent: float = 0.2
    """share of the other directions at the flatter half of the tokens"""

    def check(self) -> Iterator[Problem]:
        yield from above_zero("weight", self.weight)
        yield from at_least("start", self.start, 0)
        yield from above_zero("size", self.size)
        yield from one_of("relative_to", self.relative_to, ("norm", "rms"))
        yield from one_of("compares", self.compares, ("probabilities", "scores"))
        yield from at_least("neighbours", self.neighbours, 1)
        if self.tokens <= self.neighbours:
            yield "tokens", f"must be above neighbours={self.neighbours}"
        if not 1 <= self.directions <= self.neighbours:
            yield "directions", f"must lie between 1 and neighbours={self.neighbours}"
        yield from at_least("off_tangent", self.off_tangent, 0)

    def check_with(self, adapter: Any, max_steps: int) -> Iterator[Problem]:
        if self.start >= max_steps > 0:
            yield "start", f"must be below trainer.max_steps={max_steps}: the loss would never be added"

    def build(self, channels: Sequence[int], num_classes: int) -> ExtraLoss:
        from recyclelora.models.losses.geco import Geco

        return Geco(self)


@dataclass
class StyleConsistencyConfig:
    """Features stay what they are where colours and contrast of the image change."""

    kind: str = "style_consistency"
    name: str = "style_consistency"
    weight: float = 0.1
    """of the loss"""
    strength: float = 0.5
    """standard deviation of the change of each channel's mean, relative to its standard deviation, and of the logarithm
    of the standard deviation"""

    def check(self) -> Iterator[Problem]:
        yield from above_zero("weight", self.weight)
        yield from above_zero("strength", self.strength)

    def check_with(self, adapter: Any, max_steps: int) -> Iterator[Problem]:
        if adapter.kind == "frozen":
            yield "weight", "has nothing to change in a frozen backbone: use another adapter"

    def build(self, channels: Sequence[int], num_classes: int) -> ExtraLoss:
        from recyclelora.models.losses.style_consistency import StyleConsistency

        return StyleConsistency(self)


@dataclass
class OrthogonalityConfig:
    """Low-rank adapters stay apart from the pretrained weight and from each other, in the manner of PEGO."""

    kind: str = "orthogonality"
    name: str = "orthogonality"
    weight: float = 0.1
    """of the overlap with the pretrained weight"""
    between: float = 0.1
    """of the overlap of a layer's adapters"""

    def check(self) -> Iterator[Problem]:
        yield from at_least("weight", self.weight, 0)
        yield from at_least("between", self.between, 0)
        if self.weight == self.between == 0:
            yield "weight", "must be above 0, or between must"

    def check_with(self, adapter: Any, max_steps: int) -> Iterator[Problem]:
        if adapter.kind != "low_rank":
            yield "weight", f"needs an adapter of the low-rank family, such as lora; adapter={adapter.name} has no A"

    def build(self, channels: Sequence[int], num_classes: int) -> ExtraLoss:
        from recyclelora.models.losses.orthogonality import Orthogonality

        return Orthogonality(self)


LOSSES: dict[str, type] = {
    "geco": GecoConfig,
    "style_consistency": StyleConsistencyConfig,
    "orthogonality": OrthogonalityConfig,
}
"""What a loss's ``kind`` names. Other packages add theirs by entry points of the group ``recyclelora.losses``."""
