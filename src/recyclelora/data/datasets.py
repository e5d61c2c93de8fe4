"""Datasets as they are downloaded: which files belong together, and how their labels are read.

A dataset is a list of :class:`Item`; reading one gives an image and a mask of train ids. Nothing is converted and
nothing is written beside the user's data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from recyclelora.data import streets
from recyclelora.data.labels import CITYSCAPES_IDS, CITYSCAPES_KNOWN, identity_table, lookup_table
from recyclelora.data.reading import fit_label, read_image, read_label
from recyclelora.errors import UserError


@dataclass(frozen=True)
class Sample:
    """One image and its mask."""

    image: np.ndarray
    """uint8 RGB (H, W, 3)"""
    label: np.ndarray
    """uint8 train ids (H, W), 255 = ignore"""
    name: str


class Dataset(Protocol):
    """What training and evaluation need of a dataset."""

    @property
    def name(self) -> str:
        """The dataset's name, by which protocols know it."""
        ...

    def __len__(self) -> int: ...

    def load(self, index: int) -> Sample:
        """Read one sample."""
        ...

    def entries(self) -> list[str]:
        """One line for each file, in order: what identifies the data."""
        ...


@dataclass(frozen=True)
class Item:
    """The files of one sample."""

    image: Path
    label: Path


NEARLY = 0.8
"""Least ratio of the sides of a mask and its image; GTAV ships a few that differ by some rows."""


@dataclass(frozen=True)
class FolderDataset:
    """Pairs of image and label files under one root."""

    name: str
    root: Path
    items: tuple[Item, ...]
    table: np.ndarray

    def __len__(self) -> int:
        return len(self.items)

    def load(self, index: int) -> Sample:
        """Read one sample; a label of another size than its image is cut or padded with 255 to the image's."""
        item = self.items[index]
        image = read_image(item.image)
        label = read_label(item.label, self.table)
        (height, width), (high, wide) = image.shape[:2], label.shape
        if not (NEARLY <= high / height <= 1 / NEARLY and NEARLY <= wide / width <= 1 / NEARLY):
            raise UserError(f"{item.label}: {wide}x{high} pixels, but its image has {width}x{height}: not its mask")
        return Sample(image, fit_label(label, image.shape[:2]), item.image.relative_to(self.root).as_posix())

    def entries(self) -> list[str]:
        """Relative path and size in bytes of every file."""
        files = [path for item in self.items for path in (item.image, item.label)]
        return [f"{path.relative_to(self.root).as_posix()} {path.stat().st_size}" for path in files]


@dataclass(frozen=True)
class StreetsDataset:
    """The built-in procedural scenes of one look."""

    name: str
    look: str
    split: str
    cache_dir: Path | None

    def __len__(self) -> int:
        return streets.num_scenes(self.look, self.split)

    def load(self, index: int) -> Sample:
        """Render one scene, or read it from the cache."""
        image, label = streets.scene(self.look, self.split, index, self.cache_dir)
        return Sample(image, label, f"{self.look}_{self.split}_{index:04d}.png")

    def missing(self) -> list[int]:
        """Scenes that would have to be rendered."""
        return streets.missing(self.look, self.split, self.cache_dir) if self.cache_dir else []

    def entries(self) -> list[str]:
        """The version of the renderer stands for the files."""
        return [f"streets-v{streets.STREETS_VERSION} {self.look} {self.split} {len(self)}"]


@dataclass(frozen=True)
class Subset:
    """Some samples of a dataset, in ascending order."""

    base: Dataset
    indices: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the whole dataset."""
        return self.base.name

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


# --- the datasets -----------------------------------------------------------------------------------------------------

GTA_HELD_OUT = 500
"""Images of GTAV that the splits ``train`` and ``val`` set apart for source validation."""


def gta(root: Path, split: str, seed: int) -> FolderDataset:
    """GTAV (Richter et al., 2016): ``images/NNNNN.png``, ``labels/NNNNN.png`` with palette indices.

    ``all`` is every image; ``val`` is a seeded draw of 500 images (a tenth of a smaller folder), ``train`` the rest.
    """
    _check_split("gta", split, ("train", "val", "all"))
    folder = _existing(root / "gta", "gta", "images/*.png and labels/*.png")
    items = _paired(folder, "images/*.png", lambda image: folder / "labels" / image.name)
    if split != "all":
        num_val = max(1, min(GTA_HELD_OUT, len(items) // 10))
        held_out = set(np.random.default_rng((seed, len(items))).permutation(len(items))[:num_val].tolist())
        items = [item for index, item in enumerate(items) if (index in held_out) == (split == "val")]
    return FolderDataset("gta", folder, tuple(items), lookup_table(CITYSCAPES_IDS, CITYSCAPES_KNOWN))


def cityscapes(root: Path, split: str, seed: int) -> FolderDataset:
    """Cityscapes (Cordts et al., 2016) with its labelIds, or labelTrainIds where a user has generated them."""
    _check_split("cityscapes", split, ("train", "val"))
    folder = _existing(
        root / "cityscapes",
        "cityscapes",
        f"leftImg8bit/{split}/*/*_leftImg8bit.png and gtFine/{split}/*/*_labelIds.png",
    )

    def mask(image: Path, suffix: str) -> Path:
        stem = image.name.removesuffix("_leftImg8bit.png")
        return folder / "gtFine" / split / image.parent.name / f"{stem}_gtFine_{suffix}.png"

    pattern = f"leftImg8bit/{split}/*/*_leftImg8bit.png"
    first = next(iter(sorted(folder.glob(pattern))), None)
    if first is not None and not mask(first, "labelIds").exists() and mask(first, "labelTrainIds").exists():
        items = _paired(folder, pattern, lambda image: mask(image, "labelTrainIds"))
        return FolderDataset("cityscapes", folder, tuple(items), identity_table(19))
    items = _paired(folder, pattern, lambda image: mask(image, "labelIds"))
    return FolderDataset("cityscapes", folder, tuple(items), lookup_table(CITYSCAPES_IDS, CITYSCAPES_KNOWN))


READERS: dict[str, Callable[[Path, str, int], Dataset]] = {"gta": gta, "cityscapes": cityscapes}


def open_dataset(
    dataset: str, split: str, *, root: Path, name: str | None = None, seed: int = 0, cache_dir: Path | None = None
) -> Dataset:
    """Open one split of one dataset.

    Args:
        dataset: ``streets`` or one of :data:`READERS`.
        split: as the dataset defines it; for ``streets`` ``source_train``, ``source_val`` or the name of a look.
        root: the folder that holds one folder for each dataset.
        name: the name in results, for ``streets`` only; by default the dataset's.
        seed: of the held-out splits.
        cache_dir: where rendered scenes are kept; None keeps none.

    Raises:
        UserError: unknown dataset or split, or files that are not there.
    """
    if dataset == "streets":
        look, _, part = split.rpartition("_") if split.startswith("source") else (split, "", "val")
        _check_split("streets", split, ("source_train", "source_val", *streets.LOOKS[1:]))
        return StreetsDataset(name or dataset, look, part, cache_dir)
    if dataset not in READERS:
        raise UserError(f"unknown dataset {dataset!r}; known: streets, {', '.join(READERS)}")
    return READERS[dataset](root, split, seed)


def _check_split(dataset: str, split: str, allowed: tuple[str, ...]) -> None:
    if split not in allowed:
        raise UserError(f"{dataset} has no split {split!r}; it has: {', '.join(allowed)}")


def _existing(folder: Path, dataset: str, layout: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"{dataset} is not at {folder.absolute()}: expected {layout} in it, as downloaded")
    return folder


def _paired(folder: Path, pattern: str, label_of: Callable[[Path], Path]) -> list[Item]:
    """All images of a pattern with their labels; refuses an empty set and images without a label."""
    items = [Item(image, label_of(image)) for image in sorted(folder.glob(pattern))]
    if not items:
        raise UserError(f"{folder.absolute()}: no image matches {pattern}")
    unpaired = [item for item in items if not item.label.is_file()]
    if unpaired:
        example = unpaired[0]
        raise UserError(
            f"{folder.absolute()}: {len(unpaired)} of {len(items)} images have no label; "
            f"the first is {example.image.relative_to(folder)}, expected {example.label.relative_to(folder)}"
        )
    return items
