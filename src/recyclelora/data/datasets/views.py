"""Datasets seen through something: some of their samples, corrupted images, or half-size copies to be scored on."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from recyclelora.data.corruptions import VERSION, corrupt
from recyclelora.data.datasets.base import Dataset, Sample


@dataclass(frozen=True)
class View:
    """A dataset seen through something; says of itself what its base says."""

    base: Dataset

    @property
    def name(self) -> str:
        """The name of the base."""
        return self.base.name

    @property
    def label(self) -> str:
        """The name that the base carries in results."""
        return self.base.label

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

    def drives(self) -> list[str] | None:
        """Those of the base."""
        return self.base.drives()


def layers(dataset: Dataset) -> Iterator[Dataset]:
    """A dataset and everything that it is a view of, down to what lies in files or is rendered."""
    yield dataset
    if isinstance(dataset, View):
        yield from layers(dataset.base)


def unwrapped(dataset: Dataset, indices: Sequence[int]) -> tuple[Dataset, Sequence[int]]:
    """The last of the :func:`layers`, and where these samples of the first one lie in it."""
    base = dataset
    for base in layers(dataset):
        if isinstance(base, Subset):
            indices = [base.indices[index] for index in indices]
    return base, indices


@dataclass(frozen=True)
class Subset(View):
    """Some samples of a dataset, in ascending order."""

    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> Sample:
        """Read one sample."""
        return self.base.load(self.indices[index])

    def drives(self) -> list[str] | None:
        """Those of the samples."""
        found = self.base.drives()
        return None if found is None else [found[index] for index in self.indices]

    def entries(self) -> list[str]:
        """The whole dataset's entries and which samples are used."""
        return [*self.base.entries(), f"subset {' '.join(map(str, self.indices))}"]


def seeded_subset(dataset: Dataset, size: int | None, seed: int) -> Dataset:
    """``size`` samples drawn without replacement by ``seed`` alone; the dataset itself when it is no larger."""
    if size is None or size >= len(dataset):
        return dataset
    chosen = np.random.default_rng((seed, len(dataset))).permutation(len(dataset))[:size]
    return Subset(dataset, tuple(sorted(int(index) for index in chosen)))


@dataclass(frozen=True)
class Corrupted(View):
    """A dataset whose images are corrupted while they are read; masks stay as they are."""

    corruption: str
    severity: int
    """1 to 5"""
    seed: int = 0

    def load(self, index: int) -> Sample:
        """Read one sample and corrupt its image as its name and the seed say."""
        sample = self.base.load(index)
        image = corrupt(sample.image, self.corruption, self.severity, name=sample.name, seed=self.seed)
        return Sample(image, sample.label, sample.name)

    def entries(self) -> list[str]:
        """The clean dataset's entries and the corruption."""
        return [*self.base.entries(), f"corruption-v{VERSION} {self.corruption} {self.severity} {self.seed}"]


@dataclass(frozen=True)
class HalfSize(View):
    """A dataset at half its size, made as the published half-size copies of Mapillary were.

    Height and width are halved and rounded down; the image by Pillow's bicubic filter and through JPEG at Pillow's
    default quality 75, the mask by Pillow's nearest neighbour.
    """

    def load(self, index: int) -> Sample:
        """Read one sample and halve it."""
        sample = self.base.load(index)
        height, width = sample.label.shape
        size = (max(1, width // 2), max(1, height // 2))
        stored = io.BytesIO()
        Image.fromarray(sample.image).resize(size, Image.Resampling.BICUBIC).save(stored, "JPEG")
        with Image.open(stored) as copy:
            image = np.asarray(copy.convert("RGB"))
        label = np.asarray(Image.fromarray(sample.label).resize(size, Image.Resampling.NEAREST))
        return Sample(image, label, sample.name)
