"""Options of the group ``data``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from omegaconf import MISSING

from recyclelora.data.augment import AugmentConfig
from recyclelora.data.classes import ClassesConfig
from recyclelora.data.folder import FolderConfig, class_index
from recyclelora.data.labels import CITYSCAPES_CLASSES, OWN_CLASSES
from recyclelora.data.protocol import ProtocolConfig
from recyclelora.system.checks import Problem, above_zero, added, at_least, checked, file_name, nearest, one_of
from recyclelora.system.plugins import plugin_names

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


COMMON_CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
"""What ``recyclelora.data.corruptions`` can do; named here so that a typo is refused before it is imported."""


@dataclass
class CorruptionConfig:
    """A corruption of ImageNet-C, made while images are read."""

    name: str = checked(MISSING, one_of, COMMON_CORRUPTIONS)
    """which one"""
    severity: int = 3
    """1 to 5"""
    seed: int = checked(0, at_least, 0)
    """with the name of an image it decides what is drawn"""

    def check(self) -> Iterator[Problem]:
        if not 1 <= self.severity <= 5:
            yield "severity", "must lie between 1 and 5"


DATASETS = (
    "acdc", "bdd100k", "camvid", "cityscapes", "cityscapes_c", "dark_zurich", "foggy_cityscapes", "folder", "gta",
    "idd", "idd_lite", "kitti", "mapillary", "muses", "railsem19", "rainy_cityscapes", "streets", "synthia", "urbansyn",
    "wilddash",
)  # fmt: skip
"""Every dataset that is read without another package."""

EVERY_CLASS = frozenset(CITYSCAPES_CLASSES).union(*OWN_CLASSES.values())
"""What they hold."""

READER_GROUP = "recyclelora.datasets"
"""Entry points of installed packages: a dataset's name and the function that finds its files."""


def dataset_names() -> tuple[str, ...]:
    """Every dataset that can be read; no reader is imported for that."""
    return (*DATASETS, *plugin_names(READER_GROUP))


@dataclass
class DatasetConfig:
    """One split of one dataset."""

    dataset: str = MISSING
    """``folder``, ``streets``, or whose download it is"""
    split: str = MISSING
    """as the dataset defines it, or a name in ``folder.splits``"""
    name: Optional[str] = None
    """in results; null makes one of dataset, variant and corruption"""
    variant: Optional[str] = None
    """condition, density, corruption or label version of a dataset that has several"""
    subset: Optional[int] = checked(None, at_least, 1)
    """so many images, drawn by ``data.subset_seed``; null takes all"""
    weight: Optional[float] = checked(None, above_zero)
    """a source's share of the samples; null: by its number of images"""
    corruption: Optional[CorruptionConfig] = None
    """made on the fly; null leaves the images as they are"""

    @property
    def label(self) -> str:
        """The name it carries in results."""
        corruption = f"{self.corruption.name}{self.corruption.severity}" if self.corruption else None
        parts = [part for part in (self.dataset, self.variant, corruption) if part]
        return self.name or "_".join(parts).replace("/", "_")

    def check(self) -> Iterator[Problem]:
        yield from file_name("name", self.label)


@dataclass
class RareClassesConfig:
    """Rare-class sampling as in DAFormer."""

    temperature: Optional[float] = checked(None, above_zero)
    """how evenly classes are drawn; null draws images instead, DAFormer's is 0.01"""
    image_pixels: int = checked(3000, at_least, 1)
    """of a class make an image one of its images"""
    crop_pixels: int = checked(1500, at_least, 0)
    """of the class that a crop should show"""


@dataclass
class DataConfig:
    """Where training images come from and on which unseen streets the model is scored."""

    name: str = checked(MISSING, file_name)
    """of the pair; names run directories"""
    root: str = MISSING
    """folder that holds one folder for each dataset"""
    decode_cache: Optional[float] = checked(None, above_zero)
    """GB of decoded samples kept below the cache folder; null keeps none"""
    classes: ClassesConfig = field(default_factory=ClassesConfig)
    """that are told apart"""
    sources: list[DatasetConfig] = field(default_factory=list)
    """that are trained on"""
    source_val: DatasetConfig = field(default_factory=DatasetConfig)
    """held out of the sources"""
    targets: list[DatasetConfig] = field(default_factory=list)
    """that are scored and never trained on"""
    subset_seed: int = checked(0, at_least, 0)
    """draws subsets and held-out splits, independent of ``seed``"""
    rare_classes: RareClassesConfig = field(default_factory=RareClassesConfig)
    """draws images with rare classes more often"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """what is done to training images"""
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    """how images are scored"""
    folder: Optional[FolderConfig] = None
    """your own images and masks; null where no dataset is ``folder``"""
    orientation: Optional[str] = added(None, one_of, ("turned", "stored"))
    """``turned`` or ``stored``: how masks lie under photographs whose EXIF orientation fits both ways"""
    cityscapes_labels: str = added("labelIds", one_of, ("labelIds", "labelTrainIds"))
    """kind of Cityscapes' masks that is read where both are there"""

    def check(self) -> Iterator[Problem]:
        if not self.sources:
            yield "sources", "must name at least one dataset"
        labels = [target.label for target in self.targets]
        if len(set(labels)) != len(labels) or "source_val" in labels:
            yield "targets", f"need different names, and none may be source_val: {', '.join(labels)}"
        yield from self._check_folder()

    def title(self, config: DatasetConfig) -> str:
        """How one of its sets is called for people: a user's own by this pair's name, unless it has one itself."""
        own = config.dataset == "folder" and config.name is None and config.corruption is None
        return self.name if own else config.label

    def check_new(self) -> Iterator[Problem]:
        """Yield what a new run is refused for, but runs of earlier versions may hold."""
        titles = {"source_val": self.source_val.dataset} | {target.label: target.dataset for target in self.targets}
        datasets = dataset_names()
        known = (*datasets, *titles)
        protocol = self.protocol
        for key, names in (("sizes", protocol.sizes), ("fit", protocol.fit), ("half", protocol.half)):
            for name in names:
                if name not in known:
                    yield f"protocol.{key}", f"{name!r} is no dataset and no target{nearest(name, known)}"
                elif name in datasets and titles.get(name, name) != name:
                    yield f"protocol.{key}", f"{name!r} is a dataset and the name of a target of another dataset"
        yield from self._check_class_names()

    def _check_class_names(self) -> Iterator[Problem]:
        """Yield names that no dataset has: all but a user's own are read to classes of theirs, by name.

        What an installed package reads is not known before it is opened.
        """
        datasets = {config.dataset for config in (*self.sources, self.source_val, *self.targets)}
        names, contains = self.classes.names, self.classes.contains
        if "folder" in datasets or datasets - {*DATASETS}:
            return
        if sorted(names) == sorted(CITYSCAPES_CLASSES) and tuple(names) != CITYSCAPES_CLASSES:
            yield "classes.names", "are Cityscapes' classes in another order than theirs: leave them as they are"
        known = list(dict.fromkeys(name for d in sorted(datasets) for name in OWN_CLASSES.get(d, CITYSCAPES_CLASSES)))
        wanted = {name: (name, *contains.get(name, ())) for name in names}
        strange = [name for name, meant in wanted.items() if not set(meant) & set(known)]
        strange += [inner for inners in contains.values() for inner in inners if inner not in EVERY_CLASS]
        if strange:
            others = ", ".join(repr(name) for name in strange[:3])
            yield (
                "classes.names",
                f"{', '.join(sorted(datasets))} have no class {others}{nearest(strange[0], known)}; "
                f"known: {', '.join(known)}",
            )

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
