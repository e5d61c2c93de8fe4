"""Numbers that concern all processes of a run."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


def gathered(mine: list[T]) -> list[T]:
    """What all processes have found, in the order of their ranks."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return mine
    every: list[list[T]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(every, mine)
    return [found for part in every for found in part]


@torch.no_grad()
def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes; the tensor itself where there is only one.

    A loss that divides a process's own sum by this mean of the counts is, once the gradients have been averaged, the
    loss of the whole batch on one process.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    total = value.detach().clone().float()
    dist.all_reduce(total)
    return total / dist.get_world_size()
