from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_cityscapes
from fixture_data import make_acdc, make_mapillary

from recyclelora.data.datasets import HalfSize, open_dataset
from recyclelora.data.protocol import ProtocolConfig
from recyclelora.evaluation.evaluator import Evaluator


class Recorder(torch.nn.Module):
    """A model that says class 0 everywhere and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[int, ...]] = []

    def logits(self, images):
        self.shown.append(tuple(images.shape[-2:]))
        return torch.nn.functional.one_hot(torch.zeros(images.shape[-2:], dtype=int), 19).permute(2, 0, 1)[None].float()

    def sliding_logits(self, images, window, stride):
        return self.logits(images)


def evaluator(protocol: ProtocolConfig) -> Evaluator:
    return Evaluator(protocol, 19, 255, torch.device("cpu"), nullcontext, lambda tensor: tensor)


@pytest.mark.parametrize(("fit", "shown"), [((1024, 2048), (1024, 1536)), ((512, 1024), (512, 768))])
def test_mapillary_is_scored_at_half_size(fit, shown, tmp_path: Path):
    dataset = open_dataset("mapillary", "val", root=make_mapillary(tmp_path, count=1))
    model = Recorder()
    protocol = ProtocolConfig("p", mode="whole", fit={"mapillary": fit}, half=["mapillary"])
    confusion = evaluator(protocol)(model, dataset)
    assert model.shown == [shown]  # 81x121 -> 40x60 -> as large as fits
    label = HalfSize(dataset).load(0).label
    assert label.shape == (40, 60)
    assert confusion.counts.sum() == (label != 255).sum() == confusion.counts[:, 0].sum()
    np.testing.assert_array_equal(confusion.counts[:, 0], np.bincount(label[label != 255], minlength=19))


def test_cityscapes_is_shown_small_and_scored_large(tmp_path: Path):
    dataset = open_dataset("cityscapes", "val", root=make_cityscapes(tmp_path, 1))
    model = Recorder()
    confusion = evaluator(ProtocolConfig("p", mode="whole", sizes={"cityscapes": (48, 96)}))(model, dataset)
    assert model.shown == [(48, 96)]
    assert confusion.counts.sum() == (dataset.load(0).label != 255).sum()


def test_what_has_no_labels_is_not_scored(tmp_path: Path):
    dataset = open_dataset("acdc", "test", root=make_acdc(tmp_path, split="test"))
    model, done = Recorder(), []
    confusion = evaluator(ProtocolConfig("p", mode="whole"))(model, dataset, done.append)
    assert model.shown == [] and sum(done) == 4
    assert np.isnan(confusion.iou()).all()
