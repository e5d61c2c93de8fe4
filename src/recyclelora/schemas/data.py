"""Options of the group ``data``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from omegaconf import MISSING

from recyclelora.schemas.checks import Problem, above_zero, at_least, one_of

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


@dataclass
class ClassesConfig:
    """The classes that are told apart: index = train id."""

    names: list[str] = MISSING
    colours: list[list[int]] = MISSING
    ignore_index: int = 255

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        if not 2 <= len(self.names) <= 255 or len(set(self.names)) != len(self.names):
            yield "names", "must be 2 to 255 different names"
        if len(self.colours) != len(self.names):
            yield "colours", f"must hold one [r, g, b] for each of the {len(self.names)} names"
        if any(len(c) != 3 or not all(0 <= v <= 255 for v in c) for c in self.colours):
            yield "colours", "must be [r, g, b] with values from 0 to 255"
        if not len(self.names) <= self.ignore_index <= 255:
            yield "ignore_index", f"must lie between {len(self.names)} and 255"


@dataclass
class DatasetConfig:
    """One split of one dataset; ``subset`` draws that many images, seeded by ``data.subset_seed``."""

    dataset: str = MISSING
    split: str = MISSING
    name: Optional[str] = None
    subset: Optional[int] = None
    weight: Optional[float] = None

    @property
    def label(self) -> str:
        """The name it carries in results."""
        return self.name or self.dataset

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        if self.subset is not None:
            yield from at_least("subset", self.subset, 1)
        if self.weight is not None:
            yield from above_zero("weight", self.weight)


CORRUPTIONS = ("blur", "noise", "jpeg")


@dataclass
class AugmentConfig:
    """The published training augmentation, in its order, then options that are off at probability 0. Sizes in pixels.

    Probabilities: ``flip``, ``photometric`` (for each of its four parts), and each option's own name.
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
    photometric: float = 0.5
    style_jitter: float = 0.0
    style_strength: float = 0.3
    style_mix: float = 0.0
    fourier: float = 0.0
    fourier_beta: float = 0.01
    class_mix: float = 0.0
    corruption: float = 0.0
    corruption_kinds: list[str] = field(default_factory=lambda: [*CORRUPTIONS])

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        if len(self.crop) != 2 or min(self.crop) < 1:
            yield "crop", "must be [height, width] in pixels"
        if not self.short_edges or min(self.short_edges) < 1:
            yield "short_edges", "must list at least one positive length in pixels"
        yield from at_least("max_long_edge", self.max_long_edge, 1)
        for name in ("max_redraws", "hue", "brightness", "style_strength"):
            yield from at_least(name, getattr(self, name), 0)
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
            yield "corruption_kinds", f"must name at least one of {', '.join(CORRUPTIONS)}"
        for kind in self.corruption_kinds:
            yield from one_of("corruption_kinds", kind, CORRUPTIONS)


@dataclass
class RareClassesConfig:
    """Rare-class sampling as in DAFormer, off while ``temperature`` is null; DAFormer's is 0.01.

    ``image_pixels`` of a class make an image one of its images, and its crop should show ``crop_pixels`` of it.
    """

    temperature: Optional[float] = None
    image_pixels: int = 3000
    crop_pixels: int = 1500

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        if self.temperature is not None:
            yield from above_zero("temperature", self.temperature)
        yield from at_least("image_pixels", self.image_pixels, 1)
        yield from at_least("crop_pixels", self.crop_pixels, 0)


@dataclass
class ProtocolConfig:
    """How images are scored: whole or by sliding window; ``sizes`` resizes a dataset's images to [height, width]."""

    name: str = MISSING
    mode: str = "slide"
    window: int = 512
    stride: int = 341
    sizes: dict[str, list[int]] = field(default_factory=dict)

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("mode", self.mode, ("slide", "whole"))
        yield from at_least("window", self.window, 1)
        if not 1 <= self.stride <= self.window:
            yield "stride", f"must lie between 1 and the window, {self.window}"
        for dataset, size in self.sizes.items():
            if len(size) != 2 or min(size) < 1:
                yield f"sizes.{dataset}", "must be [height, width] in pixels"


@dataclass
class DataConfig:
    """Where training images come from and on which unseen streets the model is scored.

    ``decode_cache`` keeps up to so many GB of decoded samples below the cache folder.
    """

    name: str = MISSING
    root: str = MISSING
    decode_cache: Optional[float] = None
    classes: ClassesConfig = field(default_factory=ClassesConfig)
    sources: list[DatasetConfig] = field(default_factory=list)
    source_val: DatasetConfig = field(default_factory=DatasetConfig)
    targets: list[DatasetConfig] = field(default_factory=list)
    subset_seed: int = 0
    rare_classes: RareClassesConfig = field(default_factory=RareClassesConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        if self.decode_cache is not None:
            yield from above_zero("decode_cache", self.decode_cache)
        if not self.sources:
            yield "sources", "must name at least one dataset"
        if not self.targets:
            yield "targets", "must name at least one dataset"
        labels = [target.label for target in self.targets]
        if len(set(labels)) != len(labels) or "source_val" in labels:
            yield "targets", f"need different names, and none may be source_val: {', '.join(labels)}"
