from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recyclelora.decoders.mask2former import Mask2Former
from recyclelora.decoders.mask2former_keys import from_mmdet, our_names
from recyclelora.decoders.mask_loss import MaskLoss, presence

from .fixtures import rule

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def published():
    """What mmdetection's head computes; see make_mmdet_fixture.py."""
    return load_file(FIXTURES / "mask2former_mmdet.safetensors")


def mmdet_shapes() -> dict[str, torch.Size]:
    """Names and shapes of the published head at DINOv2-L and 19 classes."""
    lines = [line.split() for line in (FIXTURES / "mmdet_names.txt").read_text().splitlines()]
    return {name: torch.Size(map(int, shape)) for name, *shape in lines}


def reduced_names() -> dict[str, torch.Size]:
    """mmdetection's names in the reduced head, with the shapes that ours has."""
    shapes = {name: p.shape for name, p in reduced().named_parameters()}
    names = {}
    for name in mmdet_shapes():
        ours = our_names(name)
        if ours[0] in shapes:
            names[name] = torch.Size((len(ours) * shapes[ours[0]][0], *shapes[ours[0]][1:]))
    names["pixel_decoder.level_encoding.weight"] = shapes["pixel_decoder.level_embed"]
    return names


def reduced(**options) -> Mask2Former:
    torch.manual_seed(0)
    return Mask2Former(
        [rule.CHANNELS] * 4, rule.CLASSES, width=rule.WIDTH, num_queries=rule.QUERIES, num_heads=rule.HEADS,
        encoder_layers=rule.ENCODER_LAYERS, encoder_width=rule.ENCODER_WIDTH, decoder_layers=rule.DECODER_LAYERS,
        decoder_width=rule.DECODER_WIDTH, loss=MaskLoss(num_points=rule.POINTS), **options,
    )  # fmt: skip


@pytest.fixture
def decoder():
    """Ours with mmdetection's weights."""
    model = reduced()
    model.load_state_dict(from_mmdet(rule.weights(reduced_names())))
    return model


def test_predictions_are_those_of_the_published_head(decoder, published):
    classes, masks = decoder.predict(rule.features(), None)
    torch.testing.assert_close(torch.stack(classes), published["classes"], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(torch.stack(masks), published["masks"], atol=1e-4, rtol=1e-5)


def test_matching_is_that_of_the_published_head(decoder, published, monkeypatch):
    monkeypatch.setattr(torch, "rand", rule.points)
    classes, masks = decoder.predict(rule.features(), None)
    present = presence(rule.labels(), rule.CLASSES, rule.IGNORED)
    queries = decoder.loss.match(torch.stack(classes), masks, rule.labels(), present)
    assert torch.equal(queries, published["matches"][:, present])
    assert torch.equal(present, published["matches"][0] >= 0)


def each_loss(decoder, labels):
    classes, masks = decoder.predict(rule.features(), None)
    present = presence(labels, rule.CLASSES, rule.IGNORED)
    queries = decoder.loss.match(torch.stack(classes), masks, labels, present)
    losses = decoder.loss.compare(torch.stack(classes), masks, labels, present, queries)
    return torch.stack(list(losses.values()), 1)


def test_losses_are_those_of_the_published_head(decoder, published, monkeypatch):
    monkeypatch.setattr(torch, "rand", rule.points)
    losses = each_loss(decoder, rule.labels())
    torch.testing.assert_close(losses, published["losses"], atol=1e-5, rtol=1e-5)


def test_an_image_without_labels_counts_as_in_the_published_head(decoder, published, monkeypatch):
    monkeypatch.setattr(torch, "rand", rule.points)
    labels = rule.labels()
    labels[0] = rule.IGNORED
    torch.testing.assert_close(each_loss(decoder, labels), published["losses_half_unlabelled"], atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_the_published_head(decoder, published, monkeypatch):
    monkeypatch.setattr(torch, "rand", rule.points)
    losses = decoder.losses(rule.features(), rule.labels(), rule.IGNORED)
    torch.stack(list(losses.values())).sum().backward()
    kept = {name.removeprefix("gradient of "): g for name, g in published.items() if name.startswith("gradient")}
    assert len(kept) == 2
    for name, gradient in kept.items():
        torch.testing.assert_close(decoder.get_parameter(our_names(name)[0]).grad, gradient, atol=1e-4, rtol=1e-4)
