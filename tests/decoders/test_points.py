from __future__ import annotations

import torch
from torch.nn import functional as F

from recyclelora.decoders.points import sample, sample_classes, uncertain_points


def test_sample_is_bilinear_between_cell_centres():
    maps = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    points = torch.tensor([[[0.25, 0.25], [0.5, 0.25], [0.5, 0.5], [0.75, 0.75]]])
    assert sample(maps, points)[0, 0].tolist() == [0.0, 2.0, 6.0, 12.0]


def test_classes_at_points_are_their_masks_sampled():
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (3, 7, 9))
    labels[labels == 4] = 255
    points = torch.rand(3, 200, 2)
    points[:, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.5, 1.0]])
    ids = torch.arange(4)[None]
    masks = (labels[:, None] == ids[:, :, None, None]).float()
    torch.testing.assert_close(sample_classes(labels, points, ids), sample(masks, points), atol=1e-5, rtol=0)
    per_image = torch.tensor([[2], [0], [3]])
    expected = sample(masks, points)[torch.arange(3), per_image[:, 0]]
    bytes_too = sample_classes(labels.to(torch.uint8), points, per_image)[:, 0]
    torch.testing.assert_close(bytes_too, expected, atol=1e-5, rtol=0)


def test_three_quarters_of_the_points_are_the_most_uncertain_drawn():
    torch.manual_seed(0)
    masks = F.interpolate(torch.randn(2, 1, 4, 4), size=16, mode="bilinear")[:, 0]
    torch.manual_seed(1)
    points = uncertain_points(masks, 64, 3.0, 0.75)
    torch.manual_seed(1)
    drawn = torch.rand(2, 192, 2)
    assert points.shape == (2, 64, 2)
    unsure = sample(masks[:, None], drawn)[:, 0].abs().sort(1).values[:, :48]
    kept = sample(masks[:, None], points)[:, 0].abs()
    torch.testing.assert_close(kept[:, :48].sort(1).values, unsure)
    assert kept[:, 48:].mean() > 2 * kept[:, :48].mean()
