"""Test-time augmentation: class probabilities averaged over scales and horizontal flips."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F


def averaged(
    probabilities: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float] = (1.0,), flip: bool = False
) -> Tensor:
    """Mean probabilities (B, K, H, W) over every scale, and over its mirror image where ``flip`` is set.

    Args:
        probabilities: images (B, 3, h, w) -> class probabilities (B, K, h, w)
        images: (B, 3, H, W), values 0 to 255
        scales: factors on both sides of the image
        flip: whether mirrored images count as well
    """
    size = (images.shape[-2], images.shape[-1])
    total: Tensor | None = None
    for scale in scales:
        view = _resized(images.float(), (round(size[0] * scale), round(size[1] * scale)))
        for mirrored in (False, True) if flip else (False,):
            found = probabilities(view.flip(-1) if mirrored else view)
            found = _resized(found.flip(-1) if mirrored else found, size)
            total = found if total is None else total + found
    assert total is not None, "at least one scale"
    return total / (len(scales) * (1 + flip))


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)
