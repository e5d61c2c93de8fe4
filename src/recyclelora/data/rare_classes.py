"""Rare-class sampling as in DAFormer (Hoyer et al., 2022, section 3.2): images with rare classes come more often.

Which image shows which class is counted once for each source, in parallel, and kept by the content it was counted on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recyclelora.data.datasets import Dataset
from recyclelora.data.identity import content_digest
from recyclelora.data.transforms import Wanted, class_counts
from recyclelora.system.cores import available_cores, process_pool
from recyclelora.system.errors import UserError
from recyclelora.system.filecache import FileCache

VERSION = 2
_CHUNK = 16
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class RareClasses:
    """Draws from one source: first a class, then one of the images that show enough of it.

    Arrays instead of lists, so that data workers share their memory.
    """

    train_ids: np.ndarray
    """(C,) classes that any image shows"""
    probabilities: np.ndarray
    """(C,) P(c) ~ exp((1 - f_c) / T), f_c the class's share of the source's labelled pixels"""
    images: tuple[np.ndarray, ...]
    """for each of them the indices of its images"""
    crop_pixels: int
    """of the class that a crop should show"""

    @classmethod
    def of(cls, counts: np.ndarray, *, temperature: float, image_pixels: int, crop_pixels: int) -> RareClasses:
        """From pixels per image and class, (N, K).

        An image counts for a class with at least ``image_pixels`` of it; for a class that no image shows so much of,
        any pixel counts.
        """
        totals = counts.sum(0, dtype=np.float64)
        present = np.flatnonzero(totals)
        if not len(present):
            raise UserError("rare-class sampling: no image of a source has a labelled pixel")
        share = totals[present] / totals.sum()
        weight = np.exp((share.min() - share) / temperature)  # the largest exponent is 0
        images = [np.flatnonzero(counts[:, c] >= image_pixels) for c in present]
        images = [own if len(own) else np.flatnonzero(counts[:, c]) for own, c in zip(images, present, strict=True)]
        return cls(present, weight / weight.sum(), tuple(images), crop_pixels)

    def draw(self, rng: np.random.Generator) -> tuple[int, Wanted]:
        """An image's index and what its crop should show."""
        chosen = int(rng.choice(len(self.train_ids), p=self.probabilities))
        index = int(rng.choice(self.images[chosen]))
        return index, Wanted(int(self.train_ids[chosen]), self.crop_pixels)


@dataclass(frozen=True)
class ClassCounts(FileCache[np.ndarray]):
    """Pixels per image and class (N, K) of datasets: a digest, which notices damage, and uint32 numbers."""

    title = "class counts"
    suffix = ".counts"

    directory: Path
    max_bytes: int = 256 * 2**20

    def encode(self, value: np.ndarray) -> Sequence[bytes]:
        """A digest and the numbers, row by row."""
        content = value.astype(np.uint32).tobytes()
        return [hashlib.sha256(content).digest(), content]

    def decode(self, data: bytearray) -> np.ndarray:
        """Flat, since how many classes there are stands in the name."""
        digest, content = data[:_DIGEST], data[_DIGEST:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("not what was stored")
        return np.frombuffer(content, np.uint32)

    def known(self, dataset: Dataset, num_classes: int) -> np.ndarray | None:
        """The counts (N, K) of a dataset, if this content was counted before."""
        counts = self.load(self.name(dataset, num_classes))
        return None if counts is None else counts.reshape(len(dataset), num_classes)

    def count(self, dataset: Dataset, num_classes: int, advance: Callable[[int], None]) -> np.ndarray:
        """Count on all cores and keep the result; ``advance`` is told of images done.

        Raises:
            UserError: a sample cannot be read.
        """
        counts = np.zeros((len(dataset), num_classes), np.uint32)
        chunks = [range(i, min(i + _CHUNK, len(dataset))) for i in range(0, len(dataset), _CHUNK)]
        workers = min(available_cores(), len(chunks))
        with process_pool(workers, _start, (dataset, num_classes)) as pool:
            for done in as_completed([pool.submit(_count, chunk) for chunk in chunks]):
                chunk, values = done.result()
                counts[chunk.start : chunk.stop] = values
                advance(len(chunk))
        self.store(self.name(dataset, num_classes), counts)
        return counts

    @staticmethod
    def name(dataset: Dataset, num_classes: int) -> str:
        """Of a dataset's counts: its content and the number of classes."""
        content = f"v{VERSION} {num_classes} {content_digest(dataset)}"
        return hashlib.sha256(content.encode()).hexdigest()[:32]


_dataset: Dataset
_num_classes: int


def _start(dataset: Dataset, num_classes: int) -> None:
    """Hand the dataset to a worker once instead of with every chunk."""
    global _dataset, _num_classes
    _dataset, _num_classes = dataset, num_classes


def _count(chunk: range) -> tuple[range, np.ndarray]:
    return chunk, np.stack([class_counts(_dataset.load(index).label)[:_num_classes] for index in chunk])
