"""What a dataset is: samples of an image and a mask of train ids, read from files as they are, never converted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from recyclelora.data.labels import CITYSCAPES_CLASSES, IGNORE, renumbered, table_classes
from recyclelora.data.orientation import UPRIGHT, turned
from recyclelora.data.patterns import printable
from recyclelora.data.reading import ReadIds, fit_label, read_image, read_indices, read_label
from recyclelora.system.errors import BrokenFile, UserError


@dataclass(frozen=True)
class Sample:
    """One image and its mask."""

    image: np.ndarray
    """uint8 RGB (H, W, 3)"""
    label: np.ndarray
    """uint8 train ids (H, W), 255 = ignore; all 255 where the dataset has no labels"""
    name: str


class Dataset(Protocol):
    """What training and evaluation need of a dataset."""

    @property
    def name(self) -> str:
        """The dataset's name, by which protocols know it."""

    @property
    def label(self) -> str:
        """The name it carries in results."""

    @property
    def labelled(self) -> bool:
        """Whether there are masks; without them a dataset can only be predicted."""

    @property
    def classes(self) -> frozenset[int]:
        """The train ids that its masks can hold."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Sample:
        """Read one sample."""

    def entries(self) -> list[str]:
        """One line for each file, in order: what identifies the data."""

    def drives(self) -> list[str] | None:
        """The drive or sequence of which each sample is a frame; None where that is not known."""


@dataclass(frozen=True)
class Request:
    """Which part of which dataset is wanted."""

    root: Path
    """the folder that holds one folder for each dataset"""
    split: str
    variant: str | None = None
    """the condition, density, corruption or label version of a dataset that has several"""
    seed: int = 0
    """of held-out splits"""
    orientation: str | None = None
    """``turned`` or ``stored``: how masks lie under photographs where sizes cannot tell"""
    cityscapes_labels: str = "labelIds"
    """which of Cityscapes' two kinds of masks is read where both are there"""


Reader = Callable[[Request], "FolderDataset"]
"""Finds the files of a dataset as downloaded; raises a UserError for what is not there."""


@dataclass(frozen=True)
class Item:
    """The files of one sample; ``label`` is None in splits without labels."""

    image: Path
    label: Path | None
    turn: int = UPRIGHT
    """the EXIF orientation by which the stored image is turned; masks are never turned"""


NEARLY = 0.8
"""Least ratio of the sides of a mask and its image where a dataset ships some that differ by a few rows."""


def fits(label: tuple[int, ...], image: tuple[int, ...], *, nearly: bool) -> bool:
    """Whether a mask of size (h, w) belongs to an image of size (H, W); ``nearly`` cuts or pads it to the image's."""
    if not nearly:
        return label == image
    return all(NEARLY <= mine / its <= 1 / NEARLY for mine, its in zip(label, image, strict=True))


def misfit(label: tuple[int, ...], image: tuple[int, ...]) -> str:
    """Both sizes of a mask (h, w) and an image (H, W) that do not fit, and what has probably happened."""
    (high, wide), (height, width) = label, image
    if label == image[::-1]:
        cause = "one of them was turned by 90 degrees"
    elif abs(high * width - wide * height) <= max(high, wide, height, width):  # the same shape to a pixel
        cause = "one of them was resized; a mask is scaled by nearest neighbour only"
    elif fits(label, image, nearly=True):
        cause = "one of them was resized, cropped or padded, and pixels no longer lie under their labels"
    else:
        cause = "not its mask"
    return f"{wide}x{high} pixels, but its image has {width}x{height}: {cause}"


@dataclass(frozen=True)
class FolderDataset:
    """Images with or without masks under one root."""

    name: str
    root: Path
    items: tuple[Item, ...]
    table: np.ndarray
    """stored id -> train id"""
    read_ids: ReadIds = read_indices
    """reads a mask's stored ids"""
    absent: frozenset[int] = frozenset()
    """train ids that the table knows but no mask holds"""
    nearly: bool = False
    """the dataset ships masks that have a few rows more or fewer than their image: they are cut or padded"""
    masks: str | None = None
    """which kind of masks is read, of a dataset that has several"""
    title: str | None = None
    """the name in results, where it is another one"""
    train_ids: tuple[int, ...] | None = None
    """a run's train id in the place of each of the dataset's own, where the run has another class list"""
    drive: str | None = None
    """regular expression over an image's path below the root, whose groups name the drive that it is a frame of"""
    class_names: tuple[str, ...] = CITYSCAPES_CLASSES
    """what its own train ids mean"""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def label(self) -> str:
        """The name it carries in results."""
        return self.title or self.name

    @property
    def labelled(self) -> bool:
        """Whether there are masks."""
        return all(item.label is not None for item in self.items)

    @property
    def classes(self) -> frozenset[int]:
        """The train ids that the masks can hold."""
        return table_classes(self.table) - self.absent

    def numbered(self, train_ids: tuple[int, ...]) -> FolderDataset:
        """The same files read to other train ids: ``train_ids[t]``, or 255, in the place of t."""
        there = {train_ids[own] for own in range(len(train_ids)) if own not in self.absent}
        absent = frozenset(train_ids[own] for own in self.absent) - there  # several may be one class of the run
        return replace(self, table=renumbered(self.table, train_ids), absent=absent, train_ids=train_ids)

    def load(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            BrokenFile: a file cannot be read, or the mask has another size than its image; names the sample's files.
        """
        item = self.items[index]
        try:
            return self._read(item)
        except UserError as error:
            paths = (path for path in (item.image, item.label) if path is not None)
            names = tuple(f"{self.name}/{path.relative_to(self.root).as_posix()}" for path in paths)
            raise BrokenFile(str(error), names) from error

    def _read(self, item: Item) -> Sample:
        image = turned(read_image(item.image), item.turn)
        name = printable(item.image.relative_to(self.root))
        if item.label is None:
            return Sample(image, np.full(image.shape[:2], IGNORE, np.uint8), name)
        label = read_label(item.label, self.table, self.read_ids)
        if not fits(label.shape, image.shape[:2], nearly=self.nearly):
            raise UserError(f"{item.label}: {misfit(label.shape, image.shape[:2])}")
        return Sample(image, fit_label(label, image.shape[:2]), name)

    def entries(self) -> list[str]:
        """Relative path and size in bytes of every file, which images are turned, and other train ids.

        Raises:
            UserError: a file is not there, such as a link to nothing.
        """
        files = [path for item in self.items for path in (item.image, item.label) if path is not None]
        turns = [(item.image, item.turn) for item in self.items if item.turn != UPRIGHT]
        return [
            *(f"{path.relative_to(self.root).as_posix()} {_size(path)}" for path in files),
            *(f"{path.relative_to(self.root).as_posix()} turned {turn}" for path, turn in turns),
            *classes_entry(self.train_ids),
        ]

    def drives(self) -> list[str] | None:
        """Of each image, where the reader knows how names tell them."""
        if self.drive is None:
            return None
        return [_drive(self.drive, item.image.relative_to(self.root).as_posix()) for item in self.items]


def _drive(pattern: str, name: str) -> str:
    """A frame whose name tells none is a drive of its own."""
    found = re.search(pattern, name)
    return name if found is None else "/".join(found.groups())


def classes_entry(train_ids: tuple[int, ...] | None) -> list[str]:
    """What identifies data that are read to another class list than the dataset's own."""
    return [] if train_ids is None else [f"classes {' '.join(map(str, train_ids))}"]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def digest(datasets: list[Dataset]) -> str:
    """sha256 over the sorted relative names and sizes of all files: changed data are another run."""
    lines = sorted(f"{dataset.name}/{entry}" for dataset in datasets for entry in dataset.entries())
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
