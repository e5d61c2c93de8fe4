"""From a checked configuration to the data of a run: open sets, augmentation, colours."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import TypeVar

import numpy as np

from recyclelora.data.config import DataConfig
from recyclelora.data.datasets import Dataset
from recyclelora.data.labels import IGNORE
from recyclelora.data.open import open_all
from recyclelora.data.photometric import Photometric
from recyclelora.data.rare_classes import ClassCounts, RareClasses
from recyclelora.data.transforms import Augmentation
from recyclelora.drawing.sheets import ClassColours
from recyclelora.system.errors import UserError

Made = TypeVar("Made")
Counting = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Opens a bar for so many images; what it yields is told of images done."""


@dataclass(frozen=True)
class Datasets:
    """The open datasets of a run; ``scored`` maps result names to datasets, ``source_val`` first."""

    sources: list[Dataset]
    scored: dict[str, Dataset]

    @property
    def all(self) -> list[Dataset]:
        """Sources and scored sets."""
        return [*self.sources, *self.scored.values()]

    def source_classes(self, num_classes: int) -> frozenset[int] | None:
        """The train ids that the sources hold; None where these are all."""
        held = frozenset[int]().union(*(source.classes for source in self.sources))
        return None if len(held) >= num_classes else held


def build_datasets(data: DataConfig, cache: str) -> Datasets:
    """Open every dataset of a pair; streets are cached below ``cache``.

    Raises:
        UserError: listing everything that is not there, or a source without labels.
    """
    scored = {"source_val": data.source_val} | {target.label: target for target in data.targets}
    opened = open_all([*data.sources, *scored.values()], data, cache)
    sources = opened[: len(data.sources)]
    for config, dataset in zip([*data.sources, data.source_val], opened, strict=False):
        if not dataset.labelled:
            where = f"{data.title(config)} has no masks in the split {config.split!r}"
            own = f": say data.folder.splits.{config.split}.masks" if config.dataset == "folder" else ""
            raise UserError(f"{where}, so that it can only be a target{own}")
    return Datasets(sources, dict(zip(scored, opened[len(sources) :], strict=True)))


def build_targets(data: DataConfig, cache: str) -> dict[str, Dataset]:
    """Open only the targets of a pair, or without any its validation: scoring a finished run needs no source."""
    wanted = {target.label: target for target in data.targets} or {"source_val": data.source_val}
    return dict(zip(wanted, open_all([*wanted.values()], data, cache), strict=True))


def build_rare_classes(
    data: DataConfig,
    sources: list[Dataset],
    cache: str,
    counting: Counting,
) -> list[RareClasses | None]:
    """What rare-class sampling needs to know of each source; Nones where it is off.

    Sources that were never counted are counted, under a bar that ``counting`` opens for so many images.

    Raises:
        UserError: a sample cannot be read, or a source has no labels.
    """
    rare = data.rare_classes
    if rare.temperature is None:
        return [None] * len(sources)
    counted = count_classes(data, sources, cache, counting)
    return [
        RareClasses.of(
            counts, temperature=rare.temperature, image_pixels=rare.image_pixels, crop_pixels=rare.crop_pixels
        )
        for counts in counted
    ]


def count_classes(data: DataConfig, sources: list[Dataset], cache: str, counting: Counting) -> list[np.ndarray]:
    """Pixels of each class in each image, (N, K), of every source; those that were never counted are counted.

    Raises:
        UserError: a sample cannot be read.
    """
    store, classes = ClassCounts(Path(cache) / "class_counts"), len(data.classes.names)
    found = [store.known(source, classes) for source in sources]
    missing = sum(len(source) for source, counts in zip(sources, found, strict=True) if counts is None)
    with counting(missing) if missing else nullcontext(lambda count: None) as advance:
        return [store.count(s, classes, advance) if c is None else c for s, c in zip(sources, found, strict=True)]


def build_augmentation(data: DataConfig) -> Augmentation:
    """The published training augmentation."""
    return _of_fields(Augmentation, data, colours=_of_fields(Photometric, data))


def _of_fields(kind: type[Made], data: DataConfig, **given: object) -> Made:
    """An immutable part from the augmentation's keys of the same names."""
    names = {field.name for field in fields_of(kind)} - given.keys()  # type: ignore[arg-type]
    values = {name: getattr(data.augment, name) for name in names}
    return kind(**given, **{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def class_colours(data: DataConfig) -> ClassColours:
    """Names and colours for pictures."""
    return ClassColours(data.classes.names, data.classes.colours, IGNORE)
