"""Options of the losses of decoders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from recyclelora.system.checks import Problem, above_zero, at_least, checked, one_of, within

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


@dataclass
class PixelLossConfig:
    """The loss of a dense decoder, a sum of three."""

    cross_entropy: float = checked(1.0, at_least, 0)
    """weight of the cross-entropy; 0 leaves it out"""
    label_smoothing: float = checked(0.0, within, "[0, 1)")
    """share of a label that is spread over all classes"""
    focal: float = checked(0.0, at_least, 0)
    """exponent by which pixels count less that are right already; 2 in the focal loss's paper"""
    class_weights: dict[str, float] = field(default_factory=dict)
    """class -> weight of its pixels in the cross-entropy; others have 1"""
    balance: Optional[str] = checked(None, one_of, ("median", "log"))
    """``median`` or ``log``: rare classes of the training masks weigh more, by median frequency or as in ENet"""
    dice: float = checked(0.0, at_least, 0)
    """weight of the Dice loss"""
    lovasz: float = checked(0.0, at_least, 0)
    """weight of the Lovász loss, which follows the IoU"""

    def check(self) -> Iterator[Problem]:
        """Yield what no loss can be made of."""
        if not self.cross_entropy + self.dice + self.lovasz > 0:
            yield "cross_entropy", "must be above 0 where dice and lovasz are 0"
        for name, weight in self.class_weights.items():
            yield from at_least(f"class_weights.{name}", weight, 0)


@dataclass
class MaskLossConfig:
    """Mask2Former's loss; the three weights serve its matching too."""

    class_weight: float = checked(2.0, at_least, 0)
    """of the class loss"""
    mask_weight: float = checked(5.0, at_least, 0)
    """of the masks' binary cross-entropy"""
    dice_weight: float = checked(5.0, at_least, 0)
    """of the masks' dice loss"""
    no_object_weight: float = checked(0.1, above_zero)
    """of queries without a class, relative to 1 for the others"""
    num_points: int = checked(12544, at_least, 1)
    """where masks are compared"""
    oversample: float = checked(3.0, at_least, 1)
    """points drawn for each that is kept for being uncertain"""
    importance: float = checked(0.75, within, "[0, 1]")
    """share of the points that are uncertain ones"""
