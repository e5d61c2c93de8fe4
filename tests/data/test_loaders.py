from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from recyclelora.data.datasets import Sample
from recyclelora.data.loaders import StepSampler, TrainStream, eval_loader, shares, train_loader
from recyclelora.data.transforms import Augmentation

AUGMENT = Augmentation(crop=(8, 8), short_edges=(8, 12))


@dataclass
class Numbered:
    """Images that carry their own index."""

    size: int
    name: str = "numbered"

    def __len__(self) -> int:
        return self.size

    def load(self, index: int) -> Sample:
        image = np.random.default_rng(index).integers(0, 256, (10, 14, 3)).astype(np.uint8)
        return Sample(image, np.full((10, 14), index % 19, np.uint8), str(index))

    def entries(self) -> list[str]:
        return [str(self.size)]


def batches(stream, *, start=0, stop=5, num_workers=0, rank=0, world_size=1):
    sampler = StepSampler(4, start, stop, rank, world_size)
    return list(train_loader(stream, sampler, num_workers=num_workers))


def test_every_image_once_an_epoch():
    stream = TrainStream([Numbered(7), Numbered(5)], [None, None], AUGMENT, seed=0)
    for epoch in range(3):
        seen = [stream.address(epoch * 12 + slot) for slot in range(12)]
        assert sorted(seen) == [(0, i) for i in range(7)] + [(1, i) for i in range(5)]
    assert [stream.address(p) for p in range(12)] != [stream.address(p) for p in range(12, 24)]


def test_weights_set_the_share_of_a_source():
    assert shares([300, 100], [None, None]) == [300, 100]
    assert shares([300, 100], [1.0, 1.0]) == [200, 200]
    assert shares([300, 100], [3.0, 1.0]) == [300, 100]
    stream = TrainStream([Numbered(30), Numbered(10)], [1.0, 1.0], AUGMENT, seed=0)
    counts = Counter(stream.address(position) for position in range(400))
    assert sum(n for (source, _), n in counts.items() if source == 0) == 200
    assert {n for (source, _), n in counts.items() if source == 1} == {20}


def test_samples_do_not_depend_on_workers_or_where_a_run_starts():
    stream = TrainStream([Numbered(9)], [None], AUGMENT, seed=3)
    whole = batches(stream)
    for other in (batches(stream, num_workers=2), batches(stream, stop=2) + batches(stream, start=2)):
        assert len(other) == len(whole)
        for (a, b), (c, d) in zip(whole, other, strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)


def test_ranks_share_the_global_batch():
    stream = TrainStream([Numbered(9)], [None], AUGMENT, seed=3)
    whole, first, second = batches(stream), batches(stream, world_size=2), batches(stream, rank=1, world_size=2)
    for (image, _), (a, _), (b, _) in zip(whole, first, second, strict=True):
        assert torch.equal(image, torch.cat([a, b]))


def test_seed_changes_order_and_augmentation():
    first, other = (TrainStream([Numbered(9)], [None], AUGMENT, seed=s) for s in (0, 1))
    assert [first.address(p) for p in range(9)] != [other.address(p) for p in range(9)]


def test_batch_layout():
    images, labels = batches(TrainStream([Numbered(9)], [None], AUGMENT, seed=0))[0]
    assert images.shape == (4, 3, 8, 8) and labels.shape == (4, 8, 8)
    assert images.dtype == labels.dtype == torch.uint8


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_image_once_over_all_ranks(world_size):
    dataset = Numbered(7)
    seen = [
        int(label[0, 0])
        for rank in range(world_size)
        for batch in eval_loader(dataset, batch_size=2, rank=rank, world_size=world_size)
        for _, label in batch
    ]
    assert sorted(seen) == list(range(7))
