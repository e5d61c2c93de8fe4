from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_cityscapes
from fixture_data import make_acdc, make_mapillary

from recyclelora.data.datasets import HalfSize, open_dataset
from recyclelora.data.protocol import ProtocolConfig, fitted
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


def test_fitted_sizes_by_hand():
    assert fitted((1024, 2048), (1024, 2048)) == (1024, 2048)
    assert fitted((1500, 2000), (1024, 2048)) == (1024, 1365)  # the short edge decides
    assert fitted((2000, 1500), (1024, 2048)) == (1365, 1024)  # upright images too
    assert fitted((600, 2400), (1024, 2048)) == (512, 2048)  # the long edge decides
    assert fitted((480, 640), (512, 1024)) == (512, 683)  # small images are enlarged


def shipped(make_config, name: str) -> ProtocolConfig:
    return make_config(f"data/protocol={name}").data.protocol


def test_the_published_protocols(make_config):
    ours, rein = shipped(make_config, "recyclelora"), shipped(make_config, "rein")
    assert (ours.window, ours.stride, rein.window, rein.stride) == (512, 341, 512, 341)
    assert ours.shown_size("cityscapes", (1024, 2048)) == (1024, 2048)
    assert rein.shown_size("cityscapes", (1024, 2048)) == (512, 1024)
    for protocol in (ours, rein):
        assert protocol.shown_size("bdd100k", (720, 1280)) == (720, 1280)
        assert protocol.shown_size("acdc", (1080, 1920)) == (1080, 1920)
        assert protocol.half == ["mapillary"]
    # a Mapillary image of 4000x3000 becomes 2000x1500, then as large as fits
    assert ours.shown_size("mapillary", (1500, 2000)) == (1024, 1365)
    assert rein.shown_size("mapillary", (1500, 2000)) == (512, 683)
    large = shipped(make_config, "crop1024")
    assert (large.window, large.stride, large.half) == (1024, 683, [])


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
