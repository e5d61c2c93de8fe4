from __future__ import annotations

import torch
from torch.nn import functional as F

from recyclelora.models.decoders.points import gathered, sample, uncertain_points


def test_sample_is_bilinear_between_cell_centres():
    maps = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    points = torch.tensor([[[0.25, 0.25], [0.5, 0.25], [0.5, 0.5], [0.75, 0.75]]])
    assert sample(maps, points)[0, 0].tolist() == [0.0, 2.0, 6.0, 12.0]


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


def test_four_gathers_are_the_bilinear_sample_with_its_gradients():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 5, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    grid = 3 * torch.rand(2, 4, 6, 2, generator=generator, dtype=torch.float64) - 1.5  # some lie outside
    grid.requires_grad_()
    upstream = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    results = []
    for found in (gathered(maps, grid), F.grid_sample(maps, grid, padding_mode="zeros", align_corners=False)):
        results.append([found, *torch.autograd.grad(found, (maps, grid), upstream)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
