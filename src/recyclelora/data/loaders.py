"""Samples for training, addressed by (seed, position): the same stream for any worker count, rank or restart.

Position ``p`` counts the samples of a run: step ``t`` of a global batch ``B`` reads positions ``t B .. t B + B - 1``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from recyclelora.data.datasets import Dataset
from recyclelora.data.extra_augmentation import ExtraAugmentation
from recyclelora.data.rare_classes import RareClasses
from recyclelora.data.transforms import Augmentation, Pair, Wanted
from recyclelora.data.workers import Loader
from recyclelora.system.errors import UserError

Batch = tuple[Tensor, Tensor]
"""uint8 images (B, 3, H, W) and uint8 train ids (B, H, W)."""


class TrainStream(TorchDataset[Pair]):
    """The endless sequence of augmented samples of several sources.

    An epoch is one seeded permutation over ``sum(shares)`` slots. A source fills as many slots as its share: its size
    by default, so that every image is seen once an epoch, or in proportion to its weight. With rare-class sampling a
    slot still says which source it is, and the image is drawn by its classes.
    """

    def __init__(
        self,
        sources: Sequence[Dataset],
        weights: Sequence[float | None],
        augment: Augmentation,
        seed: int,
        extras: ExtraAugmentation | None = None,
        rare: Sequence[RareClasses | None] | None = None,
    ) -> None:
        self.sources = list(sources)
        self.augment = augment
        self.seed = seed
        self.extras = extras or ExtraAugmentation()
        self.rare = list(rare or [None] * len(sources))
        self.shares = shares([len(source) for source in sources], weights)

    def __getitem__(self, position: int) -> Pair:
        rng = self._generator(position, 0)
        sample = self._crop(*self._drawn(*self.address(position), self._generator(position, 1)), rng)
        if not self.extras.active:
            return self.augment.colours(sample[0], rng), sample[1]
        other = self._generator(position, 2)
        image, label = self.extras.mixed(sample, lambda: self._partner(position, other), other)
        return self.extras.corrupted(self.augment.colours(image, rng), other), label

    def _generator(self, position: int, purpose: int) -> np.random.Generator:
        """A generator for one purpose at one position: 0 the published chain, 1 the rare class, 2 the extras."""
        return np.random.default_rng((self.seed, 1, position, purpose))

    def _drawn(self, source: int, index: int, rng: np.random.Generator) -> tuple[int, int, Wanted | None]:
        """The address itself, or what rare-class sampling draws from its source instead."""
        rare = self.rare[source]
        return (source, index, None) if rare is None else (source, *rare.draw(rng))

    def _crop(self, source: int, index: int, wanted: Wanted | None, rng: np.random.Generator) -> Pair:
        """Read one sample and cut its crop."""
        sample = self.sources[source].load(index)
        return self.augment.geometry(sample.image, sample.label, rng, wanted)

    def _partner(self, position: int, rng: np.random.Generator) -> Pair:
        """The crop of another image: of another source where there are several."""
        here = self.address(position)
        source = self._other_source(here[0], rng)
        size = len(self.sources[source])
        index = int(rng.integers(size))
        if (source, index) == here:
            index = (index + 1) % size
        return self._crop(*self._drawn(source, index, rng), rng)

    def _other_source(self, source: int, rng: np.random.Generator) -> int:
        """A source other than the given one, in proportion to the shares; the same where there is no other."""
        weights = np.array([0 if i == source else share for i, share in enumerate(self.shares)], np.float64)
        return int(rng.choice(len(weights), p=weights / weights.sum())) if weights.any() else source

    def address(self, position: int) -> tuple[int, int]:
        """Which source and which of its images stands at a position, without rare-class sampling."""
        epoch, slot = divmod(position, sum(self.shares))
        slot = int(permutation(self.seed, 0, epoch, sum(self.shares))[slot])
        source = 0
        while slot >= self.shares[source]:
            slot -= self.shares[source]
            source += 1
        turn, index = divmod(epoch * self.shares[source] + slot, len(self.sources[source]))
        return source, int(permutation(self.seed, 2 + source, turn, len(self.sources[source]))[index])


@lru_cache(maxsize=8)
def permutation(seed: int, stream: int, epoch: int, size: int) -> np.ndarray:
    """A permutation of ``size`` indices that depends on its four arguments only."""
    return np.random.default_rng((seed, stream, epoch)).permutation(size)


def shares(sizes: Sequence[int], weights: Sequence[float | None]) -> list[int]:
    """Slots of each source in an epoch of about ``sum(sizes)``: its size, or its part of the weights.

    A source without a weight counts with its size; with one, with ``weight`` times the total size.
    """
    if all(weight is None for weight in weights):
        return list(sizes)
    total = sum(sizes)
    parts = [size / total if weight is None else weight for size, weight in zip(sizes, weights, strict=True)]
    return [max(1, round(total * part / sum(parts))) for part in parts]


@dataclass(frozen=True)
class StepSampler:
    """Yields this rank's positions for every step from ``start`` to ``stop``."""

    batch_size: int
    """over all ranks"""
    start: int
    stop: int
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        local = self.batch_size // self.world_size
        for step in range(self.start, self.stop):
            first = step * self.batch_size + self.rank * local
            yield list(range(first, first + local))


def collate(samples: list[Pair]) -> Batch:
    """Stack samples of one size into tensors."""
    images = np.stack([cv2.split(image) for image, _ in samples])  # far faster than transposing
    return torch.from_numpy(images), torch.from_numpy(np.stack([label for _, label in samples]))


def train_loader(
    stream: TrainStream, sampler: StepSampler, *, num_workers: int, pin_memory: bool = False
) -> Loader[Batch]:
    """Batches of a stream in the order of its steps."""
    return Loader(stream, sampler, collate, num_workers=num_workers, prefetch=4, pin_memory=pin_memory)


class _Samples(TorchDataset[Pair | UserError]):
    """A dataset's samples without augmentation."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Pair | UserError:
        try:
            sample = self.dataset.load(index)
        except UserError as error:
            return error
        return sample.image, sample.label


def eval_loader(
    dataset: Dataset, *, batch_size: int = 1, num_workers: int = 0, rank: int = 0, world_size: int = 1, skip: int = 0
) -> Iterator[list[Pair | UserError]]:
    """Every sample once over all ranks, in lists of at most ``batch_size``; sizes may differ within a list.

    The first ``skip`` lists of this rank are left out. In the place of a sample that cannot be read is the error.
    """
    indices = list(range(rank, len(dataset), world_size))
    batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)][skip:]
    for batch in Loader(_Samples(dataset), batches, _as_tensors, num_workers=num_workers):
        yield [s if isinstance(s, UserError) else (s[0].numpy(), s[1].numpy()) for s in batch]


def _as_tensors(samples: list[Pair | UserError]) -> list[tuple[Tensor, Tensor] | UserError]:
    """Tensors leave a worker through shared memory; arrays would be copied through a pipe."""
    return [s if isinstance(s, UserError) else (_tensor(s[0]), _tensor(s[1])) for s in samples]


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor on the array's memory; on a copy where that is read-only, as in a mapped file."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
