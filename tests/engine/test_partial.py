from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from recyclelora.data.datasets import Sample
from recyclelora.decoders.decoder import DenseDecoder
from recyclelora.engine import partial as partial_module
from recyclelora.engine.evaluation import Evaluator, Protocol
from recyclelora.engine.partial import PartialCounts
from recyclelora.segmenter import Segmenter


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
    """Seven images of noise; reading image ``broken`` fails."""

    name, labelled, classes = "noise", True, frozenset(range(3))

    def __init__(self, broken: int | None = None):
        self.broken = broken

    def __len__(self):
        return 7

    def load(self, index):
        if index == self.broken:
            raise KeyboardInterrupt
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        return Sample(image, rng.integers(0, 3, (6, 8)).astype(np.uint8), f"{index}")


def parts(**options):
    model = Segmenter(Pixels(), Argmax(), mean=(0.5,) * 3, std=(1.0,) * 3, ignore_index=255)
    protocol = Protocol("test", **options)
    evaluator = Evaluator(protocol, 3, 255, torch.device("cpu"), torch.no_grad, lambda t: t, batch_size=2)
    return model, evaluator


def test_a_stopped_scoring_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(partial_module, "SAVE_EVERY", 0.0)
    model, evaluator = parts()
    whole = evaluator(model, Noise()).counts
    path = tmp_path / "counts.json"
    with pytest.raises(KeyboardInterrupt):
        evaluator(model, Noise(broken=5), partial=PartialCounts(path, "key"))
    assert json.loads(path.read_text())["done"] == 2
    told, before = [], model.decoder.seen
    counts = evaluator(model, Noise(), told.append, PartialCounts(path, "key")).counts
    assert np.array_equal(counts, whole)
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
    partial.update(3, np.full((2, 2), 5))
    assert PartialCounts(tmp_path / "1.json", "key").load(2)[0] == 3
    text = (tmp_path / "1.json").read_text()
    (tmp_path / "1.json").write_text(text.replace("5", "7", 1))
    assert PartialCounts(tmp_path / "1.json", "key").load(2)[0] == 0
