"""Options of the group ``losses``: each dataclass has its defaults, says what is wrong and builds its loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from recyclelora.system.checks import Problem, above_zero, at_least, checked, one_of

if TYPE_CHECKING:  # at run time nothing here imports torch
    from recyclelora.models.losses.loss import ExtraLoss


@dataclass
class GecoConfig:
    """GeCo: scores stay what they are where the last level moves along the tangents of its own tokens."""

    kind: str = "geco"
    name: str = "geco"
    weight: float = checked(0.1, above_zero)
    """of the loss"""
    start: int = checked(1000, at_least, 0)
    """steps without it"""
    size: float = checked(0.1, above_zero)
    """length of a perturbation, relative to what ``relative_to`` names"""
    relative_to: str = checked("norm", one_of, ("norm", "rms"))
    """a token's ``norm``, or as in the released code its root mean square, ``rms``: 32 times less at 1,024 channels"""
    compares: str = checked("probabilities", one_of, ("probabilities", "scores"))
    """the decoder's ``probabilities``, or as in the released code the softmax of its ``scores``, which for a decoder of
    masks are numbers near 0 and 1, so that the softmax is nearly flat"""
    tokens: int = 1024
    """most tokens of an image that move, drawn in every step"""
    neighbours: int = checked(8, at_least, 1)
    """nearest tokens that span the tangents"""
    directions: int = 4
    """of the tangents, the largest"""
    off_tangent: float = checked(0.2, at_least, 0)
    """share of the other directions at the flatter half of the tokens"""

    def check(self) -> Iterator[Problem]:
        if self.tokens <= self.neighbours:
            yield "tokens", f"must be above neighbours={self.neighbours}"
        if not 1 <= self.directions <= self.neighbours:
            yield "directions", f"must lie between 1 and neighbours={self.neighbours}"

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
    weight: float = checked(0.1, above_zero)
    """of the loss"""
    strength: float = checked(0.5, above_zero)
    """standard deviation of the change of each channel's mean, relative to its standard deviation, and of the logarithm
    of the standard deviation"""

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
    weight: float = checked(0.1, at_least, 0)
    """of the overlap with the pretrained weight"""
    between: float = checked(0.1, at_least, 0)
    """of the overlap of a layer's adapters"""
    across_blocks: ClassVar[bool] = True
    """it looks at the layers of all blocks"""

    def check(self) -> Iterator[Problem]:
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
