"""Options of the losses of decoders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from recyclelora.system.checks import Problem, above_zero, at_least, one_of, within

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


@dataclass
class PixelLossConfig:
    """The loss of a dense decoder, a sum of three."""

    cross_entropy: float = 1.0
    """weight of the cross-entropy; 0 leaves it out"""
    label_smoothing: float = 0.0
    """share of a label that is spread over all classes"""
    focal: float = 0.0
    """exponent by which pixels count less that are right already; 2 in the focal loss's paper"""
    class_weights: dict[str, float] = field(default_factory=dict)
    """class -> weight of its pixels in the cross-entropy; others have 1"""
    balance: Optional[str] = None
    """``median`` or ``log``: rare classes of the training masks weigh more, by median frequency or as in ENet"""
    dice: float = 0.0
    """weight of the Dice loss"""
    lovasz: float = 0.0
    """weight of the Lovász loss, which follows the IoU"""

    def check(self) -> Iterator[Problem]:
        """Yield what no loss can be made of."""
        for name in ("cross_entropy", "focal", "dice", "lovasz"):
            yield from at_least(name, getattr(self, name), 0)
        yield from within("label_smoothing", self.label_smoothing, "[0, 1)")
        if not self.cross_entropy + self.dice + self.lovasz > 0:
            yield "cross_entropy", "must be above 0 where dice and lovasz are 0"
        for name, weight in self.class_weights.items():
            yield from at_least(f"class_weights.{name}", weight, 0)
        yield from one_of("balance", self.balance, ("median", "log"))


@dataclass
class MaskLossConfig:
    """Mask2Former's loss; the three weights serve its matching too."""

    class_weight: float = 2.0
    """of the class loss"""
    mask_weight: float = 5.0
    """of the masks' binary cross-entropy"""
    dice_weight: float = 5.0
    """of the masks' dice loss"""
    no_object_weight: float = 0.1
    """of queries without a class, relative to 1 for the others"""
    num_points: int = 12544
    """where masks are compared"""
    oversample: float = 3.0
    """points drawn for each that is kept for being uncertain"""
    importance: float = 0.75
    """share of the points that are uncertain ones"""

    def check(self) -> Iterator[Problem]:
        """Yield what no loss can be made of."""
        for name in ("class_weight", "mask_weight", "dice_weight"):
            yield from at_least(name, getattr(self, name), 0)
        yield from above_zero("no_object_weight", self.no_object_weight)
        yield from at_least("num_points", self.num_points, 1)
        yield from at_least("oversample", self.oversample, 1)
        yield from within("importance", self.importance, "[0, 1]")
