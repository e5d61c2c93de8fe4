"""Options of the group ``data``."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from omegaconf import MISSING

from recyclelora.data.folder import FolderConfig, class_index
from recyclelora.data.labels import CITYSCAPES_CLASSES
from recyclelora.system.checks import Problem, above_zero, added, at_least, file_name, nearest, one_of

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


MAX_CLASSES = 254
"""Train ids fit 8 bits beside the marks of unlabelled pixels and of unknown ids."""

COMMON_CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
"""What ``recyclelora.data.corruptions`` can do; named here so that a typo is refused before it is imported."""


@dataclass
class ClassesConfig:
    """The classes that are told apart: index = train id.

    Without ``colours`` different ones are made. ``ignore_index`` is the id of unlabelled pixels in a user's own masks;
    inside the program they are always 255.
    """

    names: list[str] = MISSING
    colours: list[list[int]] = field(default_factory=list)
    ignore_index: int = 255

    def __post_init__(self) -> None:
        if not self.colours and isinstance(self.names, list):
            self.colours = distinct_colours(len(self.names))

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        if not 2 <= len(self.names) <= MAX_CLASSES or len(set(self.names)) != len(self.names):
            yield "names", f"must be 2 to {MAX_CLASSES} different names"
        if len(self.colours) != len(self.names):
            yield "colours", f"must hold one [r, g, b] for each of the {len(self.names)} names; [] has them made"
        if any(len(c) != 3 or not all(0 <= v <= 255 for v in c) for c in self.colours):
            yield "colours", "must be [r, g, b] with values from 0 to 255"
        if not len(self.names) <= self.ignore_index <= 255:
            yield "ignore_index", f"must lie between {len(self.names)} and 255"


def distinct_colours(count: int) -> list[list[int]]:
    """[red, green, blue] for so many classes: hues by the golden ratio, in three steps of brightness; never black."""
    colours = []
    for index in range(count):
        saturation, value = ((0.85, 0.95), (0.6, 0.75), (0.95, 0.55))[index % 3]
        channels = colorsys.hsv_to_rgb(index * 0.618034 % 1, saturation, value)
        colours.append([round(255 * channel) for channel in channels])
    return colours


@dataclass
class CorruptionConfig:
    """A corruption of ImageNet-C, made while images are read; severity 1 to 5, drawn by ``seed`` and image name."""

    name: str = MISSING
    severity: int = 3
    seed: int = 0

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("name", self.name, COMMON_CORRUPTIONS)
        if not 1 <= self.severity <= 5:
            yield "severity", "must lie between 1 and 5"
        yield from at_least("seed", self.seed, 0)


DATASETS = (
    "acdc", "bdd100k", "cityscapes", "cityscapes_c", "dark_zurich", "foggy_cityscapes", "folder", "gta", "idd",
    "mapillary", "muses", "rainy_cityscapes", "streets", "synthia", "urbansyn",
)  # fmt: skip
"""Every dataset that can be read; named here so that a typo is refused before readers are imported."""


@dataclass
class DatasetConfig:
    """One split of one dataset.

    ``variant`` is the condition, density, corruption or label version of a dataset that has several; ``subset`` draws
    that many images, seeded by ``data.subset_seed``; ``weight`` is a source's share, ``corruption`` is made on the fly.
    """

    dataset: str = MISSING
    split: str = MISSING
    name: Optional[str] = None
    variant: Optional[str] = None
    subset: Optional[int] = None
    weight: Optional[float] = None
    corruption: Optional[CorruptionConfig] = None

    @property
    def label(self) -> str:
        """The name it carries in results."""
        corruption = f"{self.corruption.name}{self.corruption.severity}" if self.corruption else None
        parts = [part for part in (self.dataset, self.variant, corruption) if part]
        return self.name or "_".join(parts).replace("/", "_")

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from file_name("name", self.label)
        if self.subset is not None:
            yield from at_least("subset", self.subset, 1)
        if self.weight is not None:
            yield from above_zero("weight", self.weight)


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
    """How images are scored: whole or by sliding window.

    ``sizes`` resizes a dataset's images to [height, width]; ``fit`` scales them, keeping their shape, to the largest
    size within [short edge, long edge]; ``half`` lists datasets that are scored on half-size copies, masks too. All
    three know a set by its dataset or by its name in results.
    Test-time augmentation averages probabilities over ``scales`` of the shown size, and with ``flip`` over mirror
    images.
    """

    name: str = MISSING
    mode: str = "slide"
    window: int = 512
    stride: int = 341
    sizes: dict[str, list[int]] = field(default_factory=dict)
    fit: dict[str, list[int]] = field(default_factory=dict)
    half: list[str] = field(default_factory=list)
    scales: list[float] = field(default_factory=lambda: [1.0])
    flip: bool = False

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("mode", self.mode, ("slide", "whole"))
        yield from at_least("window", self.window, 1)
        if not 1 <= self.stride <= self.window:
            yield "stride", f"must lie between 1 and the window, {self.window}"
        if not self.scales:
            yield "scales", "must hold at least one factor, such as 1.0"
        for scale in self.scales:
            yield from above_zero("scales", scale)
        for dataset, size in self.sizes.items():
            if len(size) != 2 or min(size) < 1:
                yield f"sizes.{dataset}", "must be [height, width] in pixels"
        for dataset, size in self.fit.items():
            if len(size) != 2 or not 1 <= size[0] <= size[1]:
                yield f"fit.{dataset}", "must be [short edge, long edge] in pixels"
            if dataset in self.sizes:
                yield f"fit.{dataset}", "cannot be given beside sizes"


@dataclass
class DataConfig:
    """Where training images come from and on which unseen streets the model is scored.

    ``decode_cache`` keeps up to so many GB of decoded samples below the cache folder. ``orientation`` is needed for
    photographs with an EXIF orientation whose masks fit both ways: ``turned`` or ``stored``. ``cityscapes_labels`` is
    the kind of Cityscapes' masks that is read where ``labelIds`` and ``labelTrainIds`` are there.
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
    folder: Optional[FolderConfig] = None
    orientation: Optional[str] = added(None)
    cityscapes_labels: str = added("labelIds")

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from file_name("name", self.name)
        if self.orientation is not None:
            yield from one_of("orientation", self.orientation, ("turned", "stored"))
        yield from one_of("cityscapes_labels", self.cityscapes_labels, ("labelIds", "labelTrainIds"))
        yield from at_least("subset_seed", self.subset_seed, 0)
        if self.decode_cache is not None:
            yield from above_zero("decode_cache", self.decode_cache)
        if not self.sources:
            yield "sources", "must name at least one dataset"
        if not self.targets:
            yield "targets", "must name at least one dataset"
        labels = [target.label for target in self.targets]
        if len(set(labels)) != len(labels) or "source_val" in labels:
            yield "targets", f"need different names, and none may be source_val: {', '.join(labels)}"
        yield from self._check_folder()

    def check_new(self) -> Iterator[Problem]:
        """Yield what a new run is refused for, but runs of earlier versions may hold."""
        titles = {"source_val": self.source_val.dataset} | {target.label: target.dataset for target in self.targets}
        known = (*DATASETS, *titles)
        protocol = self.protocol
        for key, names in (("sizes", protocol.sizes), ("fit", protocol.fit), ("half", protocol.half)):
            for name in names:
                if name not in known:
                    yield f"protocol.{key}", f"{name!r} is no dataset and no target{nearest(name, known)}"
                elif name in DATASETS and titles.get(name, name) != name:
                    yield f"protocol.{key}", f"{name!r} is a dataset and the name of a target of another dataset"
        yield from self._check_class_names()

    def _check_class_names(self) -> Iterator[Problem]:
        """Yield names that the datasets do not have: all but a user's own are read to Cityscapes' classes, by name."""
        datasets = {config.dataset for config in (*self.sources, self.source_val, *self.targets)}
        names = self.classes.names
        if not datasets - {"folder"}:
            return
        if sorted(names) == sorted(CITYSCAPES_CLASSES) and tuple(names) != CITYSCAPES_CLASSES:
            yield "classes.names", "are Cityscapes' classes in another order than theirs: leave them as they are"
        strange = [name for name in names if name not in CITYSCAPES_CLASSES]
        if strange and "folder" not in datasets:
            others = ", ".join(repr(name) for name in strange[:3])
            yield (
                "classes.names",
                (
                    f"{', '.join(sorted(datasets))} have no class {others}{nearest(strange[0], CITYSCAPES_CLASSES)}; "
                    f"known: {', '.join(CITYSCAPES_CLASSES)}"
                ),
            )
        if set(strange) == set(names):
            yield "classes.names", f"holds no class of {', '.join(sorted(datasets - {'folder'}))}"

    def _check_folder(self) -> Iterator[Problem]:
        """Yield what does not fit between ``folder``, the classes and the splits that are asked for."""
        wanted = [c for c in (*self.sources, self.source_val, *self.targets) if c.dataset == "folder"]
        if wanted and self.folder is None:
            yield "folder", "must say where the images and masks are (see conf/data/folder.yaml)"
        if self.folder is None:
            return
        for split in dict.fromkeys(config.split for config in wanted):
            if split not in self.folder.splits:
                yield "folder.splits", f"has no split {split!r}; it has: {', '.join(self.folder.splits)}"
        codings = {"folder.coding": self.folder.coding}
        codings |= {f"folder.splits.{name}.coding": s.coding for name, s in self.folder.splits.items() if s.coding}
        maps = {f"{key}.ids": list(coding.ids.values()) for key, coding in codings.items()}
        maps |= {f"{key}.colours": list(coding.colours.values()) for key, coding in codings.items()}
        for key, values in maps.items():
            for given in values:
                if class_index(given, self.classes.names, self.classes.ignore_index) is None:
                    yield key, f"{given!r} is no class: give a name of data.classes, a train id or ignore"
