"""Training losses."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Mean cross-entropy over the labelled pixels; 0, with a gradient of 0, where no pixel is labelled.

    Args:
        logits: (B, num_classes, H, W)
        labels: (B, H, W) train ids
        ignore_index: train id that does not count
    """
    total = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="sum")
    return total / (labels != ignore_index).sum().clamp(min=1)
