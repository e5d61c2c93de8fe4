"""Random points at which masks are compared, instead of every pixel (Mask2Former, section 3.3; PointRend).

Points are (x, y) in units of the image's sides, so they serve maps of any resolution.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (N, C, h, w) at points (N, P, 2), bilinear: (N, C, P)."""
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]


def sample_classes(labels: Tensor, points: Tensor, classes: Tensor) -> Tensor:
    """Masks of classes at points, bilinear: what :func:`sample` gives for ``labels == class``, without that map.

    Args:
        labels: (N, H, W) train ids
        points: (N, P, 2)
        classes: (N, C) or (1, C) train ids

    Returns:
        (N, C, P) between 0 and 1
    """
    height, width = labels.shape[-2:]
    flat = labels.flatten(1)
    found = torch.zeros(len(points), classes.shape[1], points.shape[1], device=points.device)
    for y, down in _neighbours(points[..., 1], height):
        for x, right in _neighbours(points[..., 0], width):
            label = flat.gather(1, y * width + x)
            found += (down * right)[:, None] * (label[:, None] == classes[:, :, None])
    return found


def _neighbours(place: Tensor, cells: int) -> list[tuple[Tensor, Tensor]]:
    """The two cells beside each place (N, P) on an axis and their bilinear weights, 0 for a cell outside."""
    position = place * cells - 0.5
    first = position.floor()
    share = position - first
    index = first.long()
    return [
        (index.clamp(min=0), (1 - share) * (index >= 0)),
        ((index + 1).clamp(max=cells - 1), share * (index + 1 < cells)),
    ]


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
    chosen = unsure.topk(int(importance * num_points), dim=1).indices
    kept = drawn.gather(1, chosen[..., None].expand(-1, -1, 2))
    rest = torch.rand(len(masks), num_points - chosen.shape[1], 2, device=masks.device)
    return torch.cat([kept, rest], 1)
