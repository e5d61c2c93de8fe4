from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from recyclelora.models.decoders import mask_loss
from recyclelora.models.decoders.loss_options import MaskLossConfig
from recyclelora.models.decoders.mask_loss import MaskLoss, class_masks

from .fixtures import rule

LOSS = MaskLoss(MaskLossConfig(num_points=64))
CLASSES, QUERIES = 4, 7


def predictions(outputs: int = 3, batch: int = 2):
    torch.manual_seed(0)
    classes = [torch.randn(batch, QUERIES, CLASSES + 1, requires_grad=True) for _ in range(outputs)]
    coarse = [torch.randn(batch, QUERIES, 3, 4) for _ in range(outputs)]
    masks = [4 * F.interpolate(m, scale_factor=4, mode="bilinear") for m in coarse]
    return classes, [m.requires_grad_() for m in masks]


def labels():
    torch.manual_seed(1)
    ids = torch.randint(0, CLASSES, (2, 6, 8))
    ids[0, 0, :3] = 255
    ids[1] = torch.where(ids[1] == 2, 255, ids[1])
    return ids.repeat_interleave(8, 1).repeat_interleave(8, 2)


def test_equals_the_loss_of_transformers(monkeypatch):
    monkeypatch.setattr(torch, "rand", rule.points)
    config = Mask2FormerConfig(num_labels=CLASSES, train_num_points=64)
    theirs = Mask2FormerLoss(config, {})
    classes, masks = predictions()
    ids = [image.unique() for image in labels()]
    ids = [i[i != 255] for i in ids]
    targets = [(image[None] == i[:, None, None]).float() for image, i in zip(labels(), ids, strict=True)]
    rest = [
        {"masks_queries_logits": m, "class_queries_logits": c} for c, m in zip(classes[:-1], masks[:-1], strict=True)
    ]
    expected = theirs(masks[-1], classes[-1], targets, ids, rest)
    ours = LOSS(classes, masks, labels(), 255)
    for name, key, weight in (("loss_cls", "cross_entropy", 2), ("loss_mask", "mask", 5), ("loss_dice", "dice", 5)):
        total = sum(value for k, value in expected.items() if key in k)
        torch.testing.assert_close(ours[name], weight * total, atol=1e-4, rtol=1e-5)


def test_no_labels_at_all():
    classes, masks = predictions()
    losses = LOSS(classes, masks, torch.full((2, 48, 64), 255), 255)
    assert losses["loss_mask"].item() == losses["loss_dice"].item() == 0
    nothing = torch.full((2 * QUERIES,), CLASSES)
    expected = 2 * sum(F.cross_entropy(c.flatten(0, 1), nothing) for c in classes)
    torch.testing.assert_close(losses["loss_cls"], expected)
    sum(losses.values()).backward()
    assert all(m.grad is not None and not m.grad.any() for m in masks)


def test_perfect_predictions_cost_nothing():
    """Queries that draw the four classes without doubt, the other three sure of nothing."""
    ids = torch.arange(4).view(1, 2, 2).repeat_interleave(16, 1).repeat_interleave(16, 2)
    masks = torch.full((1, QUERIES, 32, 32), -30.0)
    classes = torch.full((1, QUERIES, CLASSES + 1), -30.0)
    classes[0, :, CLASSES] = 30
    for category, query in enumerate((5, 0, 3, 6)):
        masks[0, query][ids[0] == category] = 30
        classes[0, query] = -30
        classes[0, query, category] = 30
    # logits and labels of one resolution are interpolated alike, but a sigmoid is not linear: all points on centres
    grid = (torch.arange(32) + 0.5) / 32
    centres = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1).view(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *size, device: centres[torch.arange(size[1]) % 1024].expand(*size))
        losses = LOSS([classes], [masks], ids, 255)
    assert all(value.item() == pytest.approx(0, abs=1e-4) for value in losses.values())


def test_counts_are_means_over_the_processes(monkeypatch):
    monkeypatch.setattr(torch, "rand", rule.points)
    classes, masks = predictions()
    alone = LOSS(classes, masks, labels(), 255)
    seen = []

    def doubled(counts):
        seen.append(counts.tolist())
        return 2 * counts

    monkeypatch.setattr(mask_loss, "mean_over_processes", doubled)
    shared = LOSS(classes, masks, labels(), 255)
    assert seen == [[pytest.approx(7 + 0.1 * (2 * QUERIES - 7)), 7.0]]
    for name, value in alone.items():
        torch.testing.assert_close(shared[name], value / 2)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_compared_in_float32(half, monkeypatch):
    monkeypatch.setattr(torch, "rand", rule.points)
    classes, masks = ([x.detach().to(half) for x in xs] for xs in predictions())
    with torch.autocast("cpu", torch.bfloat16):
        ours = LOSS(classes, masks, labels(), 255)
    exact = LOSS([c.float() for c in classes], [m.float() for m in masks], labels(), 255)
    assert ours == exact


def test_the_labels_that_count():
    ids = torch.tensor([[[0, 1], [255, 1]], [[200, 3], [3, 255]]], dtype=torch.uint8)
    masks = class_masks(ids, 4, 255)
    assert masks.any(-1).any(-1).int().tolist() == [[1, 1, 0, 0], [0, 0, 0, 1]]
    assert masks[1, 3].tolist() == [[0, 1], [1, 0]] and masks.sum() == 5


def test_weights_scale_their_losses(monkeypatch):
    monkeypatch.setattr(torch, "rand", rule.points)
    classes, masks = predictions()
    base = LOSS(classes, masks, labels(), 255)
    # all three doubled leave the matching as it is
    double = MaskLoss(dataclasses.replace(LOSS.options, class_weight=4.0, mask_weight=10.0, dice_weight=10.0))
    for name, value in double(classes, masks, labels(), 255).items():
        torch.testing.assert_close(value, 2 * base[name])


def test_parts_of_a_batch_that_know_the_counts_of_all_give_the_loss_of_the_whole(monkeypatch):
    """Images with other numbers of classes, and one without any, which counts as one mask as published."""
    monkeypatch.setattr(torch, "rand", rule.points)
    ids = torch.cat([labels(), torch.full((1, 48, 64), 255), torch.zeros(1, 48, 64, dtype=torch.long)])
    classes, masks = predictions(batch=4)
    whole = LOSS(classes, masks, ids, 255)
    present = class_masks(ids, CLASSES, 255).flatten(2).any(-1)
    counts = [LOSS.counts(part, QUERIES) for part in present.split([1, 3])]
    # one image with 4 classes and 3 spare queries; then three with 3, none and 1, 17 spare queries
    assert torch.stack(counts).flatten().tolist() == pytest.approx([4 + 0.3, 4, 4 + 0.1 * 17, 5])
    norm = torch.stack(counts).mean(0)
    parts = [
        LOSS([c[rows] for c in classes], [m[rows] for m in masks], ids[rows], 255, norm)
        for rows in (slice(0, 1), slice(1, 4))
    ]
    for name, value in whole.items():
        torch.testing.assert_close((parts[0][name] + parts[1][name]) / 2, value, atol=1e-5, rtol=1e-5)
