"""Options of what is done to training images, ``data.augment``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from recyclelora.system.checks import Problem, added, at_least, one_of

LIGHT_CORRUPTIONS = ("blur", "noise", "jpeg")


@dataclass
class AugmentConfig:
    """The published training augmentation, in its order, then options that are off at probability 0. Sizes in pixels.

    Probabilities: ``flip``, ``photometric`` (for each of its four parts), and each option's own name. Small images are
    padded ``first`` (black, before flip and colours) or ``last`` (0 behind the normalisation). Hues turn by -``hue`` to
    ``hue``, which ``hue_half_open`` leaves out.
    :mod:`recyclelora.data.extras` tells what an option does.
    """

    crop: list[int] = field(default_factory=lambda: [512, 512])
    short_edges: list[int] = field(default_factory=list)
    max_long_edge: int = 2048
    max_class_ratio: float = 0.75
    max_redraws: int = 10
    flip: float = 0.5
    brightness: float = 32.0
    contrast: list[float] = field(default_factory=lambda: [0.5, 1.5])
    saturation: list[float] = field(default_factory=lambda: [0.5, 1.5])
    hue: int = 18
    hue_half_open: bool = added(False)
    photometric: float = 0.5
    padding: str = added("first")
    style_jitter: float = 0.0
    style_strength: float = 0.3
    style_mix: float = 0.0
    fourier: float = 0.0
    fourier_beta: float = 0.01
    class_mix: float = 0.0
    corruption: float = 0.0
    corruption_kinds: list[str] = field(default_factory=lambda: [*LIGHT_CORRUPTIONS])

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        if len(self.crop) != 2 or min(self.crop) < 1:
            yield "crop", "must be [height, width] in pixels"
        if not self.short_edges or min(self.short_edges) < 1:
            yield "short_edges", "must list at least one positive length in pixels"
        yield from at_least("max_long_edge", self.max_long_edge, 1)
        for name in ("max_redraws", "hue", "brightness", "style_strength"):
            yield from at_least(name, getattr(self, name), 0)
        yield from one_of("padding", self.padding, ("first", "last"))
        for name in ("contrast", "saturation"):
            if len(getattr(self, name)) != 2 or not 0 <= getattr(self, name)[0] <= getattr(self, name)[1]:
                yield name, "must be [low, high] with 0 <= low <= high"
        for name in (
            "flip", "photometric", "max_class_ratio",
            "style_jitter", "style_mix", "fourier", "class_mix", "corruption",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                yield name, "must lie in [0, 1]"
        if not 0 < self.fourier_beta < 0.5:
            yield "fourier_beta", "must lie between 0 and 0.5, as a share of the crop's shorter side"
        if not self.corruption_kinds:
            yield "corruption_kinds", f"must name at least one of {', '.join(LIGHT_CORRUPTIONS)}"
        for kind in self.corruption_kinds:
            yield from one_of("corruption_kinds", kind, LIGHT_CORRUPTIONS)
