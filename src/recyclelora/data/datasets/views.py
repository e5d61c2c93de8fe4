"""Datasets seen through something: corrupted images, or the half-size copies that published protocols score on."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from recyclelora.data.corruptions import VERSION, corrupt
from recyclelora.data.datasets.base import Sample, View


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
