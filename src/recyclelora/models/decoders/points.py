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
