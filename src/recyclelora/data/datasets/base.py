"""What a dataset is: samples of an image and a mask of train ids, read from files as they are, never converted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from recyclelora.data.labels import IGNORE, table_classes
from recyclelora.data.reading import ReadIds, fit_label, read_image, read_indices, read_label
from recyclelora.errors import UserError


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
        ...

    @property
    def labelled(self) -> bool:
        """Whether there are masks; without them a dataset can only be predicted."""
        ...

    @property
    def classes(self) -> frozenset[int]:
        """The train ids that its masks can hold."""
        ...

    def __len__(self) -> int: ...

    def load(self, index: int) -> Sample:
        """Read one sample."""
        ...

    def entries(self) -> list[str]:
        """One line for each file, in order: what identifies the data."""
        ...


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


Reader = Callable[[Request], Dataset]
"""Finds the files of a dataset as downloaded; raises a UserError for what is not there."""


@dataclass(frozen=True)
class Item:
    """The files of one sample; ``label`` is None in splits without labels."""

    image: Path
    label: Path | None


NEARLY = 0.8
"""Least ratio of the sides of a mask and its image; GTAV ships a few that differ by some rows."""


def fits(label: tuple[int, ...], image: tuple[int, ...]) -> bool:
    """Whether a mask of size (h, w) can belong to an image of size (H, W): it is then cut or padded to it."""
    return all(NEARLY <= mine / its <= 1 / NEARLY for mine, its in zip(label, image, strict=True))


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

    def __len__(self) -> int:
        return len(self.items)

    @property
    def labelled(self) -> bool:
        """Whether there are masks."""
        return all(item.label is not None for item in self.items)

    @property
    def classes(self) -> frozenset[int]:
        """The train ids that the masks can hold."""
        return table_classes(self.table) - self.absent

    def load(self, index: int) -> Sample:
        """Read one sample; a label of another size than its image is cut or padded with 255 to the image's."""
        item = self.items[index]
        image = read_image(item.image)
        name = item.image.relative_to(self.root).as_posix()
        if item.label is None:
            return Sample(image, np.full(image.shape[:2], IGNORE, np.uint8), name)
        label = read_label(item.label, self.table, self.read_ids)
        if not fits(label.shape, image.shape[:2]):
            (height, width), (high, wide) = image.shape[:2], label.shape
            raise UserError(f"{item.label}: {wide}x{high} pixels, but its image has {width}x{height}: not its mask")
        return Sample(image, fit_label(label, image.shape[:2]), name)

    def entries(self) -> list[str]:
        """Relative path and size in bytes of every file.

        Raises:
            UserError: a file is not there, such as a link to nothing.
        """
        files = [path for item in self.items for path in (item.image, item.label) if path is not None]
        return [f"{path.relative_to(self.root).as_posix()} {_size(path)}" for path in files]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class View:
    """A dataset seen through something; says of itself what its base says."""

    base: Dataset

    @property
    def name(self) -> str:
        """The name of the base."""
        return self.base.name

    @property
    def labelled(self) -> bool:
        """Whether there are masks."""
        return self.base.labelled

    @property
    def classes(self) -> frozenset[int]:
        """The train ids that the masks can hold."""
        return self.base.classes

    def __len__(self) -> int:
        return len(self.base)

    def entries(self) -> list[str]:
        """The entries of the base."""
        return self.base.entries()


@dataclass(frozen=True)
class Subset(View):
    """Some samples of a dataset, in ascending order."""

    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> Sample:
        """Read one sample."""
        return self.base.load(self.indices[index])

    def entries(self) -> list[str]:
        """The whole dataset's entries and which samples are used."""
        return [*self.base.entries(), f"subset {' '.join(map(str, self.indices))}"]


def seeded_subset(dataset: Dataset, size: int | None, seed: int) -> Dataset:
    """``size`` samples drawn without replacement by ``seed`` alone; the dataset itself when it is no larger."""
    if size is None or size >= len(dataset):
        return dataset
    chosen = np.random.default_rng((seed, len(dataset))).permutation(len(dataset))[:size]
    return Subset(dataset, tuple(sorted(int(index) for index in chosen)))


def digest(datasets: list[Dataset]) -> str:
    """sha256 over the sorted relative names and sizes of all files: changed data are another run."""
    lines = sorted(f"{dataset.name}/{entry}" for dataset in datasets for entry in dataset.entries())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
