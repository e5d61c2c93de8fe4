from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from recyclelora.data.datasets import Sample
from recyclelora.data.protocol import ProtocolConfig
from recyclelora.evaluation import partial as partial_module
from recyclelora.evaluation.evaluator import Evaluator
from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.partial import PartialCounts
from recyclelora.models.decoders.decoder import DenseDecoder
from recyclelora.models.segmenter import Segmenter


class Pixels(nn.Module):
    patch_size = 1

    def forward(self, images):
        return [images] * 4


class Argmax(DenseDecoder):
    """The brightest channel wins; counts the images it has seen."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, features, size, query=None):
        self.seen += len(features[0])
        return features[-1]


class Noise:
    """Seven images of noise; reading image ``broken`` fails; every third is wider where they are ``ragged``."""

    name = label = "noise"
    labelled, classes = True, frozenset(range(3))

    def __init__(self, broken: int | None = None, ragged: bool = False):
        self.broken = broken
        self.ragged = ragged

    def __len__(self):
        return 7

    def load(self, index):
        if index == self.broken:
            raise KeyboardInterrupt
        rng = np.random.default_rng(index)
        width = 10 if self.ragged and index % 3 == 0 else 8
        image = rng.integers(0, 256, (6, width, 3)).astype(np.uint8)
        return Sample(image, rng.integers(0, 3, (6, width)).astype(np.uint8), f"{index}")


def parts(reduce=lambda t: t, rank=0, world_size=1, batch_size=2, **options):
    model = Segmenter(Pixels(), Argmax(), mean=(0.5,) * 3, std=(1.0,) * 3, ignore_index=255)
    protocol = ProtocolConfig("test", **{"mode": "whole", **options})
    evaluator = Evaluator(
        protocol, 3, 255, torch.device("cpu"), torch.no_grad, reduce, batch_size, rank=rank, world_size=world_size
    )
    return model, evaluator


class Summing:
    """Sums tensors over threads, as all_reduce does over processes."""

    def __init__(self, size):
        self.tensors = [None] * size
        self.barrier = threading.Barrier(size)

    def of(self, rank):
        def reduce(tensor):
            self.tensors[rank] = tensor
            self.barrier.wait(20)
            total = torch.stack(self.tensors).sum(0)
            self.barrier.wait(20)
            return total

        return reduce


def by_image(dataset):
    """The truth of every single image: its own evaluation."""
    rows = []
    for index in range(len(dataset)):
        sample = dataset.load(index)
        pairs = zip(sample.label.ravel(), sample.image.argmax(-1).ravel(), strict=True)
        matrix = np.zeros((3, 3), int)
        for pair in pairs:
            matrix[pair] += 1
        rows.append(matrix)
    return np.array(rows)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_every_image_has_its_own_counts_whose_sum_is_the_sets(batch_size):
    model, evaluator = parts(batch_size=batch_size)
    images = ImageCounts(3)
    whole = evaluator(model, Noise(ragged=True), images=images).counts
    np.testing.assert_array_equal(images.dense(), by_image(Noise(ragged=True)))
    np.testing.assert_array_equal(images.total(), whole)


@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_processes_gather_each_image_once_and_in_order(world_size, monkeypatch):
    monkeypatch.setattr("recyclelora.evaluation.evaluator.GATHERED", 4)
    summing = Summing(world_size)

    def score(rank):
        images = ImageCounts(3)
        model, evaluator = parts(summing.of(rank), rank, world_size)
        return evaluator(model, Noise(ragged=True), images=images).counts, images.dense()

    with ThreadPoolExecutor(world_size) as pool:
        for total, found in pool.map(score, range(world_size)):
            np.testing.assert_array_equal(found, by_image(Noise(ragged=True)))
            np.testing.assert_array_equal(found.sum(0), total)


def test_a_stopped_scoring_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(partial_module, "SAVE_EVERY", 0.0)
    model, evaluator = parts()
    whole = evaluator(model, Noise()).counts
    path = tmp_path / "counts.json"
    with pytest.raises(KeyboardInterrupt):
        evaluator(model, Noise(broken=5), partial=PartialCounts(path, "key"))
    assert json.loads(path.read_text())["done"] == 2
    told, before = [], model.decoder.seen
    images = ImageCounts(3)
    counts = evaluator(model, Noise(), told.append, PartialCounts(path, "key"), images).counts
    assert np.array_equal(counts, whole)
    assert np.array_equal(images.dense(), by_image(Noise()))
    assert model.decoder.seen - before == 3 and sum(told) == 7


def test_counts_of_something_else_or_damaged_ones_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(partial_module, "SAVE_EVERY", 0.0)
    model, evaluator = parts()
    path = tmp_path / "counts.json"
    whole = evaluator(model, Noise(), partial=PartialCounts(path, "key")).counts
    assert np.array_equal(evaluator(model, Noise(), partial=PartialCounts(path, "other")).counts, whole)
    path.write_text('{"key": "key", "do')
    assert np.array_equal(evaluator(model, Noise(), partial=PartialCounts(path, "key")).counts, whole)


def test_mirrored_views_are_averaged_as_probabilities():
    model, plain = parts()
    _, mirrored = parts(flip=True)
    image = Noise().load(0).image
    expected = plain.probabilities(model, [image])  # every pixel on its own: a mirror image changes nothing
    torch.testing.assert_close(mirrored.probabilities(model, [image]), expected)
    torch.testing.assert_close(mirrored.scores(model, [image]).sum(1), torch.ones(1, 6, 8))
    _, scaled = parts(scales=(0.5, 1.0, 2.0))
    found = scaled.probabilities(model, [image])
    assert found.shape == expected.shape and not torch.allclose(found, expected)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 6, 8))


def test_a_flipped_digit_is_noticed(tmp_path):
    partial = PartialCounts(tmp_path / "1.json", "key")
    partial._saved = -1e9
    images = ImageCounts(2)
    images.add(np.full((2, 2), 5))
    partial.update(3, images)
    assert PartialCounts(tmp_path / "1.json", "key").load(2)[0] == 3
    text = (tmp_path / "1.json").read_text()
    (tmp_path / "1.json").write_text(text.replace("5", "7", 1))
    assert PartialCounts(tmp_path / "1.json", "key").load(2)[0] == 0
