"""Which query answers for which class of an image: the assignment of least cost (DETR; Mask2Former)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F


def matching_cost(
    classes: Tensor, masks: Tensor, targets: Tensor, *, class_weight: float, mask_weight: float, dice_weight: float
) -> Tensor:
    """What it costs to let query q stand for class c.

    ``- class_weight p_q(c) + mask_weight BCE(m_q, t_c) + dice_weight (1 - (2 s_q.t_c + 1) / (|s_q| + |t_c| + 1))``
    with ``s = sigmoid(m)``.

    Args:
        classes: logits (B, Q, C + 1), no-object last
        masks: logits (B, Q, P) at P points
        targets: masks (B, C, P) of the classes at the same points

    Returns:
        (B, Q, C)
    """
    aim = targets.transpose(1, 2)
    # BCE(m, t) = softplus(m) - m t
    bce = (F.softplus(masks).sum(-1, keepdim=True) - masks @ aim) / masks.shape[-1]
    sigmoid = masks.sigmoid()
    dice = 1 - (2 * sigmoid @ aim + 1) / (sigmoid.sum(-1, keepdim=True) + aim.sum(1, keepdim=True) + 1)
    chance = classes.softmax(-1)[..., :-1]
    return mask_weight * bce + dice_weight * dice - class_weight * chance


@dataclass(frozen=True)
class Matched:
    """The T (image, class) pairs of a batch in the order of ``present.nonzero()``, and who answers for them. All on the
    CPU."""

    images: Tensor
    """(T,)"""
    classes: Tensor
    """(T,)"""
    queries: Tensor
    """(outputs, T)"""


def assign(costs: Tensor, present: Tensor) -> Matched:
    """Hungarian assignment for every output and image: the only part of a loss that the CPU computes.

    Args:
        costs: (outputs, B, Q, C) on the CPU
        present: (B, C) on the CPU, the classes an image contains; at most Q
    """
    # where training has gone off the rails, the loss must tell, not the assignment
    finite = torch.nan_to_num(costs, nan=1e30, posinf=1e30, neginf=-1e30).numpy()
    wanted = [row.nonzero()[:, 0].numpy() for row in present]
    found = torch.empty(len(costs), int(present.sum()), dtype=torch.long)
    for output, images in zip(found, finite, strict=True):
        first = 0
        for cost, columns in zip(images, wanted, strict=True):
            queries, order = linear_sum_assignment(cost[:, columns])
            output[first + torch.as_tensor(order)] = torch.as_tensor(queries)
            first += len(columns)
    images, classes = present.nonzero(as_tuple=True)
    return Matched(images, classes, found)
