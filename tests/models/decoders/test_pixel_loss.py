"""The losses of dense decoders against torch's, segmentation-models-pytorch's and sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recyclelora.models.decoders.loss_options import PixelLossConfig
from recyclelora.models.decoders.pixel_loss import PixelLoss, balanced, dice
from recyclelora.system.checks import refusals

NAMES, IGNORE = ("a", "b", "c"), 255


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 4, 5, generator=generator, requires_grad=True)
    labels = torch.randint(0, 3, (2, 4, 5), generator=generator)
    labels[0, 0] = IGNORE
    return logits, labels


def loss(batch, **options):
    return PixelLoss(PixelLossConfig(**options), NAMES)(*batch, IGNORE)


def test_cross_entropy_with_weights_and_smoothing_is_torchs(batch):
    logits, labels = batch
    plain = F.cross_entropy(logits, labels, ignore_index=IGNORE)
    assert loss(batch)["loss_ce"] == plain  # to the bit
    smooth = F.cross_entropy(logits, labels, ignore_index=IGNORE, label_smoothing=0.1)
    torch.testing.assert_close(loss(batch, label_smoothing=0.1)["loss_ce"], smooth)
    weighted = F.cross_entropy(logits, labels, torch.tensor([1.0, 3.0, 0.5]), ignore_index=IGNORE)
    torch.testing.assert_close(loss(batch, class_weights={"b": 3.0, "c": 0.5})["loss_ce"], weighted)
    torch.testing.assert_close(loss(batch, cross_entropy=2.0)["loss_ce"], 2 * plain)


def test_focal_loss_by_hand(batch):
    logits, labels = batch
    kept = labels != IGNORE
    p = logits.softmax(1).permute(0, 2, 3, 1)[kept].gather(1, labels[kept][:, None])[:, 0]
    torch.testing.assert_close(loss(batch, focal=2.0)["loss_ce"], (-((1 - p) ** 2) * p.log()).mean())


def test_dice_by_hand():
    p = torch.tensor([[0.8, 0.2, 0.0], [0.4, 0.6, 0.0]])
    by_hand = 1 - (2 * 0.8 / (1.2 + 1) + 2 * 0.6 / (0.8 + 1)) / 2  # the third class is not there and does not count
    torch.testing.assert_close(dice(p, torch.tensor([0, 1])), torch.tensor(by_hand))
    assert dice(torch.eye(3), torch.arange(3)) == 0


def test_lovasz_is_that_of_segmentation_models_pytorch(batch):
    theirs = pytest.importorskip("segmentation_models_pytorch").losses.LovaszLoss("multiclass", ignore_index=IGNORE)
    found = loss(batch, cross_entropy=0.0, lovasz=1.0)
    assert found.keys() == {"loss_lovasz"}
    torch.testing.assert_close(found["loss_lovasz"], theirs(*batch))
    (mine,) = torch.autograd.grad(found["loss_lovasz"], batch[0])
    (other,) = torch.autograd.grad(theirs(*batch), batch[0])
    torch.testing.assert_close(mine, other)


def test_parts_of_a_step_come_to_the_whole_for_sums_over_pixels(batch):
    logits, labels = batch
    whole = PixelLoss(PixelLossConfig(focal=1.0, class_weights={"a": 4.0}), NAMES)
    norm = torch.stack([whole.counts(part[None], IGNORE) for part in labels]).mean()
    parts = [whole(logits[i : i + 1], labels[i : i + 1], IGNORE, norm)["loss_ce"] for i in range(2)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole(logits, labels, IGNORE)["loss_ce"])


def test_one_labelled_pixel_of_two_parts_counts_whole(batch):
    logits, labels = batch
    labels = torch.full_like(labels, IGNORE)
    labels[1, 2, 3] = 1
    whole = PixelLoss(PixelLossConfig(), NAMES)
    norm = torch.stack([whole.counts(part[None], IGNORE) for part in labels]).mean()
    assert norm == 0.5
    parts = [whole(logits[i : i + 1], labels[i : i + 1], IGNORE, norm)["loss_ce"] for i in range(2)]
    assert parts[0] == 0
    torch.testing.assert_close(parts[1] / 2, F.cross_entropy(logits[1:, :, 2, 3], torch.tensor([1])))


def test_nothing_labelled_is_zero_with_a_gradient(batch):
    logits = batch[0]
    for found in loss((logits, torch.full((2, 4, 5), IGNORE)), focal=1.0, dice=1.0, lovasz=1.0).values():
        assert found == 0
        (gradient,) = torch.autograd.grad(found, logits, retain_graph=True)
        assert (gradient == 0).all()


def test_weights_of_rare_classes_by_hand():
    pixels = np.array([[90, 10, 0, 0], [50, 0, 50, 0]])
    # frequencies in the images that show a class: 140/200, 10/100, 50/100; their median is 0.5
    np.testing.assert_allclose(balanced(pixels, "median"), [0.5 / 0.7, 5.0, 1.0, 1.0])
    np.testing.assert_allclose(balanced(pixels, "log")[:2], [1 / np.log(1.72), 1 / np.log(1.07)])
    whole = PixelLoss(PixelLossConfig(balance="median", class_weights={"b": 2.0}), ("a", "b", "c", "d"))
    whole.balance(pixels)
    np.testing.assert_allclose(whole.weights, [0.5 / 0.7, 10.0, 1.0, 1.0], rtol=1e-6)


def test_options_are_checked():
    def wrong(**values):
        return [line.partition("=")[0] for line in refusals(PixelLossConfig(**values))]

    assert wrong() == wrong(dice=1.0, cross_entropy=0.0) == []
    assert wrong(cross_entropy=0.0) == ["cross_entropy"] and wrong(label_smoothing=1.0) == ["label_smoothing"]
    assert wrong(focal=-1.0, balance="mean") == ["focal", "balance"]
    assert wrong(class_weights={"a": -1.0}) == ["class_weights.a"]
