"""Options of what is done to training images, ``data.augment``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from recyclelora.system.checks import Problem, added, at_least, checked, one_of, within

LIGHT_CORRUPTIONS = ("blur", "noise", "jpeg")


@dataclass
class AugmentConfig:
    """The published training augmentation, in its order, then options that are off at probability 0. Sizes in pixels.

    :mod:`recyclelora.data.extra_augmentation` tells what those options do.
    """

    crop: list[int] = field(default_factory=lambda: [512, 512])
    """[height, width] that the model sees"""
    short_edges: list[int] = field(default_factory=list)
    """one is drawn for the short edge of each image"""
    max_long_edge: int = checked(2048, at_least, 1)
    """of a resized image"""
    max_class_ratio: float = checked(0.75, within, "[0, 1]")
    """largest share of one class in a crop, else it is drawn again"""
    max_redraws: int = checked(10, at_least, 0)
    """of a crop"""
    flip: float = checked(0.5, within, "[0, 1]")
    """probability of a mirror image"""
    brightness: float = checked(32.0, at_least, 0)
    """largest shift of grey levels"""
    contrast: list[float] = field(default_factory=lambda: [0.5, 1.5])
    """[low, high] of the factor"""
    saturation: list[float] = field(default_factory=lambda: [0.5, 1.5])
    """[low, high] of the factor"""
    hue: int = checked(18, at_least, 0)
    """largest turn, of 180 once around"""
    hue_half_open: bool = added(False)
    """whether +``hue`` itself is never drawn, as in mmsegmentation"""
    photometric: float = checked(0.5, within, "[0, 1]")
    """probability of each of the four changes above"""
    padding: str = added("first", one_of, ("first", "last"))
    """of small images: ``first`` (black, before flip and colours) or ``last`` (0 behind the normalisation)"""
    style_jitter: float = checked(0.0, within, "[0, 1]")
    """probability of other means and deviations of the colours"""
    style_strength: float = checked(0.3, at_least, 0)
    """of these changes"""
    style_mix: float = checked(0.0, within, "[0, 1]")
    """probability of means and deviations of the colours moved towards another image's"""
    fourier: float = checked(0.0, within, "[0, 1]")
    """probability of low frequencies moved towards another image's"""
    fourier_beta: float = 0.01
    """frequencies below this share of the crop's shorter side are low"""
    class_mix: float = checked(0.0, within, "[0, 1]")
    """probability of half of another image's classes pasted in"""
    corruption: float = checked(0.0, within, "[0, 1]")
    """probability of one of ``corruption_kinds``"""
    corruption_kinds: list[str] = field(default_factory=lambda: [*LIGHT_CORRUPTIONS])
    """that are drawn from"""

    def check(self) -> Iterator[Problem]:
        if len(self.crop) != 2 or min(self.crop) < 1:
            yield "crop", "must be [height, width] in pixels"
        if not self.short_edges or min(self.short_edges) < 1:
            yield "short_edges", "must list at least one positive length in pixels"
        for name in ("contrast", "saturation"):
            if len(getattr(self, name)) != 2 or not 0 <= getattr(self, name)[0] <= getattr(self, name)[1]:
                yield name, "must be [low, high] with 0 <= low <= high"
        if not 0 < self.fourier_beta < 0.5:
            yield "fourier_beta", "must lie between 0 and 0.5, as a share of the crop's shorter side"
        if not self.corruption_kinds:
            yield "corruption_kinds", f"must name at least one of {', '.join(LIGHT_CORRUPTIONS)}"
        for kind in self.corruption_kinds:
            yield from one_of("corruption_kinds", kind, LIGHT_CORRUPTIONS)
