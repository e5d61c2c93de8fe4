"""Random points at which masks are compared, instead of every pixel (Mask2Former, section 3.3; PointRend).

Points are (x, y) in units of the image's sides, so they serve maps of any resolution.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (N, C, h, w) at points (N, P, 2), bilinear: (N, C, P)."""
    return bilinear(maps, 2 * points[:, :, None] - 1)[..., 0]


def bilinear(maps: Tensor, grid: Tensor) -> Tensor:
    """Maps (N, C, h, w) at a grid (N, H, W, 2) of (x, y) from -1 to 1, zero outside: (N, C, H, W)."""
    if maps.is_cuda and torch.are_deterministic_algorithms_enabled():  # the kernel's backward pass is not
        return gathered(maps, grid)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def gathered(maps: Tensor, grid: Tensor) -> Tensor:
    """The same out of four gathers, whose backward pass is deterministic on every device."""
    height, width = maps.shape[-2:]
    sides = torch.tensor([width, height], dtype=grid.dtype, device=grid.device)
    places = ((grid + 1) * sides - 1) / 2
    corner = places.detach().floor()
    share = places - corner
    total = torch.zeros((), dtype=maps.dtype, device=maps.device)
    for right, below in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x, y = corner[..., 0] + right, corner[..., 1] + below
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        weight = (share[..., 0] if right else 1 - share[..., 0]) * (share[..., 1] if below else 1 - share[..., 1])
        index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long().flatten(1)
        found = maps.flatten(2).gather(2, index[:, None].expand(-1, maps.shape[1], -1))
        total = total + (weight * inside)[:, None] * found.view(*maps.shape[:2], *grid.shape[1:3])
    return total


def uncertain_points(masks: Tensor, num_points: int, oversample: float, importance: float) -> Tensor:
    """Points where masks are least sure of themselves, and some anywhere.

    Of ``oversample * num_points`` random points those with the smallest absolute logit make up the share ``importance``
    of the result; the rest are new random ones.

    Args:
        masks: logits (N, h, w)

    Returns:
        (N, num_points, 2)
    """
    drawn = torch.rand(len(masks), int(num_points * oversample), 2, device=masks.device)
    unsure = -sample(masks[:, None], drawn)[:, 0].abs()
    chosen = unsure.topk(int(importance * num_points), dim=1, sorted=False).indices
    kept = drawn.gather(1, chosen[..., None].expand(-1, -1, 2))
    rest = torch.rand(len(masks), num_points - chosen.shape[1], 2, device=masks.device)
    return torch.cat([kept, rest], 1)
