"""Training samples addressed by (seed, position): the same stream for any worker count, rank or restart.

Position ``p`` counts the samples of a run: step ``t`` of a global batch ``B`` reads positions ``t B .. t B + B - 1``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from recyclelora.data.datasets import Dataset
from recyclelora.data.transforms import Augmentation

Batch = tuple[Tensor, Tensor]
"""uint8 images (B, 3, H, W) and uint8 train ids (B, H, W)."""


class TrainStream(TorchDataset[tuple[np.ndarray, np.ndarray]]):
    """The endless sequence of augmented samples of several sources.

    An epoch is one seeded permutation over ``sum(shares)`` slots. A source fills as many slots as its share: its size
    by default, so that every image is seen once an epoch, or in proportion to its weight.
    """

    def __init__(
        self, sources: Sequence[Dataset], weights: Sequence[float | None], augment: Augmentation, seed: int
    ) -> None:
        self.sources = list(sources)
        self.augment = augment
        self.seed = seed
        self.shares = shares([len(source) for source in sources], weights)

    def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        source, index = self.address(position)
        sample = self.sources[source].load(index)
        rng = np.random.default_rng((self.seed, 1, position))
        return self.augment(sample.image, sample.label, rng)

    def address(self, position: int) -> tuple[int, int]:
        """Which source and which of its images stands at a position."""
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


def collate(samples: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
    """Stack samples of one size into tensors."""
    images = np.stack([image for image, _ in samples]).transpose(0, 3, 1, 2)
    labels = np.stack([label for _, label in samples])
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels)


def train_loader(
    stream: TrainStream, sampler: StepSampler, *, num_workers: int, pin_memory: bool = False
) -> DataLoader[Batch]:
    """Batches of a stream in the order of its steps."""
    return DataLoader(
        stream,  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
    )


class _Samples(TorchDataset[tuple[np.ndarray, np.ndarray]]):
    """A dataset's samples without augmentation."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self.dataset.load(index)
        return sample.image, sample.label


def eval_loader(
    dataset: Dataset, *, batch_size: int = 1, num_workers: int = 0, rank: int = 0, world_size: int = 1
) -> DataLoader[list[tuple[np.ndarray, np.ndarray]]]:
    """Every sample once over all ranks, in lists of at most ``batch_size``; sizes may differ within a list."""
    indices = list(range(rank, len(dataset), world_size))
    batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
    return DataLoader(_Samples(dataset), batch_sampler=batches, num_workers=num_workers, collate_fn=list)  # type: ignore[arg-type]
