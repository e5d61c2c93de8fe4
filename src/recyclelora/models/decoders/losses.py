"""Training losses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recyclelora.system.distributed import mean_over_processes


def labelled_pixels(labels: Tensor, ignore_index: int) -> Tensor:
    """How many pixels of train ids (B, H, W) have a label: a scalar."""
    return (labels != ignore_index).sum()


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int, norm: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the labelled pixels of all processes; 0, with a gradient of 0, where none is labelled.

    Args:
        logits: (B, num_classes, H, W)
        labels: (B, H, W) train ids
        ignore_index: train id that does not count
        norm: labelled pixels to divide by, where ``labels`` are a part of a step: their mean over all its parts
    """
    rows, ids = logits, labels
    if logits.is_cuda and torch.are_deterministic_algorithms_enabled():  # the kernel for maps is not, that for rows is
        rows, ids = logits.movedim(1, -1).flatten(0, -2), labels.flatten()
    total = F.cross_entropy(rows, ids, ignore_index=ignore_index, reduction="sum")
    labelled = mean_over_processes(labelled_pixels(labels, ignore_index)) if norm is None else norm
    return total / torch.where(labelled > 0, labelled, 1)
